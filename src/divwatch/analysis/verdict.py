"""What kind of change a run has seen, in one sentence that a person can repeat.

Nothing here is a threshold of its own: a loss counts when a detector flagged it and it is still there
(`CollapseStatus.beyond`); two losses are compared by the interval of their paired
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from divwatch.analysis.decompose import Decomposition
from divwatch.analysis.detector import CollapseStatus
from divwatch.analysis.evidence import (
    CAPABILITIES,
    Evidence,
    OtherDetectors,
    alarm_state,
    change_text,
    level,
    loss_text,
)
from divwatch.analysis.history import ALARM_METRICS, History

KINDS = (
    "none",
    "aggregate collapse",
    "narrowing among correct answers",
    "quality control only",
    "lexical without semantic",
    "template collapse",
    "degeneration",
    "false recovery",
    "format acquisition",
    "not comparable",
)


@dataclass(frozen=True)
class Verdict:
    """kind: one of KINDS. sentence: the finding with its numbers. evidence: these numbers, by name, for the record.
    confirmed: whether the loss that the kind rests on is (`CollapseStatus.confirmed`); False where it rests on none."""

    kind: str
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)
    confirmed: bool = False


def classify_change(
    history: History,
    statuses: Mapping[tuple[str, str], CollapseStatus],
    split: Callable[[], Decomposition | None],
    min_drop: float,
    primary: str | None,
    others: OtherDetectors,
) -> Verdict:
    """The verdict after the last look. statuses: by (task, key). split: called where the kind depends on it."""
    if history.baseline is None or primary is None:
        usable = level(history, "quality/usable", -1)
        share = "" if usable is None else f": {usable:.0%} of the outputs are finished and readable at the last"
        unwatched = f"No metric that carries an alarm was measured ({', '.join(ALARM_METRICS)})"
        why = "No look is comparable" + share if primary else unwatched
        return Verdict("not comparable", why + ".", {"usable": usable})
    case = Evidence(history, statuses, min_drop, primary, others)
    for kind in (_false_recovery, _degeneration, _template, _narrowing, _aggregate, _in_tasks, _lexical, _format):
        if match := kind(case, split):
            return Verdict(match.kind, match.sentence + case.caveat(), case.record, match.confirmed)
    return Verdict("none", case.no_change() + case.caveat(), case.record)


class Match(NamedTuple):
    """What a rule says, and whether the loss that it rests on is confirmed."""

    kind: str
    sentence: str
    confirmed: bool


Rule = Match | None
Split = Callable[[], Decomposition | None]


def _false_recovery(case: Evidence, split: Split) -> Rule:
    """Wrong outputs carry the diversity: it holds or comes back over all outputs, stays down among correct ones, and
    accuracy falls."""
    correct, everything = case.change(case.correct), case.change(case.everything)
    if correct is None or everything is None or not case.lost("quality/accuracy"):
        return None
    if not case.flagged(case.correct) or not correct.change_interval[1] < 0:
        return None
    gap, lo, hi = case.losses_differ(case.everything, case.correct)
    holds = everything.change > -case.min_drop or case.risen_from_lowest(case.everything)
    if not (lo > 0 and holds):
        return None
    case.record["everything_minus_correct"] = {"change": gap, "lo": lo, "hi": hi}
    return Match(
        "false recovery",
        f"No recovery: diversity over all outputs is at {case.moved(case.everything)} only because of wrong answers; "
        f"among correct ones it is at {case.moved(case.correct)}{case.accuracy()}.",
        case.confirmed(case.correct),
    )


def _degeneration(case: Evidence, split: Split) -> Rule:
    """Capability went, and diversity no further than capability."""
    key = case.worst_capability()
    if key is None:
        return None
    for diversity in (case.correct, case.everything):
        if case.flagged(diversity) and case.losses_differ(key, diversity)[1] > 0:
            return None  # more diversity than capability was lost: a collapse, whatever else
    return Match(
        "degeneration",
        f"The model lost capability, which is not collapse: {CAPABILITIES[key]} went from {case.levels(key)}; "
        f"{case.course()}.",
        case.confirmed(key),
    )


def _template(case: Evidence, split: Split) -> Rule:
    """Outputs of different prompts become similar, more than the outputs of one prompt do."""
    across = f"across/{case.primary}"
    if not case.lost(across):
        return None
    if case.flagged(case.everything) and not case.losses_differ(case.everything, across)[1] > 0:
        return None
    return Match(
        "template collapse",
        "Answers depend less on the prompt: the distance between answers to different prompts fell by "
        f"{case.loss(across)}, while {case.course('diversity within a prompt')}.",
        case.confirmed(across),
    )


def _narrowing(case: Evidence, split: Split) -> Rule:
    status = case.change(case.correct)
    if status is None or not status.collapsed:
        return None
    text = f"Correct answers narrowed: {case.fall(case.correct, 'their diversity')}"
    if case.change(case.everything) is not None:
        text += f"; over all outputs it changed by {case.moved(case.everything)}"
    text += case.accuracy() + "." + case.alarm(case.correct)
    return Match("narrowing among correct answers", text, status.confirmed)


def _aggregate(case: Evidence, split: Split) -> Rule:
    status = case.change(case.everything)
    if status is None or not status.collapsed:
        return None
    fell, state = case.fall(case.everything, "Diversity"), case.alarm(case.everything)
    correct = case.change(case.correct)
    if correct is None:
        text = f"{fell}; correct answers were not measured apart.{state}"
        return Match("aggregate collapse", text, status.confirmed)
    if status.change < 0 and _fewer_errors(case, correct, split()):
        text = f"{fell}, because fewer answers are wrong{case.accuracy()}; correct answers are as spread as before, "
        return Match("quality control only", f"{text}at {case.moved(case.correct)}.{state}", status.confirmed)
    text = f"{fell}; among correct answers the change is {case.moved(case.correct)}{case.accuracy()}.{state}"
    return Match("aggregate collapse", text, status.confirmed)


def _fewer_errors(case: Evidence, correct: CollapseStatus, split: Decomposition | None) -> bool:
    """Quality control is a loss beyond doubt and most of the whole, and the correct answers show none of their own.

    Where they are too few for an interval, that is not known.
    """
    if split is None:
        return False
    lo, hi = split.intervals["quality_control"]
    case.record["quality_control"] = {"change": split.quality_control, "lo": lo, "hi": hi, "total": split.total}
    own = not correct.change_interval[1] >= 0 or case.lost("quality/accuracy")
    return hi < 0 and split.quality_control <= split.total / 2 < 0 and not own


def _in_tasks(case: Evidence, split: Split) -> Rule:
    """Nothing over the whole panel, but in a task."""
    for key, kind, what in (
        (case.correct, "narrowing among correct answers", "correct answers narrowed"),
        (case.everything, "aggregate collapse", "diversity fell"),
    ):
        flagged = {task: s.as_of_last_value() for (task, k), s in case.statuses.items() if k == key and s.collapsed}
        changes = [(task, status) for task, status in flagged.items() if status is not None]
        if changes:
            parts = []
            for task, status in changes:
                lo, hi = status.change_interval
                state = alarm_state(status, case.history)
                parts.append(_fall_of_task(task, status, case) + (f" (the alarm was {state})" if state else ""))
                case.record[f"{task}:{key}"] = {"change": status.change, "lo": lo, "hi": hi, "n": status.n}
            text = f"In {len(changes)} of {len(set(case.history.tasks))} tasks {what}: {'; '.join(parts)}."
            return Match(kind, text, any(status.confirmed for _, status in changes))
    return None


def _fall_of_task(task: str, status: CollapseStatus, case: Evidence) -> str:
    began = f", beginning after step {status.onset_step}"
    if status.change < 0:
        return f"{task} by {loss_text(status, case.history)}{began}"
    return f"{task}{began}, and back at {change_text(status, case.history)}"


def _lexical(case: Evidence, split: Split) -> Rule:
    if case.primary == "ead" or not case.lost("diversity/ead"):
        return None
    what = "Wording narrowed" + (" and meaning did not" if case.knows_diversity() else "")
    text = f"{what}: lexical diversity fell by {case.loss('diversity/ead')}, {case.course('semantic diversity')}."
    return Match("lexical without semantic", text, case.confirmed("diversity/ead"))


def _format(case: Evidence, split: Split) -> Rule:
    if case.baseline == 0:
        return None
    shares = []
    for name in ("usable", "finished"):
        before, after = (level(case.history, f"quality/{name}", look) for look in (0, -1))
        if before is not None and after is not None and before < after:
            shares.append(f"{name} outputs {before:.2f} to {after:.2f}")
    share = f" ({', '.join(shares)})" if shares else ""
    text = f"The model learnt the answer format{share}, which is not collapse. {case.no_change()}"
    return Match("format acquisition", text, False)
