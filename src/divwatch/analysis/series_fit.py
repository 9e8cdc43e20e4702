"""One model of a series of looks: its level, where it fell, and how much checkpoints wobble.

The changes y_0 = 0, y_1 ... y_L of a series are modelled as

    y_l = level + shape_l + w_l + e_l

with a flat prior on the level. A shape is a straight change between two looks, or the sum of two such, or none. w is
the wobble: a first-order autoregression that all prompts of a checkpoint share. e is the noise of sampling completions,
whose variance the prompts show. All are Gaussian, so that every integral is closed but those over the size and the
correlation of the wobble, which are sums over a grid, and over the shapes, which are counted out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr, ndtri, stdtr

from divwatch.analysis.contrast import Contrast

Floats = NDArray[np.float64]

PRIOR_WOBBLE = 0.01  # what to assume of a checkpoint that stands alone
# Relative sd of the wobble, and its prior: log-normal about 0.7 %. Three trainings of the embedded model showed at
# most 0.5 %, with correlations of 0.3 to 0.6 between neighbouring looks; 7B models are not known to be as steady.
WOBBLES = np.geomspace(0.0006, 0.08, 10)
PRIOR_MEDIAN, PRIOR_LOG_SD = 0.007, 0.9
CORRELATIONS = np.array([0.0, 0.3, 0.6, 0.8, 0.95])
# Prior of a change: none, one of any size, one below what matters, or two.
P_NONE, P_ONE, P_SMALL, P_TWO = 0.15, 0.45, 0.25, 0.15
P_FIRST = 0.6  # that a change starts right after the baseline
SIZE, SMALL = 0.2, 0.01  # sd of a change's size
KNEES = 40  # at most so many looks are tried as the start of a change


@dataclass(frozen=True)
class _Shapes:
    """values: [S, L] in [0, 1]. knee: [S] the last look before the change. log_prior: [S]."""

    values: Floats
    knee: NDArray[np.intp]
    log_prior: Floats


@lru_cache(maxsize=16)
def _shapes(steps: tuple[float, ...]) -> _Shapes:
    s = np.array(steps)
    looks = s.size
    knees = np.unique(np.linspace(0, looks - 2, min(looks - 1, KNEES)).round().astype(int))
    pairs = [(k, e) for k in knees for e in _ends(int(k), looks)]
    knee, end = np.array(pairs, dtype=int).T
    values = np.clip((s - s[knee, None]) / (s[end] - s[knee])[:, None], 0, 1)
    per_knee = np.bincount(knee, minlength=looks)[knee]
    later = (1 - P_FIRST) / max(len(knees) - 1, 1)
    return _Shapes(values, knee, np.log(np.where(knee == 0, P_FIRST, later) / per_knee))


def _ends(knee: int, looks: int) -> list[int]:
    """Last looks of a change that starts after `knee`: 1, 2, 3, 4, 6, 8, 12 ... looks on, and the last look."""
    widths = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
    return sorted({knee + w for w in widths if knee + w < looks} | {looks - 1})


@lru_cache(maxsize=128)
def _rotation(looks: int, correlation: float) -> tuple[Floats, Floats, Floats]:
    """Correlation matrix of the wobble, its eigenvalues and its eigenvectors."""
    lag = np.abs(np.subtract.outer(np.arange(looks), np.arange(looks)))
    matrix = correlation**lag if correlation else np.eye(looks)
    values, vectors = np.linalg.eigh(matrix)
    return matrix, values, vectors


@lru_cache(maxsize=64)
def _rotated(steps: tuple[float, ...], correlation: float) -> Floats:
    return _shapes(steps).values @ _rotation(len(steps), correlation)[2]


@dataclass(frozen=True)
class SeriesFit:
    """The posterior. weight, mean, variance: [R, W, H] of each hypothesis under each wobble: its probability, and the
    change at the last look with its variance. knee: [H] the look before the (first) change, -1 where there is none.
    large: [H] whether its prior is that of a change that matters. size: [R, W, H] of the first change. steps: [L]."""

    weight: Floats
    mean: Floats
    variance: Floats
    size: Floats
    knee: NDArray[np.intp]
    large: NDArray[np.bool_]
    steps: tuple[float, ...] = field(repr=False)

    @cached_property
    def wobble_weight(self) -> Floats:
        """[R, W] posterior of the wobble's correlation and size."""
        return self.weight.sum(axis=2)

    @property
    def wobble(self) -> float:
        """Posterior root mean square of the wobble, relative."""
        return float(np.sqrt((self.wobble_weight * WOBBLES**2).sum()))

    def z(self, of: Contrast, margin: float = 0.0) -> Floats:
        """[C] how far each change lies below -margin, as a normal deviate of the posterior predictive.

        The wobble's size and correlation are averaged over their posterior, so a run that has shown little yet is
        judged with heavy tails. The prompts' variance has n - 1 degrees of freedom. -inf where there is no change.
        """
        usable = np.isfinite(of.change)
        change, own = np.where(usable, of.change + margin, 0.0), np.where(usable, of.variance, 1.0)
        looks = of.after.shape[1]
        shares = np.stack([of.wobble_variance(_rotation(looks, float(r))[0]) for r in CORRELATIONS])  # [R, C]
        variance = np.maximum(own + WOBBLES[:, None] ** 2 * shares[:, None, :], 1e-18)
        with np.errstate(divide="ignore"):
            df = np.minimum((np.maximum(of.n, 2) - 1) * (variance / np.maximum(own, 1e-18)) ** 2, 1e8)
        p = np.einsum("rw,rwc->c", self.wobble_weight, stdtr(df, change / np.sqrt(variance)))
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
        weight = self._fallen(latest).sum(axis=(0, 1))
        mass = np.bincount(np.maximum(self.knee, 0), weights=weight, minlength=len(self.steps))
        mass = mass / mass.sum()
        at = int(mass.argmax())
        lo, hi = (int(np.searchsorted(np.cumsum(mass), q)) for q in ((1 - level) / 2, (1 + level) / 2))
        return at, min(lo, at), min(max(hi, at), latest)

    def _fallen(self, latest: int) -> Floats:
        """Weights of the hypotheses in which a fall that matters began by look `latest`."""
        fall = (self.size < 0) & (self.knee >= 0) & (self.knee <= latest) & self.large
        return np.where(fall, np.maximum(self.weight, 1e-290), 0.0)


def _quantile(weight: Floats, mean: Floats, sd: Floats, q: float) -> float:
    """Of a mixture of normals and points (sd 0), by bisection."""
    sd = np.maximum(sd, 1e-12)
    lo, hi = float((mean - 9 * sd).min()), float((mean + 9 * sd).max())
    for _ in range(50):
        middle = (lo + hi) / 2
        if weight @ ndtr((middle - mean) / sd) < q:
            lo = middle
        else:
            hi = middle
    return (lo + hi) / 2


def fit_series(steps: Sequence[float], changes: Floats, sampling_variance: float) -> SeriesFit:
    """Fits the model of this module.

    steps: [L] of the looks, the baseline's first. changes: [L] relative changes against the baseline, the first 0.
    sampling_variance: relative variance of one look's mean that comes from its completions.
    """
    steps = tuple(float(s) for s in steps)
    shapes = _shapes(steps)
    grids = [_integrate(steps, changes, sampling_variance, float(r)) for r in CORRELATIONS]
    log_weight, mean, variance, size = (np.stack(part) for part in zip(*(grid[:4] for grid in grids), strict=True))
    hypotheses, knees = [(log_weight, mean, variance, size)], [np.array([-1]), shapes.knee, shapes.knee]
    # A second change is added to the best single one, another to the best second one, and so on: three rounds find the
    # two changes of any series that has two.
    first = int(logsumexp(log_weight[:, :, 1 : 1 + len(shapes.knee)], axis=(0, 1)).argmax())
    for _ in range(3):
        pairs = [_integrate_pairs(steps, moments, first) for *_, moments in grids]
        log_weight, mean, variance, size = (np.stack(part) for part in zip(*pairs, strict=True))
        hypotheses.append((log_weight, mean, variance, size))
        knees.append(np.minimum(shapes.knee[first], shapes.knee))
        first = int(logsumexp(hypotheses[-1][0], axis=(0, 1)).argmax())
    log_weight, mean, variance, size = (np.concatenate(part, axis=2) for part in zip(*hypotheses, strict=True))
    weight = np.exp(log_weight - logsumexp(log_weight))
    large = np.repeat([False, True, False, True, True, True], [part.size for part in knees])
    return SeriesFit(weight, mean, variance, size, np.concatenate(knees), large, steps)


@dataclass(frozen=True)
class _Moments:
    """Weighted products of shapes (s), the series (y), with the level projected out, for each size of the wobble."""

    base: Floats  # [W] log density without a change
    ss: Floats  # [W, S]
    sy: Floats  # [W, S]
    precision: Floats  # [W, L] of the rotated looks
    rotated: Floats  # [S, L]
    ones: Floats  # [L]


def _log_prior_wobble() -> Floats:
    density = -0.5 * (np.log(WOBBLES / PRIOR_MEDIAN) / PRIOR_LOG_SD) ** 2
    return density - logsumexp(density)


def _integrate(
    steps: tuple[float, ...], y: Floats, sampling_variance: float, correlation: float
) -> tuple[Floats, Floats, Floats, Floats, _Moments]:
    """No change and single changes: log weight, mean and variance of the last change, size of the change."""
    shapes, x = _shapes(steps), _rotated(steps, correlation)
    _, eigenvalues, vectors = _rotation(len(steps), correlation)
    u, z = vectors.sum(axis=0), vectors.T @ y
    precision = 1 / (sampling_variance + WOBBLES[:, None] ** 2 * eigenvalues + 1e-12)
    uu, uy, yy = precision @ (u * u), precision @ (u * z), precision @ (z * z)
    xu, xy, xx = precision @ (x * u).T, precision @ (x * z).T, precision @ (x * x).T
    ss, sy = xx - xu**2 / uu[:, None], xy - xu * (uy / uu)[:, None]
    base = 0.5 * np.log(precision).sum(axis=1) - 0.5 * np.log(uu) - 0.5 * (yy - uy**2 / uu)
    base += _log_prior_wobble() - np.log(len(CORRELATIONS))
    moments = _Moments(base, ss, sy, precision, x, u)
    last = shapes.values[:, -1]
    none = np.full((len(WOBBLES), 1), 0.0)
    logs, means, variances, sizes = [base[:, None] + np.log(P_NONE)], [none], [none], [none]
    for sd, share in ((SIZE, P_ONE), (SMALL, P_SMALL)):
        total = ss + sd**-2
        size = sy / total
        logs.append(base[:, None] + np.log(share) + shapes.log_prior - 0.5 * np.log(total * sd**2) + 0.5 * sy * size)
        means.append(size * last)
        variances.append(last**2 / total)
        sizes.append(size)
    log_weight, mean, variance, size = (np.concatenate(part, axis=1) for part in (logs, means, variances, sizes))
    return log_weight, mean, variance, size, moments


def _integrate_pairs(steps: tuple[float, ...], m: _Moments, f: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Two changes, shape `f` and any other: [W, S] as `_integrate` returns them."""
    shapes, prior = _shapes(steps), SIZE**-2
    last = shapes.values[:, -1]
    uu, xu = m.precision @ (m.ones**2), m.precision @ (m.rotated * m.ones).T
    fs = m.precision @ (m.rotated * m.rotated[f]).T - xu * (xu[:, f] / uu)[:, None]
    ff, fy, ss = m.ss[:, [f]] + prior, m.sy[:, [f]], m.ss + prior
    determinant = np.maximum(ff * ss - fs**2, 1e-12 * ff * ss)
    one, two = (ss * fy - fs * m.sy) / determinant, (ff * m.sy - fs * fy) / determinant
    log_weight = m.base[:, None] + np.log(P_TWO / 3) + shapes.log_prior[f] + shapes.log_prior
    log_weight = log_weight - 0.5 * np.log(determinant / prior**2) + 0.5 * (one * fy + two * m.sy)
    variance = (last[f] ** 2 * ss - 2 * last[f] * last * fs + last**2 * ff) / determinant
    size = np.where(shapes.knee < shapes.knee[f], two, one)
    return log_weight, one * last[f] + two * last, variance, size
