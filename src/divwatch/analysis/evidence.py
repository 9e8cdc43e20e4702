"""The evidence behind a verdict: changes of every measured quantity over a run, and their words.

Each number is computed when a rule of `verdict.py` first asks for it, and kept for the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divwatch.analysis.detector import CollapseDetector, CollapseStatus
from divwatch.analysis.history import ALL, LEARNT, RUN_ON, History, task_means
from divwatch.analysis.intervals import percentile_interval, resampled_means

Floats = NDArray[np.float64]

_DRAWS = 1000
# Shares of outputs where 1 is best; a loss in one of them is a loss of capability. Repetition counts as 1 - repetition.
CAPABILITIES = {
    "quality/accuracy": "accuracy",
    "quality/usable": "the share of usable outputs",
    "quality/finished": "the share of finished outputs",
    "quality/repetition": "the share of text without loops",
}


class OtherDetectors:
    """The detectors of what a verdict reads beside the watched series: capabilities, wording, distance across prompts.

    They share an `alpha` of their own equally, so that a verdict's kind is false in about `alpha` of quiet runs at most.
    """

    SERIES = len(CAPABILITIES) + 2

    def __init__(self, max_looks: int, alpha: float, min_drop: float) -> None:
        self._settings = (max_looks, alpha / self.SERIES, min_drop)
        self._detectors: dict[str, tuple[CollapseDetector, CollapseStatus, int]] = {}

    def status(self, key: str, steps: Sequence[int], table: Floats) -> CollapseStatus:
        """After the looks of a table [L, N] that grows from call to call."""
        known = self._detectors.get(key)
        detector, looks = (known[0], known[2]) if known else (CollapseDetector(*self._settings), 0)
        if known and looks == len(steps):
            return known[1]
        status = detector.replay(steps[looks:], table[looks:])
        self._detectors[key] = (detector, status, len(steps))
        return status


class Evidence:
    """The evidence of one run, computed when a rule first asks for it."""

    def __init__(
        self,
        history: History,
        statuses: Mapping[tuple[str, str], CollapseStatus],
        min_drop: float,
        primary: str,
        others: OtherDetectors,
    ) -> None:
        self.history, self.statuses, self.min_drop, self.primary = history, statuses, min_drop, primary
        self._others = others
        self.everything, self.correct = f"diversity/{primary}", f"correct_diversity/{primary}"
        assert history.baseline is not None
        self.baseline: int = history.baseline
        self.record: dict[str, Any] = {}
        self._changes: dict[str, CollapseStatus | None] = {}

    def change(self, key: str) -> CollapseStatus | None:
        """Change of `key` over the whole panel, None if it was not measured. Noted as evidence."""
        if key not in self._changes:
            status = self.statuses.get((ALL, key)) or self._measure(key)
            # Where accuracy is gone nothing can be said of correct answers now; what was said of them stands.
            self._changes[key] = status.as_of_last_value() if status else None
            self._note(key, self._changes[key])
        return self._changes[key]

    def _measure(self, key: str) -> CollapseStatus | None:
        history = self.history
        if key not in history.values:
            return None
        # Looks that are not comparable are themselves the evidence where capability is the question.
        rows = [i for i in range(self.baseline, len(history.steps)) if history.comparable[i] or key in CAPABILITIES]
        table = history.series_of(_as_capability(history, key))[rows]
        return self._others.status(key, [history.steps[i] for i in rows], table)

    def _note(self, key: str, status: CollapseStatus | None) -> None:
        if status is not None:
            lo, hi = status.change_interval
            self.record[key] = {
                "change": status.change,
                "estimate": status.estimate,
                "lo": lo,
                "hi": hi,
                "n": status.n,
                "beyond": status.beyond,
            }

    def lost(self, key: str) -> bool:
        """A lasting loss of `key` was flagged, and the last two changes are still beyond `min_drop`."""
        status = self.change(key)
        return status is not None and status.beyond

    def flagged(self, key: str) -> bool:
        """A lasting loss of `key` was flagged at some look."""
        status = self.change(key)
        return status is not None and status.collapsed

    def worst_capability(self) -> str | None:
        """The capability that lost most, of those whose loss is beyond `min_drop`."""
        keys = [key for key in CAPABILITIES if key != "quality/finished" or self._stopped_ending()]
        lost = [(status.change, key) for key in keys if self.lost(key) and (status := self.change(key))]
        return min(lost)[1] if lost else None

    def _stopped_ending(self) -> bool:
        """Whether hardly any output ends now. Answers without a verifier may well grow beyond the window that is sampled."""
        before, after = (level(self.history, "quality/finished", look) for look in (self.baseline, -1))
        return before is not None and after is not None and before >= LEARNT and after < RUN_ON

    def losses_differ(self, smaller: str, larger: str) -> tuple[float, float, float]:
        """(change of `smaller` - change of `larger`) over the panel, relative, with its paired 95 % interval: above 0
        where `larger` lost more. Over the prompts that have both values in both looks: on prompts of their own the two
        could differ because hard prompts lost more."""
        h, now = self.history, self.history.last
        assert now is not None
        columns = [_as_capability(h, key)[look] for key in (smaller, larger) for look in (self.baseline, now)]
        table = np.column_stack(columns)
        table[~np.isfinite(table).all(axis=1)] = np.nan
        draws = np.vstack([resampled_means(table, strata=h.tasks, draws=_DRAWS), task_means(table, h.tasks)])
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = draws[:, 1] / draws[:, 0] - draws[:, 3] / draws[:, 2]
        tasks = np.array(h.tasks)[np.isfinite(table[:, 0])]
        lo, hi = percentile_interval(gap[:-1], len(tasks), strata=len(set(tasks)))
        return float(gap[-1]), lo, hi

    def risen_from_lowest(self, key: str) -> bool:
        """`key` has come up from its lowest two looks running by more than `min_drop` of the baseline, beyond noise."""
        h = self.history
        comparable = [i for i in range(len(h.steps)) if h.comparable[i]]
        table = h.series(key)[comparable]
        if len(comparable) < 5:
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
        return loss_text(self._known(key), self.history)

    def moved(self, key: str) -> str:
        """A change as '-38 % (-45 to -31 %)'."""
        return change_text(self._known(key), self.history)

    def knows_diversity(self) -> bool:
        """Whether diversity over all outputs was measured at the baseline and later."""
        status = self.change(self.everything)
        return status is not None and status.as_of is not None

    def course(self, what: str = "diversity") -> str:
        """'diversity changed by -3 % (-5 to -1 %)', over all outputs, or that it could not be compared."""
        if not self.knows_diversity():
            return f"{what} could not be compared"
        return f"{what} changed by {self.moved(self.everything)}"

    def fall(self, key: str, what: str) -> str:
        """'diversity fell by 38 % (31 to 45 %), beginning after step 20' of a flagged fall; other words if it is back."""
        if self._known(key).change < 0:
            return f"{what} fell by {self.loss(key)}{self.began(key)}"
        return f"{what} had fallen{self.began(key)}, and is back at {self.moved(key)}"

    def confirmed(self, key: str) -> bool:
        return self._known(key).confirmed

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
        flagged = [task for (task, k), s in self.statuses.items() if k == key and task != ALL and s.collapsed]
        tasks = len(set(self.history.tasks))
        where = f", flagged in {len(flagged)} of {tasks} tasks ({', '.join(flagged)})"
        return text + (where if 0 < len(flagged) < tasks else "")

    def levels(self, key: str) -> str:
        """'0.65 to 0.67', at the baseline and at the last look."""
        before, after = level(self.history, key, self.baseline), level(self.history, key, -1)
        return "" if before is None or after is None else f"{before:.2f} to {after:.2f}"

    def accuracy(self) -> str:
        levels = self.levels("quality/accuracy")
        return f"; accuracy went from {levels}" if levels else ""

    def alarm(self, key: str) -> str:
        """A sentence about an alarm that is not confirmed, or whose fall is no longer there; empty for a confirmed one."""
        state = alarm_state(self._known(key), self.history)
        return f" The alarm was {state}." if state else ""

    def no_change(self) -> str:
        if sum(self.history.comparable) < 2:
            return "One comparable look so far: nothing to compare it with."
        if self.change(self.everything) is None:
            if level(self.history, self.everything, self.baseline) == 0:
                return "Diversity could not be compared: at the baseline all outputs to a prompt are the same."
            return "Diversity could not be compared: no prompts have a value both at the baseline and later."
        text = self.course()
        correct = self.change(self.correct)
        if correct is not None and np.isfinite(correct.change_interval).all():  # not on too few prompts
            text += f", among correct answers by {self.moved(self.correct)}"
        if any(s.change_interval[1] < -self.min_drop for s in map(self.change, (self.correct, self.everything)) if s):
            return f"No alarm yet: {text}; an alarm needs a second look that says the same."
        return f"No alarm: {text}."

    def caveat(self) -> str:
        if self.baseline == 0:
            return ""
        step = self.history.steps[self.baseline]
        return f" Looks before step {step} are not comparable: too few outputs were finished and readable."


def alarm_state(status: CollapseStatus, history: History) -> str:
    """'raised at the last look and is not confirmed', or what else holds of an alarm; empty if none, or confirmed."""
    if not status.collapsed or status.confirmed:
        return ""
    now = "the last look" if status.as_of == history.steps[-1] else f"step {status.as_of}"
    if status.alarm_step == status.as_of:
        return f"raised at {now} and is not confirmed"
    gone = status.change_interval[1] >= 0
    return f"raised at step {status.alarm_step} and is {'no longer seen' if gone else 'not confirmed'} at {now}"


def loss_text(status: CollapseStatus, history: History) -> str:
    """'38 % (31 to 45 %)', of a change below 0."""
    lo, hi = status.change_interval
    return f"{percent(-status.change)} %" + between(-hi, -lo) + _when(status, history)


def change_text(status: CollapseStatus, history: History) -> str:
    """'-38 % (-45 to -31 %)'."""
    lo, hi = status.change_interval
    return f"{percent(status.change, '+')} %" + between(lo, hi, "+") + _when(status, history)


def _when(status: CollapseStatus, history: History) -> str:
    """' at step 50' of a change that was not measured at the last look."""
    return "" if status.as_of in (None, history.steps[-1]) else f" at step {status.as_of}"


def between(lo: float, hi: float, sign: str = "") -> str:
    """An interval as ' (31 to 45 %)'; empty where too few prompts have none."""
    return "" if np.isnan(lo) or np.isnan(hi) else f" ({percent(lo, sign)} to {percent(hi, sign)} %)"


def percent(share: float, sign: str = "") -> str:
    text = f"{100 * share:{sign}.0f}"
    return "0" if text in ("-0", "+0") else text


def level(history: History, key: str, look: int) -> float | None:
    if key not in history.values:
        return None
    mean = float(task_means(_as_capability(history, key)[look][:, None], history.tasks)[0])
    return None if np.isnan(mean) else mean


def _as_capability(history: History, key: str) -> Floats:
    """Values of `key`, repetition turned round so that 1 is best."""
    return 1 - history.values[key] if key == "quality/repetition" else history.values[key]
