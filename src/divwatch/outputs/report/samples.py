"""Sample completions side by side: which prompts and looks to show, and identical answers folded into one with its count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from divwatch.outputs.report.layout import Lineage, stage_name
from divwatch.outputs.text import shortened

TEXT_LIMIT = 600  # characters of an answer shown; the whole text is in completions/*.parquet
THOUGHT_LIMIT = 1200
GROUPS = 16  # distinct texts shown a prompt and look


@dataclass(frozen=True)
class AnswerGroup:
    """Completions of one prompt with the same answer text. `verdict`: correct, wrong, mixed, unusable or unjudged."""

    text: str
    more: int
    count: int
    verdict: str
    thought: str
    thought_more: int


@dataclass(frozen=True)
class ShownLook:
    """A look whose completions are on the page. `first`: visible when the page opens; others on request."""

    title: str
    number: int
    step: int
    first: bool


@dataclass(frozen=True)
class Column:
    """The completions of one prompt at one look. `correct`: None if nothing was judged. `hidden`: texts left out."""

    samples: int
    correct: int | None
    distinct: int
    groups: list[AnswerGroup]
    hidden: int


@dataclass(frozen=True)
class Example:
    """One prompt, one column per look; None where the stage does not ask it."""

    prompt: str
    prompt_more: int
    task: str
    why: str
    columns: list[Column | None]


def examples(lineage: Lineage, key: str, at_most: int = 15) -> tuple[list[ShownLook], list[Example]]:
    """The looks shown, and for each task the prompt whose loss of `key` is the typical one (the median of its task)."""
    looks = _looks(lineage)
    if not looks:
        return [], []
    frames = [lineage.runs[look.number].completions(look.step) for look in looks]
    asked = [lineage.runs[look.number].prompt_texts() for look in looks]
    texts = {id: text for known in asked for id, text in known.items()}
    examples = []
    ends = [look for look in looks if look.first]
    for task, prompt_id in _choose(lineage, ends[0], ends[-1], key)[:at_most]:
        columns = [
            _column(frame, prompt_id) if prompt_id in known or not known else None
            for frame, known in zip(frames, asked, strict=True)
        ]
        if any(c and c.samples for c in columns):
            text, more = shortened(texts.get(prompt_id, str(prompt_id)), TEXT_LIMIT)
            examples.append(Example(text, more, task, "median change of diversity", columns))
    return looks, examples


def _looks(lineage: Lineage) -> list[ShownLook]:
    """The first look with completions, the last of each stage, and two in between, which the page shows on request."""
    out: list[ShownLook] = []
    for number, (run, stage) in enumerate(zip(lineage.runs, lineage.stages, strict=True)):
        steps = run.completion_steps()
        if not steps:
            continue
        if not out:
            out.append(ShownLook(f"before {stage_name(stage)}", number, steps[0], True))
        inner = steps[1:-1]
        for step in sorted({inner[len(inner) // 3], inner[2 * len(inner) // 3]} if inner else ()):
            out.append(ShownLook(f"{stage_name(stage)} step {step}", number, step, False))
        if (number, steps[-1]) != (out[-1].number, out[-1].step):
            out.append(ShownLook(f"end of {stage_name(stage)}", number, steps[-1], True))
    return out


def _choose(lineage: Lineage, first: ShownLook, last: ShownLook, key: str) -> list[tuple[str, str]]:
    """(task, id) of the prompt with the median change of `key` of each task; any prompt if nothing was scored."""
    before, after = (_scores(lineage, look, key) for look in (first, last))
    both = before.merge(after, on=["id", "task"], suffixes=("_before", "_after")).dropna()
    if both.empty:
        both = before.assign(change=0.0)
    else:
        both["change"] = both[f"{key}_after"] - both[f"{key}_before"]
    chosen = []
    for task, group in both.groupby("task", sort=False):
        ordered = group.sort_values(["change", "id"])
        chosen.append((str(task), ordered.iloc[len(ordered) // 2]["id"]))
    return chosen


def _scores(lineage: Lineage, look: ShownLook, key: str) -> pd.DataFrame:
    run = lineage.runs[look.number]
    scores = run.scores[run.scores["step"] == look.step]
    values = scores[key] if key in scores.columns else 0.0
    return pd.DataFrame({"id": run.paired(scores["id"]), "task": scores["task"], key: values})


def _column(frame: pd.DataFrame, prompt_id: str) -> Column:
    if frame.empty or "prompt_id" not in frame.columns:
        return Column(0, None, 0, [], 0)
    rows = frame[frame["prompt_id"] == prompt_id].to_dict("records")
    folded: dict[str, list[dict]] = {}
    for row in rows:
        # Spaces and line ends are not a difference that a reader would see.
        folded.setdefault(" ".join(_answer(row).split()), []).append(row)
    groups = [_group(members) for members in sorted(folded.values(), key=len, reverse=True)]
    judged = [row for row in rows if _flag(row.get("correct")) is not None]
    correct = sum(bool(row["correct"]) for row in judged) if judged else None
    return Column(len(rows), correct, len(folded), groups[:GROUPS], max(0, len(groups) - GROUPS))


def _group(members: Sequence[dict]) -> AnswerGroup:
    text, more = shortened(_answer(members[0]).strip(), TEXT_LIMIT)
    thought, thought_more = shortened(_thought(members[0]), THOUGHT_LIMIT)
    verdicts = {_verdict(row) for row in members}
    verdict = verdicts.pop() if len(verdicts) == 1 else "mixed"
    return AnswerGroup(text, more, len(members), verdict, thought, thought_more)


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
