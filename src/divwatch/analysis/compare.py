"""Differences between arms (groups of training runs), paired by prompt, with simultaneous intervals, and their ranking.

What varies: prompts (each arm answers the same ones), and training runs (a seed moves all prompts of a run together). An
estimate is a mean over prompts of differences that were first averaged over the seeds. Its variance is that of the prompts
plus that of the runs (`run_noise.py`): with several seeds from the arms x seeds table of run means, seeds being blocks;
with one seed from the wobble of the run's looks. The noise of sampling completions is in the run means already, so what
shows of it from seed to seed is taken off the prompts' variance: it counts once.

Several differences at once: single-step max-t (Westfall and Young 1993, Resampling-Based Multiple Testing). The errors of
means over prompts are drawn by the Gaussian multiplier bootstrap, which keeps what differences have in common and is made
for maxima (Chernozhukov, Chetverikov and Kato 2013, Annals of Statistics 41); run effects are normal, the error of each
variance is that of chi-squared. The 95 % quantile of the largest |t| of a family gives intervals that hold for all of it
together, and p-values adjusted for it. Two arms with run effects alone: Student's paired t over the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from divwatch.analysis.run_noise import Wobble, noise_of_looks, noise_of_seeds

Floats = NDArray[np.float64]

ALL = "all"
DRAWS = 4000
Wobbles = Mapping[tuple[str, str], Sequence[Wobble]]
FEWEST = 5  # prompts of a task from which on an interval is given


@dataclass(frozen=True)
class Effect:
    """How one arm stands to another: mean(plus) - mean(minus), over prompts that both have.

    Of a pair: effect of `name` - effect of `other` (else None). lo, hi, p: simultaneous interval and adjusted p-value within
    the family; NaN if a task has fewer than FEWEST prompts. se: standard error. n: prompts. level: the reference arm's
    mean, to say the effect in per cent.
    """

    measure: str
    task: str
    name: str
    other: str | None
    value: float
    lo: float
    hi: float
    p: float
    se: float
    n: int
    level: float


@dataclass(frozen=True)
class Item:
    """Something that has an effect: `name`, the arms whose difference it is (indices: plus - minus)."""

    name: str
    plus: int
    minus: int


@dataclass(frozen=True)
class Comparison:
    """effects: every item on every measure over the whole panel. by_task: the same task by task, a family of its own.
    pairs: effect(name) - effect(other), in the family of `effects`. ranks: measure -> name -> (lo, hi), 1 the lowest effect.
    run_df: degrees of freedom of the variance between runs; 0: one run an arm, and intervals know of prompts alone.
    """

    effects: list[Effect]
    by_task: list[Effect]
    pairs: list[Effect]
    ranks: dict[str, dict[str, tuple[int, int]]]
    run_df: int
    level: float = 0.95


def compare_arms(
    values: dict[str, Floats],
    tasks: Sequence[str],
    items: Sequence[Item],
    reference: int = 0,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
    wobbles: Wobbles | None = None,
) -> Comparison:
    """Effects of `items` on every measure, with intervals, and the ranks that they leave open.

    values: measure -> [arms, seeds, prompts], NaN if missing; seeds are paired across arms. tasks: one name a prompt; in
    the whole panel they weigh equally. reference: the arm whose mean effects are held against in per cent. wobbles:
    (measure, task or "all") -> the wobble of each arm's run, for arms with one seed; without it their intervals cover
    prompts alone.

    >>> runs = np.array([[[0.5] * 8] * 2, [[0.3, 0.5] * 4] * 2])
    >>> compare_arms({"d": runs}, ["t"] * 8, [Item("b", 1, 0)], draws=200).effects[0].value
    -0.1
    """
    pairs = [(a, b) for i, a in enumerate(items) for b in items[i + 1 :]]
    single = [[(i.plus, 1.0), (i.minus, -1.0)] for i in items]
    double = [[(a.plus, 1.0), (a.minus, -1.0), (b.plus, -1.0), (b.minus, 1.0)] for a, b in pairs]
    names: list[tuple[str, str | None]] = [(i.name, None) for i in items] + [(a.name, b.name) for a, b in pairs]
    frame = _Frame(values, tasks, reference, level, draws, seed, wobbles or {})
    whole = frame.family(single + double, names, whole=True)
    effects, double_effects = ([e for e in whole if (e.other is None) == alone] for alone in (True, False))
    by_task = frame.family(single, names[: len(items)], whole=False) if len(frame.names) > 1 else []
    ranks = {m: _ranks([i.name for i in items], [e for e in double_effects if e.measure == m]) for m in values}
    return Comparison(effects, by_task, double_effects, ranks, frame.run_df, level)


def _ranks(names: list[str], pairs: list[Effect]) -> dict[str, tuple[int, int]]:
    """Simultaneous intervals of ranks (1: the lowest effect) out of simultaneous intervals of all differences.

    Source: Mohamad, Goeman and van Zwet (2022, Statistics in Medicine 41), section 2.
    """
    below = dict.fromkeys(names, 0)  # how many are surely lower
    above = dict.fromkeys(names, 0)
    for pair in pairs:
        assert pair.other is not None
        low, high = (pair.name, pair.other) if pair.hi < 0 else (pair.other, pair.name)
        if pair.hi < 0 or pair.lo > 0:
            below[high] += 1
            above[low] += 1
    return {name: (1 + below[name], len(names) - above[name]) for name in names}


Contrast = list[tuple[int, float]]  # (arm, coefficient)


class _Frame:
    """The data, and the draws that every column of it shares."""

    def __init__(
        self,
        values: dict[str, Floats],
        tasks: Sequence[str],
        reference: int,
        level: float,
        draws: int,
        seed: int,
        wobbles: Wobbles,
    ) -> None:
        self.values, self.wobbles = values, wobbles
        self.names = list(dict.fromkeys(tasks))
        self.rows = {name: np.flatnonzero(np.array(tasks) == name) for name in self.names}
        self.reference, self.level, self.draws = reference, level, draws
        self.arms, self.seeds = next(iter(values.values())).shape[:2]
        self.run_df = (self.arms - 1) * (self.seeds - 1)
        rng = np.random.default_rng(seed)
        self.weights = {name: rng.standard_normal((draws, len(rows))) for name, rows in self.rows.items()}
        self.rng = rng

    def family(self, contrasts: list[Contrast], names: list[tuple[str, str | None]], whole: bool) -> list[Effect]:
        """All contrasts on all measures, over the whole panel or task by task: one family."""
        columns = [
            (measure, task, self._columns(measure, task, contrasts, parts))
            for measure in self.values
            for task, parts in ([(ALL, self.names)] if whole else [(n, [n]) for n in self.names])
        ]
        largest = np.max([column.largest for _, _, column in columns], axis=0)
        reach = float(np.quantile(largest, self.level))
        effects = []
        for measure, task, column in columns:
            for i, (name, other) in enumerate(names):
                value, se = float(column.value[i]), float(column.se[i])
                sure = bool(np.isfinite(se))
                p = float((1 + np.sum(largest >= _ratio(abs(value), se))) / (1 + self.draws)) if sure else float("nan")
                effects.append(
                    Effect(measure, task, name, other, value, value - reach * se, value + reach * se, p, se,
                           int(column.n[i]), column.level)
                )  # fmt: skip
        return [e for e in effects if np.isfinite(e.value)]

    def _columns(self, measure: str, task: str, contrasts: list[Contrast], parts: list[str]) -> _Columns:
        """Estimates of one measure over some tasks, and the largest |t| of every draw."""
        table = self.values[measure]
        moments = [self._moments(table[:, :, self.rows[name]], contrasts, self.weights[name]) for name in parts]
        there = np.array([m.n > 0 for m in moments])  # [parts, contrasts]
        enough = np.array([m.n >= FEWEST for m in moments])
        counted = np.maximum(there.sum(axis=0), 1)

        def mean_of(what: str) -> Floats:
            return sum(np.where(t, getattr(m, what), 0.0) for m, t in zip(moments, there, strict=True)) / counted

        def variance_of(what: str) -> Floats:
            return sum(np.where(t, getattr(m, what), 0.0) for m, t in zip(moments, there, strict=True)) / counted**2

        value = np.where(there.any(axis=0), mean_of("value"), np.nan)
        run, drawn_run, drawn_square = self._runs(measure, task, contrasts, parts)
        usable = there.any(axis=0) & ~(there & ~enough).any(axis=0)
        prompts = variance_of("variance")
        se = np.where(usable, np.sqrt(prompts + run), np.nan)
        # Each part as Student would have it, in units of what was estimated. Their sum is Behrens and Fisher's.
        errors = _ratio(mean_of("drawn"), np.sqrt(variance_of("drawn_variance"))) * np.sqrt(prompts)
        errors = errors + _ratio(drawn_run, np.sqrt(drawn_square)) * np.sqrt(run)
        largest = _ratio(np.abs(errors), se)[:, usable].max(axis=1, initial=0.0)
        n = np.sum([m.n for m in moments], axis=0)
        means = [_mean(table[self.reference][:, self.rows[name]]) for name in parts]
        level = float(np.mean([m for m in means if np.isfinite(m)])) if np.isfinite(means).any() else float("nan")
        return _Columns(value, se, n, largest, level)

    def _moments(self, table: Floats, contrasts: list[Contrast], weights: Floats) -> _Moments:
        """Mean and variance of the mean over the prompts of a task, as observed and in every draw.

        The variance is what prompts differ by, beyond the noise that shows from seed to seed: that is in the runs' part.
        """
        difference = np.stack([_prompt_differences(table, c) for c in contrasts], axis=1)  # [prompts, contrasts]
        noise = np.array([_seed_noise(table, c) for c in contrasts]) if self.run_df >= 1 else np.zeros(len(contrasts))
        there = np.isfinite(difference)
        filled = np.where(there, difference, 0.0)
        n = there.sum(axis=0)
        freedom = np.maximum(n - 1, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.where(n > 0, filled.sum(axis=0) / n, 0.0)
            deviation = np.where(there, filled - value, 0.0)
            spread = np.where(n > 1, (deviation**2).sum(axis=0) / freedom, 0.0)
            own = np.maximum(spread - noise, 0.0)  # of prompts alone
            shrunk = np.sqrt(np.divide(own, spread, out=np.zeros_like(own), where=spread > 0))
            deviates = weights @ (deviation * shrunk) / np.sqrt(np.maximum(n, 1) * freedom)
        variance = own / np.maximum(n, 1)
        drawn_variance = variance * self.rng.chisquare(freedom, (self.draws, len(contrasts))) / freedom
        return _Moments(n, value, variance, deviates, drawn_variance)

    def _runs(
        self, measure: str, task: str, contrasts: list[Contrast], parts: list[str]
    ) -> tuple[Floats, Floats, Floats]:
        """(variance, [draws] errors, [draws] estimated variances) of each contrast from run to run."""
        if self.run_df >= 1:
            means = _run_means(self.values[measure], [self.rows[name] for name in parts])
            noise = noise_of_seeds(means, self.draws, self.rng)
        elif wobbles := self.wobbles.get((measure, task)):
            noise = noise_of_looks(wobbles, self.draws, self.rng)
        else:
            return np.zeros(len(contrasts)), np.zeros((1, len(contrasts))), np.zeros((1, len(contrasts)))
        matrix = np.zeros((self.arms, len(contrasts)))
        for i, contrast in enumerate(contrasts):
            for arm, coefficient in _net(contrast).items():
                matrix[arm, i] = coefficient
        return noise.variance @ matrix**2, noise.errors @ matrix, noise.drawn @ matrix**2


@dataclass(frozen=True)
class _Moments:
    """n, value, variance: [contrasts]. drawn (errors of the mean), drawn_variance: [draws, contrasts]."""

    n: NDArray[np.int64]
    value: Floats
    variance: Floats
    drawn: Floats
    drawn_variance: Floats


@dataclass(frozen=True)
class _Columns:
    """value, se, n: [contrasts]. largest: [draws] largest |t| of those with an interval. level: mean of the reference arm."""

    value: Floats
    se: Floats
    n: NDArray[np.int64]
    largest: Floats
    level: float


def _net(contrast: Contrast) -> dict[int, float]:
    """Coefficients by arm; what stands on both sides is gone."""
    net: dict[int, float] = {}
    for arm, coefficient in contrast:
        net[arm] = net.get(arm, 0.0) + coefficient
    return {arm: coefficient for arm, coefficient in net.items() if coefficient}


def _prompt_differences(table: Floats, contrast: Contrast) -> Floats:
    """[prompts]: the contrast in every seed, averaged over the seeds in which all its arms have a value."""
    by_seed = _differences(table, contrast)
    there = np.isfinite(by_seed)
    with np.errstate(invalid="ignore"):
        return np.where(there, by_seed, 0.0).sum(axis=0) / there.sum(axis=0)


def _seed_noise(table: Floats, contrast: Contrast) -> float:
    """Variance of a prompt's mean difference over the seeds that comes from drawing its completions anew: the residual of
    [seeds, prompts] about seed + prompt. 0 where no two prompts have a value in every seed."""
    by_seed = _differences(table, contrast)
    whole = by_seed[:, np.isfinite(by_seed).all(axis=0)]
    seeds, prompts = whole.shape
    if prompts < 2:
        return 0.0
    residual = whole - whole.mean(axis=0) - whole.mean(axis=1, keepdims=True) + whole.mean()
    return float((residual**2).sum() / (prompts - 1) / (seeds - 1) / seeds)


def _differences(table: Floats, contrast: Contrast) -> Floats:
    """[seeds, prompts]: the contrast, NaN where one of its arms has no value."""
    terms = [coefficient * table[arm] for arm, coefficient in _net(contrast).items()]
    return sum(terms) if terms else np.zeros(table.shape[1:])


def _run_means(table: Floats, parts: list[NDArray[np.intp]]) -> Floats:
    """[arms, seeds] means of runs, tasks weighing equally; NaN for an arm without a task that all its seeds have.

    An arm's means are over the prompts that all its seeds have: prompts that come and go would look like wobble.
    """
    means = np.array([[_means_over_prompts(arm[:, rows]) for rows in parts] for arm in table])  # [arms, parts, seeds]
    there = np.isfinite(means).all(axis=2)
    nothing = np.full(table.shape[1], np.nan)
    return np.array([m[t].mean(axis=0) if t.any() else nothing for m, t in zip(means, there, strict=True)])


def _means_over_prompts(runs: Floats) -> Floats:
    """[seeds] means of [seeds, prompts] over the prompts that every seed has; NaN without one."""
    whole = runs[:, np.isfinite(runs).all(axis=0)]
    return whole.mean(axis=1) if whole.shape[1] else np.full(len(runs), np.nan)


def _ratio(top: Floats | float, bottom: Floats | float) -> Floats:
    """top / bottom; nothing over nothing is no deviation."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(top) <= 1e-12, 0.0, np.divide(top, bottom))


def _mean(values: Floats) -> float:
    there = np.isfinite(values)
    return float(values[there].mean()) if there.any() else float("nan")
