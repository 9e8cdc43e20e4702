"""Published numbers to hold a run against: diversity that Olmo 3 7B kept at each stage.

Source: Karouzos, Tan and Aletras (2026), "Where does output diversity collapse in post-training?", arXiv
2604.16027v1, table 3: mean pairwise cosine distance of 16 outputs (temperature 0.6, top-p 0.95, all-mpnet-base-v2).
"""

from __future__ import annotations

from divwatch.errors import DivwatchError

SOURCE = "Karouzos, Tan and Aletras (2026), arXiv 2604.16027v1, table 3"

# Columns: base, instruct SFT, DPO, RL, think SFT, DPO, RL.
_SBERT = {
    "tldr": (0.353, 0.268, 0.202, 0.207, 0.168, 0.159, 0.161),
    "cnn_dm": (0.279, 0.223, 0.075, 0.072, 0.083, 0.059, 0.091),
    "xsum": (0.451, 0.282, 0.083, 0.081, 0.090, 0.064, 0.092),
    "alpaca": (0.319, 0.170, 0.120, 0.113, 0.141, 0.118, 0.146),
    "ifeval": (0.349, 0.172, 0.154, 0.154, 0.191, 0.165, 0.196),
    "writing_prompts": (0.540, 0.276, 0.225, 0.202, 0.240, 0.205, 0.199),
    "prism": (0.408, 0.141, 0.096, 0.090, 0.100, 0.089, 0.091),
    "wildbench": (0.335, 0.129, 0.122, 0.118, 0.160, 0.154, 0.173),
    "gsm8k": (0.172, 0.105, 0.141, 0.078, 0.061, 0.052, 0.051),
    "math_algebra": (0.146, 0.132, 0.071, 0.057, 0.054, 0.061, 0.062),
    "math_geometry": (0.198, 0.179, 0.096, 0.101, 0.107, 0.114, 0.122),
    "truthfulqa": (0.353, 0.327, 0.158, 0.115, 0.119, 0.074, 0.075),
    "humaneval": (0.411, 0.112, 0.095, 0.093, 0.109, 0.081, 0.117),
    "mbpp": (0.291, 0.111, 0.073, 0.069, 0.081, 0.084, 0.089),
    "cruxeval": (0.239, 0.218, 0.068, 0.062, 0.095, 0.076, 0.090),
}
_COLUMNS = {
    "instruct": {"base": 0, "sft": 1, "dpo": 2, "rl": 3},
    "think": {"base": 0, "sft": 4, "dpo": 5, "rl": 6},
}
# Mean over the six RL-Zero models of the share of the base kept, mean over tasks (table 1).
_RL_ZERO_KEPT = 0.93
_SHORT_NAMES = {"mathalg": "math_algebra", "mathgeo": "math_geometry", "cnn": "cnn_dm"}

TASKS = tuple(_SBERT)


def _plain(name: str) -> str:
    """Letters and digits alone: 'CNN/DM', 'cnn_dm' and 'cnn-dm' are one task."""
    return "".join(c for c in name.lower() if c.isalnum())


_BY_PLAIN_NAME = {_plain(name): name for name in TASKS}


def sbert(line: str, stage: str, task: str) -> float | None:
    """Published diversity of Olmo 3 7B at a stage ("base", "sft", "dpo", "rl") of a line ("instruct", "think").

    None where nothing is published: another task, another stage.

    >>> sbert("instruct", "sft", "gsm8k")
    0.105
    """
    plain = _plain(task)
    row = _SBERT.get(_SHORT_NAMES.get(plain, _BY_PLAIN_NAME.get(plain, "")))
    column = _columns(line).get(stage.lower())
    return None if row is None or column is None else row[column]


def retained(line: str, stage: str, task: str = "all") -> float | None:
    """Share of the base's diversity that Olmo 3 7B kept after a stage; task "all": mean over the 15 tasks' shares.

    line: "instruct" or "think" (stages "sft", "dpo", "rl"), or "rl_zero" (stage "rl", task "all" only).
    None where nothing is published. Raises DivwatchError on an unknown line.

    >>> round(retained("instruct", "sft", "gsm8k"), 2), round(retained("think", "rl"), 2)
    (0.61, 0.38)
    """
    if line.lower() in ("rl_zero", "rl-zero"):
        return _RL_ZERO_KEPT if (stage.lower(), task) == ("rl", "all") else None
    shares = []
    for name in TASKS if task == "all" else (task,):
        base, now = sbert(line, "base", name), sbert(line, stage, name)
        if base is None or now is None:
            return None
        shares.append(now / base)
    return sum(shares) / len(shares)


def _columns(line: str) -> dict[str, int]:
    if line.lower() not in _COLUMNS:
        raise DivwatchError(f"no published numbers for line {line!r}: choose from {', '.join(_COLUMNS)}, rl_zero")
    return _COLUMNS[line.lower()]
