"""What kind of change a run has seen, in one sentence that a person can repeat.

Nothing here is a threshold of its own: a loss counts when its 95 % interval lies beyond `min_drop` in two looks
running (`CollapseStatus.beyond`) or when an alarm was raised; two losses are compared by the interval of their paired
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divwatch.analysis.detector import CollapseDetector, CollapseStatus
from divwatch.analysis.intervals import percentile_interval, resampled_means

if TYPE_CHECKING:
    from divwatch.analysis.assess import History
    from divwatch.analysis.decompose import Decomposition

Floats = NDArray[np.float64]

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
_ALL = "all"
_DRAWS = 1000
# Shares of outputs where 1 is best; a loss in one of them is a loss of capability. Repetition counts as 1 - repetition.
_CAPABILITIES = {
    "quality/accuracy": "accuracy",
    "quality/usable": "the share of usable outputs",
    "quality/finished": "the share of finished outputs",
    "quality/repetition": "the share of text without loops",
}


@dataclass(frozen=True)
class Verdict:
    """kind: one of KINDS. sentence: the finding with its numbers. evidence: these numbers, by name, for the record."""

    kind: str
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)


def judge(
    history: History,
    statuses: Mapping[tuple[str, str], CollapseStatus],
    split: Callable[[], Decomposition | None],
    min_drop: float,
    primary: str | None,
) -> Verdict:
    """The verdict after the last look. statuses: by (task, key). split: called where the kind depends on it."""
    if history.baseline is None or primary is None:
        usable = _level(history, "quality/usable", -1)
        share = "" if usable is None else f": {usable:.0%} of the outputs are finished and readable at the last"
        why = "No look is comparable" + share if primary else "No diversity metric was measured"
        return Verdict("not comparable", why + ".", {"usable": usable})
    case = _Case(history, statuses, min_drop, primary)
    for kind in (_false_recovery, _degeneration, _template, _narrowing, _aggregate, _in_tasks, _lexical, _format):
        found = kind(case, split)
        if found:
            return Verdict(found[0], found[1] + case.caveat(), case.evidence)
    return Verdict("none", case.no_change() + case.caveat(), case.evidence)


class _Case:
    """The evidence of one run, computed when a rule first asks for it."""

    def __init__(
        self, history: History, statuses: Mapping[tuple[str, str], CollapseStatus], min_drop: float, primary: str
    ) -> None:
        self.history, self.statuses, self.min_drop, self.primary = history, statuses, min_drop, primary
        self.everything, self.correct = f"diversity/{primary}", f"correct_diversity/{primary}"
        assert history.baseline is not None
        self.baseline: int = history.baseline
        self.evidence: dict[str, Any] = {}
        self._changes: dict[str, CollapseStatus | None] = {}

    def change(self, key: str) -> CollapseStatus | None:
        """Change of `key` over the whole panel, None where it was not measured. Noted as evidence."""
        if key not in self._changes:
            status = self.statuses.get((_ALL, key)) or self._measure(key)
            # Where accuracy is gone nothing can be said of correct answers now; what was said of them stands.
            self._changes[key] = status.as_of_last_value() if status else None
            self._note(key, self._changes[key])
        return self._changes[key]

    def _measure(self, key: str) -> CollapseStatus | None:
        history = self.history
        if key not in history.values:
            return None
        # Looks that are not comparable are themselves the evidence where capability is the question.
        kept = [i for i in range(self.baseline, len(history.steps)) if history.comparable[i] or key in _CAPABILITIES]
        table = history.series_of(_as_capability(history, key))[kept]
        detector = CollapseDetector(len(history.steps), min_drop=self.min_drop)
        return detector.replay([history.steps[i] for i in kept], table)

    def _note(self, key: str, status: CollapseStatus | None) -> None:
        if status is not None:
            lo, hi = status.change_interval
            self.evidence[key] = {"change": status.change, "lo": lo, "hi": hi, "n": status.n, "beyond": status.beyond}

    def lost(self, key: str) -> bool:
        """The loss of `key` is beyond `min_drop` in two looks running."""
        status = self.change(key)
        return status is not None and status.beyond

    def flagged(self, key: str) -> bool:
        """An alarm was raised on `key`, or its loss is beyond `min_drop`."""
        status = self.change(key)
        return status is not None and (status.collapsed or status.beyond)

    def worst_capability(self) -> str | None:
        """The capability that lost most, of those whose loss is beyond `min_drop`."""
        lost = [(status.change, key) for key in _CAPABILITIES if self.lost(key) and (status := self.change(key))]
        return min(lost)[1] if lost else None

    def losses_differ(self, smaller: str, larger: str) -> tuple[float, float, float]:
        """(change of `smaller` - change of `larger`) over the panel, relative, with its paired 95 % interval: above 0
        where `larger` lost more."""
        h, now = self.history, self.history.last
        assert now is not None
        columns = []
        for key in (smaller, larger):
            values = _as_capability(h, key)
            before, after = values[self.baseline], values[now]
            both = np.isfinite(before) & np.isfinite(after)
            columns += [np.where(both, before, np.nan), np.where(both, after, np.nan)]
        table = np.column_stack(columns)
        draws = np.vstack([resampled_means(table, strata=h.tasks, draws=_DRAWS), _task_means(table, h.tasks)])
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = draws[:, 1] / draws[:, 0] - draws[:, 3] / draws[:, 2]
        lo, hi = percentile_interval(gap[:-1], len(h.tasks), strata=len(set(h.tasks)))
        return float(gap[-1]), lo, hi

    def risen_from_lowest(self, key: str) -> bool:
        """`key` has come up from its lowest two looks running by more than `min_drop` of the baseline, beyond noise."""
        h = self.history
        kept = [i for i in range(len(h.steps)) if h.comparable[i]]
        table = h.series(key)[kept]
        if len(kept) < 5:
            return False
        two_running = (table[1:-1] + table[2:]) / 2  # [looks - 2, prompts]
        levels = [row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.inf for row in two_running]
        rise = two_running[-1] - two_running[int(np.argmin(levels))]
        rise, base = rise[np.isfinite(rise)], table[0][np.isfinite(table[0])].mean()
        if len(rise) < 2:
            return False
        lo, _ = percentile_interval(resampled_means(rise, draws=_DRAWS)[:, 0], len(rise))
        return float(rise.mean()) > self.min_drop * base and lo > 0

    # words

    def loss(self, key: str) -> str:
        """A loss as '38 % (31 to 45 %)'."""
        status = self._known(key)
        lo, hi = status.change_interval
        return f"{_percent(-status.change)} % ({_percent(-hi)} to {_percent(-lo)} %)"

    def moved(self, key: str) -> str:
        """A change as '-38 % (-45 to -31 %)'."""
        status = self._known(key)
        lo, hi = status.change_interval
        return f"{_percent(status.change, '+')} % ({_percent(lo, '+')} to {_percent(hi, '+')} %)"

    def _known(self, key: str) -> CollapseStatus:
        status = self.change(key)
        assert status is not None
        return status

    def began(self, key: str) -> str:
        """Where a flagged fall began, and in which tasks if not in all."""
        status = self._known(key)
        if status.onset_step is None or status.onset_interval is None:
            return ""
        lo, hi = status.onset_interval
        text = f", beginning after step {status.onset_step}" + (f" ({lo} to {hi})" if lo != hi else "")
        flagged = [task for (task, k), s in self.statuses.items() if k == key and task != _ALL and s.collapsed]
        tasks = len(set(self.history.tasks))
        where = f", flagged in {len(flagged)} of {tasks} tasks ({', '.join(flagged)})"
        return text + (where if 0 < len(flagged) < tasks else "")

    def levels(self, key: str) -> str:
        """'0.65 to 0.67', at the baseline and at the last look."""
        before, after = _level(self.history, key, self.baseline), _level(self.history, key, -1)
        return "" if before is None or after is None else f"{before:.2f} to {after:.2f}"

    def accuracy(self) -> str:
        levels = self.levels("quality/accuracy")
        return f"; accuracy went from {levels}" if levels else ""

    def now(self, key: str) -> str:
        """Said where a flagged fall is no longer there."""
        status = self._known(key)
        if not status.collapsed or status.change_interval[1] < 0:
            return ""
        return f" Flagged at step {status.alarm_step}, it is no longer seen at the last look."

    def no_change(self) -> str:
        if sum(self.history.comparable) < 2:
            return "One comparable look so far: nothing to compare it with."
        if self.change(self.everything) is None:
            return "Diversity could not be compared: no prompts have a value both at the baseline and later."
        text = f"diversity changed by {self.moved(self.everything)}"
        if self.change(self.correct) is not None:
            text += f", among correct answers by {self.moved(self.correct)}"
        if any(s.change_interval[1] < -self.min_drop for s in map(self.change, (self.correct, self.everything)) if s):
            return f"At the last look alone {text}: a second look has to say the same before it is called a collapse."
        return f"No collapse seen: {text}."

    def caveat(self) -> str:
        if self.baseline == 0:
            return ""
        step = self.history.steps[self.baseline]
        return f" Looks before step {step} are not comparable: too few outputs were finished and readable."


def _percent(share: float, sign: str = "") -> str:
    text = f"{100 * share:{sign}.0f}"
    return "0" if text in ("-0", "+0") else text


Rule = tuple[str, str] | None
Split = Callable[[], "Decomposition | None"]


def _false_recovery(case: _Case, split: Split) -> Rule:
    """Wrong outputs carry the diversity: it holds or comes back over all outputs, stays down among correct ones, and
    accuracy falls."""
    correct, everything = case.change(case.correct), case.change(case.everything)
    if correct is None or everything is None or not case.lost("quality/accuracy"):
        return None
    if not case.flagged(case.correct) or correct.change_interval[1] >= 0:
        return None
    gap, lo, hi = case.losses_differ(case.everything, case.correct)
    holds = everything.change > -case.min_drop or case.risen_from_lowest(case.everything)
    if not (lo > 0 and holds):
        return None
    case.evidence["everything_minus_correct"] = {"change": gap, "lo": lo, "hi": hi}
    return (
        "false recovery",
        f"No recovery: diversity over all outputs is at {case.moved(case.everything)} only because of wrong answers; "
        f"among correct ones it is at {case.moved(case.correct)}{case.accuracy()}.",
    )


def _degeneration(case: _Case, split: Split) -> Rule:
    """Capability went, and diversity no further than capability."""
    key = case.worst_capability()
    if key is None:
        return None
    for diversity in (case.correct, case.everything):
        if case.flagged(diversity) and case.losses_differ(key, diversity)[1] > 0:
            return None  # more diversity than capability was lost: a collapse, whatever else
    return (
        "degeneration",
        f"The model lost capability, which is not collapse: {_CAPABILITIES[key]} went from {case.levels(key)}; "
        f"diversity changed by {case.moved(case.everything)}.",
    )


def _template(case: _Case, split: Split) -> Rule:
    """Outputs of different prompts grow alike, more than the outputs of one prompt do."""
    across = f"across/{case.primary}"
    if not case.lost(across):
        return None
    if case.flagged(case.everything) and not case.losses_differ(case.everything, across)[1] > 0:
        return None
    return (
        "template collapse",
        "Answers depend less on the prompt: the distance between answers to different prompts fell by "
        f"{case.loss(across)}, while diversity within a prompt changed by {case.moved(case.everything)}.",
    )


def _narrowing(case: _Case, split: Split) -> Rule:
    status = case.change(case.correct)
    if status is None or not status.collapsed:
        return None
    text = f"Correct answers narrowed: their diversity fell by {case.loss(case.correct)}{case.began(case.correct)}"
    if case.change(case.everything) is not None:
        text += f"; over all outputs it changed by {case.moved(case.everything)}"
    return "narrowing among correct answers", text + case.accuracy() + "." + case.now(case.correct)


def _aggregate(case: _Case, split: Split) -> Rule:
    status = case.change(case.everything)
    if status is None or not status.collapsed:
        return None
    fell = f"Diversity fell by {case.loss(case.everything)}{case.began(case.everything)}"
    correct = case.change(case.correct)
    if correct is None:
        return "aggregate collapse", fell + "; correct answers were not measured apart." + case.now(case.everything)
    if _fewer_errors(case, correct, split()):
        return (
            "quality control only",
            f"{fell}, because fewer answers are wrong{case.accuracy()}; correct answers are as spread as before, "
            f"at {case.moved(case.correct)}.",
        )
    text = f"{fell}; among correct answers the change is {case.moved(case.correct)}{case.accuracy()}."
    return "aggregate collapse", text + case.now(case.everything)


def _fewer_errors(case: _Case, correct: CollapseStatus, split: Decomposition | None) -> bool:
    """Quality control is a loss beyond doubt and most of the whole, and the correct answers show none of their own."""
    if split is None:
        return False
    lo, hi = split.intervals["quality_control"]
    case.evidence["quality_control"] = {"change": split.quality_control, "lo": lo, "hi": hi, "total": split.total}
    own = correct.change_interval[1] < 0 or case.lost("quality/accuracy")
    return hi < 0 and split.quality_control <= split.total / 2 and not own


def _in_tasks(case: _Case, split: Split) -> Rule:
    """Nothing over the whole panel, but in a task."""
    for key, kind, what in (
        (case.correct, "narrowing among correct answers", "correct answers narrowed"),
        (case.everything, "aggregate collapse", "diversity fell"),
    ):
        flagged = {task: s.as_of_last_value() for (task, k), s in case.statuses.items() if k == key and s.collapsed}
        found = [(task, status) for task, status in flagged.items() if status is not None]
        if found:
            said = []
            for task, status in found:
                lo, hi = status.change_interval
                by = f"{_percent(-status.change)} % ({_percent(-hi)} to {_percent(-lo)} %)"
                said.append(f"{task} by {by}, beginning after step {status.onset_step}")
                case.evidence[f"{task}:{key}"] = {"change": status.change, "lo": lo, "hi": hi, "n": status.n}
            return kind, f"In {len(found)} of {len(set(case.history.tasks))} tasks {what}: {'; '.join(said)}."
    return None


def _lexical(case: _Case, split: Split) -> Rule:
    if case.primary == "ead" or not case.lost("diversity/ead"):
        return None
    return (
        "lexical without semantic",
        f"Wording narrowed and meaning did not: lexical diversity fell by {case.loss('diversity/ead')}, "
        f"semantic diversity changed by {case.moved(case.everything)}.",
    )


def _format(case: _Case, split: Split) -> Rule:
    if case.baseline == 0:
        return None
    before, after = _level(case.history, "quality/usable", 0), _level(case.history, "quality/usable", -1)
    share = "" if before is None or after is None else f" (usable outputs {before:.2f} to {after:.2f})"
    return "format acquisition", f"The model learnt the answer format{share}, which is not collapse. {case.no_change()}"


def _level(history: History, key: str, look: int) -> float | None:
    if key not in history.values:
        return None
    mean = float(_task_means(_as_capability(history, key)[look][:, None], history.tasks)[0])
    return None if np.isnan(mean) else mean


def _as_capability(history: History, key: str) -> Floats:
    """Values of `key`, repetition turned round so that 1 is best."""
    return 1 - history.values[key] if key == "quality/repetition" else history.values[key]


def _task_means(table: Floats, tasks: list[str]) -> Floats:
    """Equal-weight mean over tasks of each column's task means, NaN left out."""
    there = np.isfinite(table)
    labels = np.unique(tasks, return_inverse=True)[1]
    member = np.eye(labels.max() + 1)[:, labels]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (member @ np.where(there, table, 0.0)) / (member @ there)
    counted = np.isfinite(means)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(counted, means, 0.0).sum(axis=0) / counted.sum(axis=0)
