"""The lost answers: what the base said to one prompt, and what the model says to it now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from divwatch.analysis.assess import Assessment
from divwatch.outputs.report.samples import AnswerGroup, Column, Example, ShownLook
from divwatch.outputs.text import shortened

SHOWN = 5  # answers of each side
LENGTH = 110  # characters of an answer


@dataclass(frozen=True)
class Answer:
    """An answer with its number of samples. verdict: as in `AnswerGroup`. lost: given before and never now."""

    text: str
    count: int
    verdict: str
    lost: bool


@dataclass(frozen=True)
class LostAnswers:
    """One prompt before and now. hidden_*: different answers that are not shown."""

    task: str
    prompt: str
    title_before: str
    title_now: str
    before: list[Answer]
    now: list[Answer]
    hidden_before: int
    hidden_now: int
    summary: str


def lost_answers(
    looks: Sequence[ShownLook], examples: Sequence[Example], whole: Assessment | None
) -> LostAnswers | None:
    """Of the task that lost most, the prompt with the median change; None without completions of two looks."""
    ends = [i for i, look in enumerate(looks) if look.first]
    if len(ends) < 2:
        return None
    pairs = [(example, example.columns[ends[0]], example.columns[ends[-1]]) for example in examples]
    sampled = [(e, before, now) for e, before, now in pairs if before and now and before.samples and now.samples]
    if not sampled:
        return None
    example, before, now = min(sampled, key=lambda pair: _change(whole, pair[0].task))
    kept = {_same(group) for group in now.groups}
    prompt, more = shortened(" ".join(example.prompt.split()), 160)
    gone = sum(_same(group) not in kept for group in before.groups)
    return LostAnswers(
        example.task,
        prompt + (" …" if more else ""),
        looks[ends[0]].title,
        looks[ends[-1]].title,
        [_answer(group, _same(group) not in kept) for group in before.groups[:SHOWN]],
        [_answer(group, False) for group in now.groups[:SHOWN]],
        max(before.distinct - SHOWN, 0),
        max(now.distinct - SHOWN, 0),
        _summary(before, now, gone),
    )


def _summary(before: Column, now: Column, gone: int) -> str:
    different = f"{before.distinct} different answers in {before.samples} samples, now {now.distinct}"
    return different + (f"; {gone} of the earlier ones were not sampled again" if gone else "")


def _change(whole: Assessment | None, task: str) -> float:
    changes = [s.change for (name, _), s in (whole.statuses.items() if whole else ()) if name == task]
    return min([c for c in changes if c == c], default=0.0)


def _same(group: AnswerGroup) -> str:
    return " ".join(group.text.split())


def _answer(group: AnswerGroup, lost: bool) -> Answer:
    text, more = shortened(_same(group), LENGTH)
    return Answer((text or "(empty)") + (" …" if more or group.more else ""), group.count, group.verdict, lost)
