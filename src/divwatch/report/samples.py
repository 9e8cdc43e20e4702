"""Sample completions side by side: which prompts and looks to show, and duplicates folded with their counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from divwatch.report.layout import Lineage, stage_name
from divwatch.report.text import shortened

TEXT_LIMIT = 600  # characters of an answer shown; the whole text is in completions/*.parquet
THOUGHT_LIMIT = 1200
GROUPS = 16  # distinct texts shown a prompt and look


@dataclass(frozen=True)
class Group:
    """Completions of one prompt with the same answer text. `verdict`: correct, wrong, mixed, unusable or unjudged."""

    text: str
    more: int
    count: int
    verdict: str
    thought: str
    thought_more: int


@dataclass(frozen=True)
class Column:
    """One look at one prompt."""

    title: str
    step: int
    samples: int
    correct: int | None
    distinct: int
    groups: list[Group]
    hidden: int


@dataclass(frozen=True)
class Example:
    """One prompt over several looks, the earliest first."""

    prompt: str
    prompt_more: int
    task: str
    why: str
    columns: list[Column]


def examples(lineage: Lineage, key: str, per_task: int = 1, at_most: int = 15) -> list[Example]:
    """For each task the prompt whose loss of `key` is the typical one (`per_task` 2: and the one that lost most).

    Looks shown: before training and the end of each stage.
    """
    looks = _looks(lineage)
    if len(looks) == 0:
        return []
    frames = {place: lineage.runs[place[0]].completions(place[1]) for place in dict.fromkeys(p for _, p in looks)}
    texts = {p.get("id"): str(p.get("text") or "") for run in lineage.runs for p in _prompts(run.meta)}
    made = []
    for task, prompt_id, why in _choose(lineage, looks[0][1], looks[-1][1], key, per_task)[:at_most]:
        columns = [_column(title, place[1], frames[place], prompt_id) for title, place in looks]
        if any(c.samples for c in columns):
            text, more = shortened(texts.get(prompt_id, str(prompt_id)), TEXT_LIMIT)
            made.append(Example(text, more, task, why, columns))
    return made


def _looks(lineage: Lineage) -> list[tuple[str, tuple[int, int]]]:
    """(title, (stage number, step)): the first look with completions, then the last of each stage."""
    out: list[tuple[str, tuple[int, int]]] = []
    for number, run in enumerate(lineage.runs):
        steps = run.completion_steps()
        if not steps:
            continue
        if not out:
            out.append((f"before {stage_name(lineage.stages[number])}", (number, steps[0])))
        if (number, steps[-1]) != out[-1][1]:
            out.append((f"end of {stage_name(lineage.stages[number])}", (number, steps[-1])))
    return out


def _prompts(meta: dict) -> list[dict]:
    panel = meta.get("panel")
    prompts = panel.get("prompts") if isinstance(panel, dict) else None
    return [p for p in prompts or [] if isinstance(p, dict)]


def _choose(
    lineage: Lineage, first: tuple[int, int], last: tuple[int, int], key: str, per_task: int
) -> list[tuple[str, str, str]]:
    before, after = (_scores(lineage, place, key) for place in (first, last))
    both = before.merge(after, on=["id", "task"], suffixes=("_before", "_after")).dropna()
    if both.empty:
        both = before.assign(change=0.0) if len(before) else pd.DataFrame(columns=["id", "task", "change"])
    else:
        both["change"] = both[f"{key}_after"] - both[f"{key}_before"]
    out = []
    for task, group in both.groupby("task", sort=False):
        ordered = group.sort_values(["change", "id"])
        typical = ordered.iloc[len(ordered) // 2]
        out.append((str(task), typical["id"], "typical change"))
        if per_task > 1 and len(ordered) > 2:
            out.append((str(task), ordered.iloc[0]["id"], "largest loss"))
    return out


def _scores(lineage: Lineage, place: tuple[int, int], key: str) -> pd.DataFrame:
    scores = lineage.runs[place[0]].scores
    if key not in scores.columns:
        scores = scores.assign(**{key: 0.0})
    return scores.loc[scores["step"] == place[1], ["id", "task", key]]


def _column(title: str, step: int, frame: pd.DataFrame, prompt_id: str) -> Column:
    if frame.empty or "prompt_id" not in frame.columns:
        return Column(title, step, 0, None, 0, [], 0)
    rows = frame[frame["prompt_id"] == prompt_id].to_dict("records")
    folded: dict[str, list[dict]] = {}
    for row in rows:
        # Spaces and line ends are not a difference that a reader would see.
        folded.setdefault(" ".join(_answer(row).split()), []).append(row)
    groups = [_group(members) for members in sorted(folded.values(), key=len, reverse=True)]
    judged = [row for row in rows if _flag(row.get("correct")) is not None]
    correct = sum(bool(row["correct"]) for row in judged) if judged else None
    return Column(title, step, len(rows), correct, len(folded), groups[:GROUPS], max(0, len(groups) - GROUPS))


def _group(members: Sequence[dict]) -> Group:
    text, more = shortened(_answer(members[0]).strip(), TEXT_LIMIT)
    thought, thought_more = shortened(_thought(members[0]), THOUGHT_LIMIT)
    verdicts = {_verdict(row) for row in members}
    verdict = verdicts.pop() if len(verdicts) == 1 else "mixed"
    return Group(text, more, len(members), verdict, thought, thought_more)


def _answer(row: dict) -> str:
    answer = row.get("answer_text")
    return answer if isinstance(answer, str) else str(row.get("text") or "")


def _thought(row: dict) -> str:
    whole, answer = str(row.get("text") or ""), _answer(row)
    if not answer or whole.strip() == answer.strip() or not whole.rstrip().endswith(answer.strip()):
        return ""
    return whole.rstrip()[: -len(answer.strip())].strip()


def _verdict(row: dict) -> str:
    if _flag(row.get("usable")) is False:
        return "unusable"
    correct = _flag(row.get("correct"))
    return "unjudged" if correct is None else "correct" if correct else "wrong"


def _flag(value: object) -> bool | None:
    return None if value is None or value != value else bool(value)
