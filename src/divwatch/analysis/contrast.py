"""How much lower some looks lie than others: a change with its prompts' variance, for many pairs of sets at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Contrast:
    """C contrasts of looks. after, before: [C, L] the looks of each side.

    change:   [C] mean of the later looks over mean of the earlier ones, minus 1; NaN where it cannot be computed.
    variance: [C] of the change, from the prompts. n: [C] the prompts that both sides have.
    """

    after: Bools
    before: Bools
    change: Floats
    variance: Floats
    n: NDArray[np.intp]

    def wobble_variance(self, correlation: Floats) -> Floats:
        """[C] variance that a wobble of unit variance adds; correlation: [L, L] between looks."""
        weights = self.after / self.after.sum(axis=1, keepdims=True)
        weights = weights - self.before / self.before.sum(axis=1, keepdims=True)
        return ((weights @ correlation) * weights).sum(axis=1)

    def variance_without(self, margin: float) -> Floats:
        """[C] the prompts' variance of the change if the true change were -margin.

        Where the noise is that of the looks before, a fall by chance comes from values before that are high by chance,
        and the residuals about the lower ratio are smaller than the noise was. Every look has the same noise.
        """
        after, before = 1 / self.after.sum(axis=1), 1 / self.before.sum(axis=1)
        return self.variance * (after + (1 - margin) ** 2 * before) / (after + (1 + self.change) ** 2 * before)

    def highest_z(self, margin: float) -> Floats:
        """[C] how far each change lies below -margin, in standard errors of the prompts alone; any further noise lowers
        it. -inf where there is no change."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = -(self.change + margin) / np.sqrt(self.variance_without(margin))
        return np.where(np.isfinite(self.change), z, -np.inf)

    def at(self, rows: NDArray[np.intp]) -> Contrast:
        """Some of the contrasts."""
        return Contrast(self.after[rows], self.before[rows], self.change[rows], self.variance[rows], self.n[rows])


def contrast(values: Floats, after: Bools, before: Bools) -> Contrast:
    """Contrasts the later looks with the earlier ones, paired by prompt.

    A prompt's value on a side is its mean over the looks of that side that have one.
    values: [L, N], NaN where missing. after: [C, L], before: [C, L] or [1, L], at least one look in each row.
    """
    change, variance, n = paired_change(mean_of_looks(values, after), mean_of_looks(values, before))
    return Contrast(after, np.broadcast_to(before, after.shape), change, variance, n)


def contrast_at_knees(values: Floats) -> Contrast:
    """`contrast` at every knee but the last two looks: [L - 2] of the looks after it with those up to it."""
    looks = len(values)
    after = np.arange(looks) > np.arange(looks - 2)[:, None]
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0)
    sums, counts = filled.cumsum(axis=0), there.cumsum(axis=0)
    rest, others = filled[::-1].cumsum(axis=0)[::-1], counts[-1] - counts
    with np.errstate(divide="ignore", invalid="ignore"):
        change = paired_change(rest[1:-1] / others[:-2], sums[:-2] / counts[:-2])
    return Contrast(after, ~after, *change)


def mean_of_looks(values: Floats, looks: Bools) -> Floats:
    """[C, N] each prompt's mean over the looks [C, L] that have a value; NaN where none has."""
    there = np.isfinite(values)
    side = looks.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (side @ np.where(there, values, 0.0)) / (side @ there)


def paired_change(after: Floats, before: Floats) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """By row, over the prompts that both have: change of the mean, its variance, and the number of prompts.

    The variance is a ratio estimator's, by linearisation: that of mean(a - r b) with r the ratio of the means. It
    includes whatever correlation a prompt's looks have, so it holds under common random numbers too. Both are NaN with
    fewer than two prompts, and where the mean before is not positive. after, before: [C, N], NaN where missing.
    """
    both = np.isfinite(after) & np.isfinite(before)
    n = both.sum(axis=1)
    a, b = np.where(both, after, 0.0), np.where(both, before, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        base = b.sum(axis=1) / n
        ratio = a.sum(axis=1) / n / base
        residuals = a - ratio[:, None] * b  # their mean is 0, and 0 stands where one is missing
        variance = (residuals**2).sum(axis=1) / (n - 1) / n / base**2
    usable = (n >= 2) & (base > 0)
    return np.where(usable, ratio - 1, np.nan), np.where(usable, variance, np.nan), n
