"""One model of a series of looks: its level, where it fell, and how much checkpoints wobble.

The changes y_0 = 0, y_1 ... y_L of a series are modelled as

    y_l = level + shape_l + w_l + e_l

with a flat prior on the level. A shape is a straight change between two looks, or the sum of two such, or none. w is
the wobble: a first-order autoregression that all prompts of a checkpoint share, of one size or of a size that shrinks
tenfold over the looks, as it may while the learning rate decays. e is the noise of sampling completions, whose variance
the prompts show. All are Gaussian, so that every integral is closed but those over the size and the
correlation of the wobble, which are sums over a grid, and over the shapes, which are counted out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp, ndtr, ndtri, stdtr

from divwatch.analysis.contrast import Contrast

Floats = NDArray[np.float64]

PRIOR_WOBBLE = 0.01  # what to assume of a checkpoint that stands alone
# Relative sd of the wobble, and its prior: log-normal about 0.7 %. Ten trainings of the embedded model
# showed 0.5 % [0.1, 1.3], a correlation of 0.86 [0.06, 0.95] between neighbouring looks; 7B models may be less steady.
WOBBLES = np.geomspace(0.0006, 0.08, 10)
PRIOR_MEDIAN, PRIOR_LOG_SD = 0.007, 0.9
CORRELATIONS = np.array([0.0, 0.3, 0.6, 0.8, 0.95, 0.0, 0.6])
COOLING = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 10.0])  # its size at the first look over that at the last
P_COOLING = 0.1  # prior of the last two
# Prior of a change: none, one of any size, one below what matters, or two.
P_NONE, P_ONE, P_SMALL, P_TWO = 0.06, 0.64, 0.12, 0.18
# The prior behind an alarm trusts wobble more and changes less: a wobble taken for changes would make the looks seem
# steadier than they are, and raise false alarms. Behind an interval it would pull large changes towards none.
ALARM_NONE, ALARM_ONE, ALARM_SMALL, ALARM_TWO = 0.3, 0.3, 0.3, 0.1
ALARM_COOLING = 0.3
# Its shares of changes hold from so many looks on: fewer hold hardly a shape that could take up a wobble, and a fall that
# is clear in two looks shall be flagged there.
ALARM_SHARES_FROM = 5
P_FIRST = 0.6  # that a change starts right after the baseline
SIZE, SMALL = 0.2, 0.01  # sd of a change's size
IMPOSSIBLE = 1e-16  # probability of a wobble's size and correlation that is left out
KNEES = 40  # at most so many looks are tried as the start of a change


@dataclass(frozen=True)
class _Basis:
    """What follows from the steps alone.

    shapes: [S, L] in [0, 1]. knee: [S] the last look before the change. log_prior: [S].
    matrix: [R, L, L] covariances of the wobble; eigenvalues: [R, L]. In the coordinates of its eigenvectors:
    vectors: [R, L, L], ones: [R, L], rotated: [R, L, S] the shapes.
    """

    shapes: Floats
    knee: NDArray[np.intp]
    log_prior: Floats
    matrix: Floats
    eigenvalues: Floats
    vectors: Floats
    ones: Floats
    rotated: Floats


@lru_cache(maxsize=24)  # 4 MB each with 200 looks
def _basis(steps: tuple[float, ...]) -> _Basis:
    s = np.array(steps)
    looks = s.size
    knees = np.unique(np.linspace(0, looks - 2, min(looks - 1, KNEES)).round().astype(int))
    pairs = [(k, e) for k in knees for e in _ends(int(k), looks)]
    knee, end = np.array(pairs, dtype=int).T
    shapes = np.clip((s - s[knee, None]) / (s[end] - s[knee])[:, None], 0, 1)
    per_knee = np.bincount(knee, minlength=looks)[knee]
    later = (1 - P_FIRST) / max(len(knees) - 1, 1)
    log_prior = np.log(np.where(knee == 0, P_FIRST, later) / per_knee)
    matrix, eigenvalues, vectors = _correlations(looks)
    rotated = np.ascontiguousarray((shapes @ vectors).transpose(0, 2, 1))
    return _Basis(shapes, knee, log_prior, matrix, eigenvalues, vectors, vectors.sum(axis=1), rotated)


def _ends(knee: int, looks: int) -> list[int]:
    """Last looks of a change that starts after `knee`: 1, 2, 3, 4, 6, 8, 12 ... looks on, and the last look."""
    widths = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
    return sorted({knee + w for w in widths if knee + w < looks} | {looks - 1})


@lru_cache(maxsize=64)
def _correlations(looks: int) -> tuple[Floats, Floats, Floats]:
    """Covariances [R, L, L] of a wobble of unit size at the first look, their eigenvalues and their eigenvectors."""
    lag = np.abs(np.subtract.outer(np.arange(looks), np.arange(looks)))
    matrix = CORRELATIONS[:, None, None] ** lag  # 0 ** 0 is 1
    scale = COOLING[:, None] ** -np.linspace(0, 1, looks)
    matrix = scale[:, :, None] * matrix * scale[:, None, :]
    values, vectors = np.linalg.eigh(matrix)
    return matrix, values, vectors


@dataclass(frozen=True)
class SeriesFit:
    """The posterior, over the C sizes and correlations of the wobble that are possible, and H hypotheses.

    weight, mean, variance: [C, H] probability, and the change at the last look with its variance. size: [C, H] of the
    first change. alarm_weight: [C] probability by the prior behind an alarm. wobble_sd: [C] size of the wobble at the
    first look, correlation: [C] its index in CORRELATIONS. knee: [H] the look before the (first) change, -1 where there
    is none. large: [H] whether its prior is that of a change that matters. looks: L.
    """

    weight: Floats
    mean: Floats
    variance: Floats
    size: Floats
    alarm_weight: Floats
    wobble_sd: Floats
    correlation: NDArray[np.intp]
    knee: NDArray[np.intp]
    large: NDArray[np.bool_]
    looks: int

    @cached_property
    def wobble_weight(self) -> Floats:
        """[C] posterior of the wobble's size and correlation."""
        return self.weight.sum(axis=1)

    @property
    def wobble(self) -> float:
        """Posterior root mean square of the wobble over the looks, relative."""
        variances = np.trace(_correlations(self.looks)[0], axis1=1, axis2=2) / self.looks
        return float(np.sqrt(self.wobble_weight @ (self.wobble_sd**2 * variances[self.correlation])))

    def z(self, of: Contrast, margin: float = 0.0) -> Floats:
        """[K] how far each of K changes lies below -margin, as a normal deviate of the posterior predictive.

        The wobble's size and correlation are averaged over their posterior by the prior behind an alarm, so a run that
        has shown little yet is judged with heavy tails. The prompts' variance has n - 1 degrees of freedom. -inf where
        there is no change.
        """
        usable = np.isfinite(of.change)
        change, own = np.where(usable, of.change + margin, 0.0), np.where(usable, of.variance_without(margin), 1.0)
        used, cell = np.unique(self.correlation, return_inverse=True)
        shares = np.stack([of.wobble_variance(matrix) for matrix in _correlations(self.looks)[0][used]])
        variance = np.maximum(own + self.wobble_sd[:, None] ** 2 * shares[cell], 1e-18)  # [C, K]
        with np.errstate(divide="ignore"):
            df = np.minimum((np.maximum(of.n, 2) - 1) * (variance / np.maximum(own, 1e-18)) ** 2, 1e8)
        p = self.alarm_weight @ stdtr(df, change / np.sqrt(variance))
        return np.where(usable, -ndtri(np.clip(p, 1e-300, 1.0)), -np.inf)

    def change_interval(
        self, level: float, extra_variance: float = 0.0, fell_by: int | None = None
    ) -> tuple[float, float]:
        """Central interval of the true change at the last look.

        extra_variance: of prompts that change unequally. fell_by: given that a fall began by this look.
        """
        weight = self.weight if fell_by is None else self._fallen(fell_by)
        keep = weight > 1e-7 * weight.sum()
        weight, mean = weight[keep] / weight[keep].sum(), self.mean[keep]
        # Without a change there is nothing that prompts could share unequally.
        moved = np.broadcast_to(self.knee >= 0, self.weight.shape)[keep]
        sd = np.sqrt(self.variance[keep] + np.where(moved, extra_variance, 0.0))
        lo, hi = (_quantile(weight, mean, sd, q) for q in ((1 - level) / 2, (1 + level) / 2))
        return lo, hi

    def estimate(self, fell_by: int | None = None) -> float:
        """Posterior mean of the change at the last look; fell_by: as for `change_interval`."""
        weight = self.weight if fell_by is None else self._fallen(fell_by)
        return float((weight * self.mean).sum() / weight.sum())

    def onset(self, latest: int, level: float = 0.9) -> tuple[int, int, int]:
        """Index of the knee of the fall, and its central interval, given that there was a fall that began by `latest`."""
        weight = self._fallen(latest).sum(axis=0)
        mass = np.bincount(np.maximum(self.knee, 0), weights=weight, minlength=self.looks)
        mass = mass / mass.sum()
        at = int(mass.argmax())
        lo, hi = (int(np.searchsorted(np.cumsum(mass), q)) for q in ((1 - level) / 2, (1 + level) / 2))
        return at, min(lo, at), min(max(hi, at), latest)

    def _fallen(self, latest: int) -> Floats:
        """Weights of the hypotheses in which a fall that matters began by look `latest`."""
        fall = (self.size < 0) & (self.knee >= 0) & (self.knee <= latest) & self.large
        return np.where(fall, np.maximum(self.weight, 1e-290), 0.0)


def _quantile(weight: Floats, mean: Floats, sd: Floats, q: float) -> float:
    """Of a mixture of normals and points (sd 0)."""
    sd = np.maximum(sd, 1e-12)
    own = mean + ndtri(q) * sd  # the quantile of the mixture lies among those of its parts
    return float(brentq(lambda x: weight @ ndtr((x - mean) / sd) - q, own.min() - 1e-9, own.max() + 1e-9, xtol=1e-10))


def fit_series(steps: Sequence[float], changes: Floats, sampling_variance: float) -> SeriesFit:
    """Fits the model of this module.

    steps: [L] of the looks, the baseline's first. changes: [L] relative changes against the baseline, the first 0.
    sampling_variance: relative variance of one look's mean that comes from its completions.
    """
    steps = tuple(float(s) for s in steps)
    basis = _basis(steps)
    count = len(basis.knee)
    m = _project(basis, changes, sampling_variance)
    posterior = _Posterior(1 + 5 * count)
    posterior.add(m.base[..., None] + np.log(P_NONE), 0.0, 0.0, 0.0, ALARM_NONE / P_NONE)
    single = posterior.add(*_single(basis, m, SIZE, P_ONE), ALARM_ONE / P_ONE)
    posterior.add(*_single(basis, m, SMALL, P_SMALL), ALARM_SMALL / P_SMALL)
    knees = [np.array([-1]), basis.knee, basis.knee]
    # A second change is added to the best single one, another to the best second one, and so on: three rounds find the
    # two changes of any series that has two.
    best = posterior.best(single)
    for _ in range(3):
        pairs = posterior.add(*_pairs(basis, m, best), ALARM_TWO / P_TWO)
        knees.append(np.minimum(basis.knee[best], basis.knee))
        best = posterior.best(pairs)
    large = np.repeat([False, True, False, True, True, True], [part.size for part in knees])
    return posterior.fit(np.concatenate(knees), large, len(steps))


class _Posterior:
    """Hypotheses, added in blocks [R, W, h]: log weight, mean and variance of the last change, size of the first.

    alarm_ratio: prior of the block behind an alarm, over that behind an interval.
    """

    def __init__(self, hypotheses: int) -> None:
        shape = (len(CORRELATIONS), len(WOBBLES), hypotheses)
        self.log_weight, self.mean, self.variance, self.size = np.empty((4, *shape))
        self.alarm_ratio = np.empty(hypotheses)
        self._filled = 0

    def add(
        self,
        log_weight: Floats,
        mean: Floats | float,
        variance: Floats | float,
        size: Floats | float,
        alarm_ratio: float,
    ) -> slice:
        block = slice(self._filled, self._filled + log_weight.shape[-1])
        self.alarm_ratio[block] = alarm_ratio
        self._filled = block.stop
        self.log_weight[..., block], self.mean[..., block] = log_weight, mean
        self.variance[..., block], self.size[..., block] = variance, size
        return block

    def best(self, block: slice) -> int:
        """Index within the block of its most probable hypothesis, over all wobbles."""
        log_weight = self.log_weight[..., block]
        return int(np.exp(log_weight - log_weight.max()).sum(axis=(0, 1)).argmax())

    def fit(self, knee: NDArray[np.intp], large: NDArray[np.bool_], looks: int) -> SeriesFit:
        weight = np.exp(self.log_weight - self.log_weight.max())
        weight /= weight.sum()
        ratio = self.alarm_ratio if looks >= ALARM_SHARES_FROM else np.ones_like(self.alarm_ratio)
        alarm = (weight @ ratio) * ALARM_COURSE[:, None]
        alarm /= alarm.sum()
        cells = np.maximum(weight.sum(axis=2), alarm) > IMPOSSIBLE
        correlation, size = np.nonzero(cells)
        weight, mean, variance, first = (table[cells] for table in (weight, self.mean, self.variance, self.size))
        return SeriesFit(weight, mean, variance, first, alarm[cells], WOBBLES[size], correlation, knee, large, looks)


@dataclass(frozen=True)
class _Moments:
    """Weighted products of shapes (s), the series (y), with the level projected out, for each wobble [R, W]."""

    base: Floats  # [R, W] log density without a change
    ss: Floats  # [R, W, S]
    sy: Floats  # [R, W, S]
    xu: Floats  # [R, W, S] with the level, before that
    su: Floats  # [R, W, S] the same over the level with itself
    precision: Floats  # [R, W, L] of the rotated looks


def _log_prior_wobble() -> Floats:
    """[R, W]"""
    size = -0.5 * (np.log(WOBBLES / PRIOR_MEDIAN) / PRIOR_LOG_SD) ** 2
    cools = COOLING > 1
    course = np.where(cools, P_COOLING / cools.sum(), (1 - P_COOLING) / (~cools).sum())
    return size - logsumexp(size) + np.log(course)[:, None]


LOG_PRIOR_WOBBLE = _log_prior_wobble()
ALARM_COURSE = np.where(COOLING > 1, ALARM_COOLING / P_COOLING, (1 - ALARM_COOLING) / (1 - P_COOLING))


def _project(basis: _Basis, y: Floats, sampling_variance: float) -> _Moments:
    u, x = basis.ones[:, None], basis.rotated
    z = (y @ basis.vectors)[:, None]
    precision = 1 / (sampling_variance + WOBBLES[:, None] ** 2 * basis.eigenvalues[:, None] + 1e-12)
    pu, pz = precision * u, precision * z
    uu, uy, yy = (pu * u).sum(axis=-1), (pu * z).sum(axis=-1), (pz * z).sum(axis=-1)
    xu = pu @ x
    su = xu / uu[..., None]
    base = 0.5 * np.log(precision).sum(axis=-1) - 0.5 * np.log(uu) - 0.5 * (yy - uy**2 / uu) + LOG_PRIOR_WOBBLE
    return _Moments(base, precision @ (x * x) - xu * su, pz @ x - su * uy[..., None], xu, su, precision)


def _single(basis: _Basis, m: _Moments, sd: float, share: float) -> tuple[Floats, Floats, Floats, Floats]:
    """One change, of a size with sd `sd`: log weight, mean and variance of the last change, size of the change."""
    last = basis.shapes[:, -1]
    total = m.ss + sd**-2
    size = m.sy / total
    log_weight = m.base[..., None] + np.log(share) + basis.log_prior - 0.5 * np.log(total * sd**2) + 0.5 * m.sy * size
    return log_weight, size * last, last**2 / total, size


def _pairs(basis: _Basis, m: _Moments, f: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Two changes, shape `f` and any other, as `_single` returns them."""
    prior, last = SIZE**-2, basis.shapes[:, -1]
    fs = (m.precision * basis.rotated[:, None, :, f]) @ basis.rotated - m.xu[..., [f]] * m.su
    ff, fy, ss = m.ss[..., [f]] + prior, m.sy[..., [f]], m.ss + prior
    determinant = np.maximum(ff * ss - fs**2, 1e-12 * ff * ss)
    one, two = (ss * fy - fs * m.sy) / determinant, (ff * m.sy - fs * fy) / determinant
    log_weight = m.base[..., None] + np.log(P_TWO / 3) + basis.log_prior[f] + basis.log_prior
    log_weight = log_weight - 0.5 * np.log(determinant / prior**2) + 0.5 * (one * fy + two * m.sy)
    variance = (last[f] ** 2 * ss - 2 * last[f] * last * fs + last**2 * ff) / determinant
    size = np.where(basis.knee < basis.knee[f], two, one)
    return log_weight, one * last[f] + two * last, variance, size
