"""Has diversity collapsed, since when, and by how much: said look by look, with the error of a whole run bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from divwatch.analysis.alarm import MIN_PROMPTS, lasting_fall
from divwatch.analysis.contrast import paired_change
from divwatch.analysis.intervals import FEWEST
from divwatch.analysis.series_fit import PRIOR_WOBBLE, SeriesFit, fit_series
from divwatch.errors import DivwatchError

Floats = NDArray[np.float64]
CONFIRM_ALPHA = 0.05  # of a 95 % interval, over the run


@dataclass(frozen=True)
class CollapseStatus:
    """What is known after a look. Intervals and onset are computed when first read.

    collapsed:       a fall was flagged at this look or before.
    alarm_step:      the step of the look that flagged it, or None.
    change:          (mean now - mean at the baseline) / mean at the baseline over the prompts both have; NaN: none.
    n:               how many prompts both have.
    estimate:        of the true change, from all looks so far: an alarm's single look tends to lie too low.
    change_interval: 95 %, of the true change: from all looks so far, with the wobble of checkpoints. NaN for
                     fewer than 5 prompts.
    beyond:          collapsed, and the last two changes are still beyond `min_drop`.
    confirmed:       beyond, and the interval excludes `min_drop` in this look and in the one before, so clearly that a
                     true drop of `min_drop` is ever confirmed in at most 5 % of runs.
    onset_step:      the last step still at the baseline level; None before the alarm, never after.
    onset_interval:  its 90 % interval, in steps; None before the alarm.
    """

    collapsed: bool
    alarm_step: int | None
    change: float
    n: int
    _series: _Series = field(repr=False, compare=False)

    @cached_property
    def change_interval(self) -> tuple[float, float]:
        if np.isnan(self.change):
            return (float("nan"), float("nan"))
        return self._series.change_interval(self.alarm_step)

    @cached_property
    def estimate(self) -> float:
        return float("nan") if np.isnan(self.change) else self._series.estimate(self.alarm_step)

    @property
    def beyond(self) -> bool:
        return self.collapsed and not np.isnan(self.change) and self._series.below_min_drop()

    @cached_property
    def confirmed(self) -> bool:
        if not self.beyond or self.change_interval[1] >= -self._series.min_drop:
            return False
        before = self._series.before_last()
        return before.change_interval()[1] < -self._series.min_drop and self._series.falls(
            self._series.min_drop, CONFIRM_ALPHA
        )

    @cached_property
    def _onset(self) -> tuple[int, tuple[int, int]] | None:
        return None if self.alarm_step is None else self._series.onset(self.alarm_step)

    @property
    def onset_step(self) -> int | None:
        return self._onset[0] if self._onset else None

    @property
    def onset_interval(self) -> tuple[int, int] | None:
        return self._onset[1] if self._onset else None

    def as_of_last_value(self) -> CollapseStatus | None:
        """The same, with the change of the last look that had one; None if no look had."""
        if not np.isnan(self.change):
            return self
        if len(self._series.steps) < 2:
            return None
        return CollapseStatus(
            self.collapsed, self.alarm_step, float(self._series.changes[-1]), self._series.n, self._series
        )

    @property
    def as_of(self) -> int | None:
        """The step of the last look that has a change; None while there is only the baseline."""
        return self._series.steps[-1] if self._series.looks else None

    @property
    def wobble(self) -> float:
        """Estimated relative sd of what all prompts of a checkpoint share; near the prior's while there are few looks."""
        return self._series.fit.wobble if self._series.looks else PRIOR_WOBBLE

    def as_dict(self) -> dict[str, Any]:
        """All fields, for the record."""
        names = (
            "collapsed",
            "alarm_step",
            "onset_step",
            "onset_interval",
            "change",
            "estimate",
            "change_interval",
            "confirmed",
            "n",
        )
        return {name: getattr(self, name) for name in names}


class CollapseDetector:
    """Watches one value per prompt over the looks of a run and flags a lasting fall below the baseline.

    The first look is the baseline (several updates at its step pool into it). An alarm needs the last two changes
    beyond `min_drop`, and a fall that is beyond noise wherever in the run it may have begun and that lasts (`alarm.py`).
    Noise is that of the prompts and the wobble of checkpoints (`series_fit.py`). While diversity does not change, the
    chance of any alarm in `max_looks` looks is about `alpha` at most; docs/detection.md has the measured rates. A
    series with fewer than `min_prompts` prompts raises no alarm.

    max_looks: looks that the run will have, the baseline included; more may come, each judged by the number so far.
    alpha: in (0, 1). min_drop: relative loss in [0, 1). min_prompts: at least 2. Raises DivwatchError on wrong input.

    >>> from divwatch.analysis.simulate import simulate
    >>> run = simulate("step", seed=1)
    >>> detector = CollapseDetector(max_looks=len(run.steps))
    >>> statuses = [detector.update(step, values) for step, values in zip(run.steps, run.values)]
    >>> statuses[-1].collapsed, statuses[-1].onset_step == run.onset_step
    (True, True)
    """

    def __init__(
        self, max_looks: int, alpha: float = 0.05, min_drop: float = 0.05, min_prompts: int = MIN_PROMPTS
    ) -> None:
        if max_looks < 1:
            raise DivwatchError(f"max_looks is {max_looks}: give the number of looks of the whole run, at least 1")
        if not 0 < alpha < 1:
            raise DivwatchError(f"alpha is {alpha}: give a chance of a false alarm between 0 and 1 (0.05)")
        if not 0 <= min_drop < 1:
            raise DivwatchError(f"min_drop is {min_drop}: give a relative loss from 0 up to 1 (0.05)")
        self.max_looks, self.alpha, self.min_drop, self.min_prompts = max_looks, alpha, min_drop, min_prompts
        self._steps: list[int] = []
        self._baseline_updates: list[Floats] = []
        self._looks: list[_Look] = []
        self._fits: dict[int, SeriesFit] = {}
        self._alarm_step: int | None = None

    def update(self, step: int, values: ArrayLike) -> CollapseStatus:
        """Counts one look in and says what is known.

        values: [prompts], the same prompts in the same order, NaN if not computable. Steps rise; only the first, the
        baseline's, may come several times.
        """
        return self.replay([step], np.array(values, dtype=float)[None])

    def replay(self, steps: Sequence[int], values: ArrayLike) -> CollapseStatus:
        """Counts looks in as `update` does, values [looks, prompts], and says what is known after the last."""
        table = np.array(values, dtype=float)
        for step, row in zip(steps, table, strict=True):
            self._check(step, row)
            self._steps.append(step)
            if step == self._steps[0]:
                self._baseline_updates.append(row)
                self._baseline = _mean_of_updates(self._baseline_updates)
        later = [i for i, step in enumerate(steps) if step != self._steps[0]]
        if not later:
            n = int(np.isfinite(self._baseline).sum())
            return self._status(0.0 if n and np.nanmean(self._baseline) > 0 else float("nan"), n)
        changes, _, counts = paired_change(table[later], np.broadcast_to(self._baseline, table[later].shape))
        for i, change, n in zip(later, changes, counts, strict=True):
            if np.isfinite(change):
                self._looks.append(_Look(steps[i], table[i], float(change), int(n)))
                if self._alarm_step is None and n >= self.min_prompts and self._series().falls(0.0, self.alpha):
                    self._alarm_step = steps[i]
        return self._status(float(changes[-1]), int(counts[-1]))

    def _series(self) -> _Series:
        baseline = _Look(self._steps[0], self._baseline, 0.0, 0)
        return _Series(baseline, tuple(self._looks), self.min_drop, self.max_looks, self._fits)

    def _status(self, change: float, n: int) -> CollapseStatus:
        return CollapseStatus(self._alarm_step is not None, self._alarm_step, change, n, self._series())

    def _check(self, step: int, x: Floats) -> None:
        if x.ndim != 1 or x.size == 0:
            raise DivwatchError(f"values at step {step} has shape {x.shape}: give one number for each prompt")
        if np.isinf(x).any():
            raise DivwatchError(f"values at step {step} has an infinite number: use NaN for what is not computable")
        if self._steps:
            first, last, prompts = self._steps[0], self._steps[-1], self._baseline.size
            if x.size != prompts:
                raise DivwatchError(
                    f"values at step {step} has {x.size} prompts, the baseline {prompts}: give the same ones in order"
                )
            if step < last or step == last != first:
                raise DivwatchError(f"step {step} comes after step {last}: give each look once, in the order of steps")


def _mean_of_updates(updates: list[Floats]) -> Floats:
    seen = np.isfinite(updates)
    return np.where(seen.any(0), np.where(seen, updates, 0).sum(0) / np.maximum(seen.sum(0), 1), np.nan)


@dataclass(frozen=True)
class _Look:
    """One look: its values [N], and the change of the n prompts that it and the baseline have."""

    step: int
    values: Floats = field(repr=False)
    change: float
    n: int


@dataclass(frozen=True)
class _Series:
    """The looks up to a status that have a change, for what is computed when it is read.

    fits: by number of looks, shared by the series of a detector; `confirmed` asks for the fit of the look before.
    """

    baseline: _Look
    looks: tuple[_Look, ...]
    min_drop: float
    max_looks: int
    fits: dict[int, SeriesFit]

    @cached_property
    def steps(self) -> list[int]:
        return [self.baseline.step, *(look.step for look in self.looks)]

    @cached_property
    def changes(self) -> Floats:
        """[L] of every look against the baseline."""
        return np.array([0.0, *(look.change for look in self.looks)])

    @cached_property
    def values(self) -> Floats:
        """[L, N], the baseline first."""
        return np.array([self.baseline.values, *(look.values for look in self.looks)])

    @property
    def n(self) -> int:
        return self.looks[-1].n

    @cached_property
    def sampling_variance(self) -> float:
        """Relative variance of one look's mean that comes from its completions.

        From neighbouring looks, so that prompts that fall unequally do not enter; the median over looks.
        """
        change, variance, _ = paired_change(self.values[1:], self.values[:-1])
        own = variance / (1 + (1 + change) ** 2)
        own = own[np.isfinite(own)]
        return float(np.median(own)) if own.size else 0.0

    @cached_property
    def fit(self) -> SeriesFit:
        looks = len(self.looks)
        if looks not in self.fits:
            self.fits[looks] = fit = fit_series(self.steps, self.changes, self.sampling_variance)
            for old in sorted(self.fits)[:-2]:
                del self.fits[old]
            return fit
        return self.fits[looks]

    def below_min_drop(self) -> bool:
        return len(self.looks) >= 2 and bool(self.changes[-2:].max() < -self.min_drop)

    def falls(self, margin: float, alpha: float) -> bool:
        """The last two looks lie beyond `min_drop`, and a fall beyond `margin` lasts."""
        if not self.below_min_drop():
            return False
        return lasting_fall(self.values, lambda: self.fit, margin, self.min_drop, alpha, self.max_looks)

    def change_interval(self, alarm_step: int | None = None) -> tuple[float, float]:
        """95 % interval of the true change at the last look, from all looks. The measured change lies in it.

        NaN for fewer prompts than FEWEST: their variance is not known.
        """
        if not self.looks:
            return (0.0, 0.0)
        last, change = self.looks[-1], self.looks[-1].change
        if last.n < FEWEST:
            return float("nan"), float("nan")
        _, paired, _ = paired_change(last.values[None], self.baseline.values[None])
        unequal = max(float(paired[0]) - 2 * self.sampling_variance, 0.0)
        lo, hi = self.fit.change_interval(0.95, unequal, self._fell_by(alarm_step))
        widen = float(student.ppf(0.975, last.n - 1) / student.ppf(0.975, 1e6))
        middle = (lo + hi) / 2
        lo, hi = min(middle + widen * (lo - middle), change), max(middle + widen * (hi - middle), change)
        return (max(lo, -1.0) if np.nanmin(last.values) >= 0 else lo), hi  # no more than all can be lost

    def estimate(self, alarm_step: int | None) -> float:
        return self.fit.estimate(self._fell_by(alarm_step)) if self.looks else 0.0

    def _fell_by(self, alarm_step: int | None) -> int | None:
        """The look by which a flagged fall had begun."""
        return None if alarm_step is None else self.steps.index(alarm_step) - 2

    def before_last(self) -> _Series:
        return self._until(len(self.looks) - 1)

    def _until(self, looks: int) -> _Series:
        return _Series(self.baseline, self.looks[:looks], self.min_drop, self.max_looks, self.fits)

    def onset(self, alarm_step: int) -> tuple[int, tuple[int, int]]:
        """Knee and its 90 % interval, in steps; it lies before the two looks that raised the alarm."""
        at = self.steps.index(alarm_step)
        knee, lo, hi = self._until(self._looks_before_recovery(at)).fit.onset(latest=at - 2)
        return self.steps[knee], (self.steps[lo], self.steps[hi])

    def _looks_before_recovery(self, at: int) -> int:
        """Looks before half of the fall is regained in two neighbouring ones: later ones do not show the onset."""
        half = (self.changes[at] + self.changes[at - 1]) / 4
        for i in range(at + 1, len(self.steps) - 1):
            if self.changes[i : i + 2].min() > half:
                return i - 1
        return len(self.looks)
