"""Published diversity of Olmo 3 7B at each stage, to compare a run with. The numbers stand with each task.

Source: Karouzos, Tan and Aletras (2026), "Where does output diversity collapse in post-training?", arXiv
2604.16027v1, table 3: mean pairwise cosine distance of 16 outputs (temperature 0.6, top-p 0.95, all-mpnet-base-v2).
"""

from __future__ import annotations

from divwatch.errors import DivwatchError
from divwatch.tasks import PAPER, find_task

SOURCE = "Karouzos, Tan and Aletras (2026), arXiv 2604.16027v1, table 3"

LINES = ("instruct", "think")
STAGES = ("sft", "dpo", "rl")
# Share of the base's diversity that RL-Zero retained: mean over the six models and the 15 tasks (table 1).
_RL_ZERO_RETAINED = 0.93


def sbert(line: str, stage: str, task: str) -> float | None:
    """Published diversity of Olmo 3 7B at a stage ("base", "sft", "dpo", "rl") of a line ("instruct", "think").

    task: a task's name, or the name that the paper's tables give it. None if nothing is published for the task or stage.
    Raises DivwatchError for an unknown line.

    >>> sbert("instruct", "sft", "gsm8k")
    0.105
    """
    line, stage = line.lower(), stage.lower()
    if line not in LINES:
        raise DivwatchError(f"no published numbers for line {line!r}: choose from {', '.join(LINES)}, rl_zero")
    entry = find_task(task)
    if entry is None or entry.published is None:
        return None
    if stage == "base":
        return entry.published.base
    after = entry.published.instruct if line == "instruct" else entry.published.think
    return after[STAGES.index(stage)] if stage in STAGES else None


def retained(line: str, stage: str, task: str = "all") -> float | None:
    """Share of the base's diversity that Olmo 3 7B retained after a stage; task "all": mean over the paper's 15 tasks.

    line: "instruct" or "think" (stages "sft", "dpo", "rl"), or "rl_zero" (stage "rl", task "all" only).
    None if nothing is published. Raises DivwatchError for an unknown line.

    >>> round(retained("instruct", "sft", "gsm8k"), 2), round(retained("think", "rl"), 2)
    (0.61, 0.38)
    """
    if line.lower() in ("rl_zero", "rl-zero"):
        return _RL_ZERO_RETAINED if (stage.lower(), task) == ("rl", "all") else None
    shares = []
    for name in [t.name for t in PAPER] if task == "all" else [task]:
        base, after = sbert(line, "base", name), sbert(line, stage, name)
        if base is None or after is None:
            return None
        shares.append(after / base)
    return sum(shares) / len(shares)
