"""Has diversity collapsed, since when, and by how much: said look by look, with the error of a whole run bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from divwatch.analysis.boundary import critical_value
from divwatch.analysis.intervals import percentile_interval
from divwatch.analysis.noise import LookNoise, look_noise
from divwatch.analysis.onset import onset_index
from divwatch.errors import DivwatchError

Floats = NDArray[np.float64]
RESAMPLES = 1000
ONSET_RESAMPLES = 200
CONFIRM_ALPHA = 0.05  # of a 95 % interval, over the run


@dataclass(frozen=True)
class CollapseStatus:
    """What is known after a look. Intervals and onset are computed when first read.

    collapsed:       a fall was flagged at this look or before.
    alarm_step:      the step of the look that flagged it, or None.
    change:          (mean now - mean at the baseline) / mean at the baseline over the prompts both have; NaN: none.
    n:               how many prompts both have.
    change_interval: 95 %: prompts resampled in pairs, and the wobble of both checkpoints.
    confirmed:       collapsed, and the interval excludes `min_drop`, in this look and in the one before, so clearly
                     that a true drop of `min_drop` is ever confirmed in at most 5 % of runs.
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
        return self._series.change_interval(-1) if self._series.looks else (0.0, 0.0)

    @property
    def confirmed(self) -> bool:
        return self.collapsed and self.beyond and self._series.past_min_drop()

    @cached_property
    def beyond(self) -> bool:
        """The interval excluded `min_drop` in this look and in the one before, alarm or not."""
        if np.isnan(self.change) or len(self._series.looks) < 2:
            return False
        drop = self._series.min_drop
        return self.change_interval[1] < -drop and self._series.change_interval(-2)[1] < -drop

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
        if not np.isnan(self.change) or not self._series.looks:
            return None if np.isnan(self.change) else self
        look = self._series.looks[-1]
        return CollapseStatus(self.collapsed, self.alarm_step, look.change, look.n, self._series)

    @property
    def wobble(self) -> float:
        """Estimated relative sd of what all prompts of a checkpoint share; the prior's before the second look."""
        return self._series.noise.wobble

    def as_dict(self) -> dict[str, Any]:
        """All fields, for the record."""
        names = (
            "collapsed",
            "alarm_step",
            "onset_step",
            "onset_interval",
            "change",
            "change_interval",
            "confirmed",
            "n",
        )
        return {name: getattr(self, name) for name in names}


class CollapseDetector:
    """Watches one value per prompt over the looks of a run and flags a lasting fall below the baseline.

    The first look is the baseline (several updates at its step pool into it). An alarm needs, in two looks running, a
    change beyond `min_drop` and beyond `min_drop / 2 + c * se`. Here `se` holds the paired noise of the prompts and the
    wobble of both checkpoints (`noise.py`), and c the number of looks (`boundary.py`): while diversity stays within
    half of `min_drop` of the baseline, the chance of any alarm in `max_looks` looks is at most `alpha`.

    max_looks: looks that the run will have, the baseline included; more may come, each judged by the number so far.
    alpha: in (0, 1). min_drop: relative loss in [0, 1). seed: of the resampling. Raises DivwatchError on wrong input.

    >>> from divwatch.analysis.simulate import simulate
    >>> run = simulate("step", seed=1)
    >>> detector = CollapseDetector(max_looks=len(run.steps))
    >>> statuses = [detector.update(step, values) for step, values in zip(run.steps, run.values)]
    >>> statuses[-1].collapsed, statuses[-1].onset_step == run.onset_step
    (True, True)
    """

    def __init__(self, max_looks: int, alpha: float = 0.05, min_drop: float = 0.05, seed: int = 0) -> None:
        if max_looks < 1:
            raise DivwatchError(f"max_looks is {max_looks}: give the number of looks of the whole run, at least 1")
        if not 0 < alpha < 1:
            raise DivwatchError(f"alpha is {alpha}: give a chance of a false alarm between 0 and 1 (0.05)")
        if not 0 <= min_drop < 1:
            raise DivwatchError(f"min_drop is {min_drop}: give a relative loss from 0 up to 1 (0.05)")
        self.max_looks, self.alpha, self.min_drop, self.seed = max_looks, alpha, min_drop, seed
        self._steps: list[int] = []
        self._baseline_updates: list[Floats] = []
        self._looks: list[_Look] = []
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
                self._baseline = self._before = _mean_of_updates(self._baseline_updates)
        later = [i for i, step in enumerate(steps) if step != self._steps[0]]
        if not later:
            n = int(np.isfinite(self._baseline).sum())
            return self._status(0.0 if n and np.nanmean(self._baseline) > 0 else float("nan"), n)
        for look in _compare([steps[i] for i in later], table[later], self._baseline, self._before):
            if look.n:
                self._looks.append(look)
                if self._alarm_step is None and self._beyond_boundary():
                    self._alarm_step = look.step
        self._before = look.values
        return self._status(look.change, look.n)

    def _status(self, change: float, n: int) -> CollapseStatus:
        series = _Series(self._steps[0], self._baseline, tuple(self._looks), self.min_drop, self.max_looks, self.seed)
        return CollapseStatus(self._alarm_step is not None, self._alarm_step, change, n, series)

    def _beyond_boundary(self) -> bool:
        if len(self._looks) < 2 or max(look.change for look in self._looks[-2:]) >= -self.min_drop:
            return False
        # Less than half of min_drop counts as no change: a drift well below the effect size raises no alarm.
        return _past_boundary(self._looks, self.min_drop / 2, self.alpha, self.max_looks)

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


@dataclass(frozen=True)
class _Look:
    """One look against the baseline. Variances are of means over prompts: `paired` of the change, `own` of this look's
    mean relative to itself, from the difference to the look before, so unequal falls of prompts do not enter."""

    step: int
    values: Floats
    change: float
    n: int
    paired: float
    own: float


def _compare(steps: Sequence[int], values: Floats, baseline: Floats, before: Floats) -> list[_Look]:
    """values: [L, N], `before` the look before the first. n is 0 where fewer than two prompts are in both, or where the
    baseline's mean is not positive: nothing can be said then."""
    n, now, base, paired = _ratio_parts(values, baseline[None])
    usable = (n >= 2) & (base > 0)
    _, a, b, residual = _ratio_parts(values, np.vstack([before[None], values[:-1]]))
    with np.errstate(divide="ignore", invalid="ignore"):
        change, paired = now / base - 1, paired / base**2
        own = residual / (1 + (a / b) ** 2) / a**2
    own = np.where(np.isfinite(own) & (a > 0) & (b > 0), own, paired / 2)
    return [
        _Look(step, row, float(c), int(k), float(p), float(o)) if ok else _Look(step, row, float("nan"), 0, 0.0, 0.0)
        for step, row, c, k, p, o, ok in zip(steps, values, change, n, paired, own, usable, strict=True)
    ]


def _ratio_parts(x: Floats, y: Floats) -> tuple[NDArray[np.intp], Floats, Floats, Floats]:
    """By row, over the prompts that x and y both have: their number, both means, and the variance of mean(x - r y) with
    r the ratio of the means: the numerator of the variance of r (a ratio estimator's, by linearisation)."""
    both = np.isfinite(x) & np.isfinite(y)
    n = both.sum(axis=1)
    x, y = np.where(both, x, 0.0), np.where(both, y, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = x.sum(axis=1) / n, y.sum(axis=1) / n
        residuals = x - (mean_x / mean_y)[:, None] * y  # their mean is 0, and 0 stands where one is missing
        variance = (residuals**2).sum(axis=1) / (n - 1) / n
    return n, mean_x, mean_y, variance


def _mean_of_updates(updates: list[Floats]) -> Floats:
    seen = np.isfinite(updates)
    return np.where(seen.any(0), np.where(seen, updates, 0).sum(0) / np.maximum(seen.sum(0), 1), np.nan)


def _noise_of(looks: Sequence[_Look]) -> LookNoise:
    own = float(np.median([look.own for look in looks])) if looks else 0.0
    return look_noise(np.array([look.change for look in looks]), own)


def _past_boundary(looks: Sequence[_Look], margin: float, alpha: float, max_looks: int) -> bool:
    """The last two looks lie beyond `margin` by more than noise makes of it anywhere in the run, but for alpha."""
    noise = _noise_of(looks)
    c = critical_value(max(max_looks - 2, len(looks) - 1, 1), alpha, noise.df)
    return all(-look.change > margin + c * np.sqrt(look.paired + 2 * noise.wobble**2) for look in looks[-2:])


@lru_cache(maxsize=8)
def _resamples(prompts: int, seed: int) -> Floats:
    """[RESAMPLES, prompts]: how often each prompt is drawn in each bootstrap resample."""
    picks = np.random.default_rng(seed).integers(prompts, size=(RESAMPLES, prompts))
    rows = np.arange(RESAMPLES)[:, None] * prompts
    return np.bincount((rows + picks).ravel(), minlength=RESAMPLES * prompts).reshape(RESAMPLES, prompts).astype(float)


@lru_cache(maxsize=32)
def _student_draws(count: int, df: float, seed: int) -> Floats:
    """[count] quantiles of Student's t in random order: less Monte-Carlo noise than draws."""
    return np.random.default_rng(seed + 1).permutation(student.ppf((np.arange(count) + 0.5) / count, df))


@dataclass(frozen=True)
class _Series:
    """The looks up to a status, for what is computed when it is read."""

    baseline_step: int
    baseline: Floats = field(repr=False)
    looks: tuple[_Look, ...] = field(repr=False)
    min_drop: float
    max_looks: int
    seed: int

    def past_min_drop(self) -> bool:
        return _past_boundary(self.looks, self.min_drop, CONFIRM_ALPHA, self.max_looks)

    @cached_property
    def noise(self) -> LookNoise:
        return _noise_of(self.looks)

    def change_interval(self, index: int) -> tuple[float, float]:
        """95 % interval of the change at look `index`: percentiles of bootstrap changes times checkpoint wobble."""
        look = self.looks[index]
        draws = _student_draws(RESAMPLES, round(self.noise.df, 1), self.seed)
        changes = self._resampled(look.values, RESAMPLES)
        noisy = (1 + changes) * (1 + np.sqrt(2) * self.noise.wobble * draws) - 1
        lo, hi = percentile_interval(noisy, look.n)
        return (max(lo, -1.0) if np.nanmin(look.values) >= 0 else lo), hi  # no more than all can be lost

    def onset(self, alarm_step: int) -> tuple[int, tuple[int, int]]:
        """Knee and its 90 % interval, in steps: refitted on prompts resampled in pairs with fresh wobble."""
        at = next(i for i, look in enumerate(self.looks) if look.step == alarm_step)
        looks = self._until_recovery(at)
        steps = np.array([self.baseline_step, *(look.step for look in looks)])
        changes = np.array([0.0, *(look.change for look in looks)])
        latest = at - 1  # of the baseline and the looks: the one before the two that raised the alarm
        knee = int(onset_index(changes, steps, latest))
        resampled = self._resampled(np.array([look.values for look in looks]).T, ONSET_RESAMPLES)
        resampled = np.concatenate([np.zeros((ONSET_RESAMPLES, 1)), resampled], axis=1)
        rng = np.random.default_rng(self.seed + 2)
        resampled = (1 + resampled) * (1 + self.noise.wobble * rng.standard_normal(resampled.shape)) - 1
        lo, hi = np.quantile(onset_index(resampled, steps, latest), [0.05, 0.95], method="nearest")
        return int(steps[knee]), (int(steps[min(lo, knee)]), int(steps[max(hi, knee)]))

    def _until_recovery(self, at: int) -> tuple[_Look, ...]:
        """Looks up to where half of the fall is made good in two looks running: the rest says nothing of the onset."""
        half = (self.looks[at].change + self.looks[at - 1].change) / 4
        for i in range(at + 1, len(self.looks) - 1):
            if min(self.looks[i].change, self.looks[i + 1].change) > half:
                return self.looks[:i]
        return self.looks

    def _resampled(self, values: Floats, count: int) -> Floats:
        """Changes against the baseline on resampled prompts: [count] from values [N], [count, L] from values [N, L]."""
        weights = _resamples(len(self.baseline), self.seed)[:count]
        baseline = self.baseline if values.ndim == 1 else self.baseline[:, None]
        both = np.isfinite(values) & np.isfinite(baseline)
        now = weights @ np.where(both, values, 0.0)
        base = weights @ np.where(both, baseline, 0.0)
        return np.divide(now, base, out=np.ones_like(now), where=base > 0) - 1
