"""From rows' and prompts' effects to effects of sources, with intervals: pure functions on arrays.

`effect` of a source: the change of diversity that training on its rows makes; the effects of all sources add up to the
change that the mix makes. Where the change along the weights' path is known, that is what they add up to, and what it has
more than the rows' own effects goes to all rows equally. `instead`: the part of the effect that leaving the source out would
undo, its rows giving way to as many of the other sources', in their proportions. Leave-one-out ablation measures `instead`.

Two errors are independent: of the rows drawn from a source, and of the completions drawn for the panel's prompts, which all
sources share. The panel itself is given: another one has other effects. Intervals are simultaneous over sources (95 % for
all at once).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WINSORISED = 0.025  # share of the rows at either end that count as the next one
LEVEL, DRAWS = 0.95, 20_000


class Effects(NamedTuple):
    """Effects of the sources on one task, each [sources], in units of diversity; negative: diversity is lost.

    plain: effects without the robust mean. low, high and instead_low, instead_high: simultaneous 95 % intervals.
    total, total_low, total_high: of the whole mix, with its own 95 % interval.
    """

    effect: Floats
    low: Floats
    high: Floats
    plain: Floats
    instead: Floats
    instead_low: Floats
    instead_high: Floats
    total: float
    total_low: float
    total_high: float

    @property
    def blamed(self) -> NDArray[np.bool_]:
        """Sources that narrow the model, and narrow it more than the rest of the mix does: both intervals below 0."""
        return np.asarray((self.high < 0) & (self.instead_high < 0))


def robust_mean(values: Floats, share: float = WINSORISED) -> tuple[float, float]:
    """(mean, standard error) of `values` with the lowest and the highest `share` of them set to the next one.

    Single rows can be 100 times the median row, and would make the mean of 100 rows worthless. The price is a bias
    towards 0 where such rows are common and on one side: `Effects.plain` shows it. Source: winsorised mean and its
    error, Tukey and McLaughlin (1963), Dixon and Tukey (1968).

    >>> robust_mean(np.array([1.0] * 50 + [100.0]))[0]
    1.0
    """
    n = len(values)
    if n < 2:
        return float(values.mean()) if n else float("nan"), float("inf")
    cut = int(np.ceil(share * n)) if n >= 8 else 0
    ordered = np.sort(values)
    kept = np.clip(values, ordered[cut], ordered[n - 1 - cut])
    return float(kept.mean()), float(kept.std(ddof=1) / np.sqrt(n) / (1 - 2 * cut / n))


def source_effects(
    rows: Floats,
    of_source: Sequence[int],
    shares: Floats,
    influence: Floats,
    of_task: Sequence[Sequence[int]],
    seed: int = 0,
    path: float | None = None,
) -> Effects:
    """Effects of sources on one task, or on the equal-weight mean of several.

    rows:      [rows], effect of training on nothing but copies of this row, over the run.
    of_source: [rows], index of the source of each row. shares: [sources], share of each source in the mix.
    influence: [prompts, K, sources], of each completion on the effect of a mix of one source alone (`sample_influence`);
    with `path` one column more, on that. path: change of diversity along the weights' path, where it is known.
    of_task:   prompts of each task; the value is the mean over tasks of the mean over their prompts.
    """
    count = len(shares)
    mine = [rows[np.asarray(of_source) == s] for s in range(count)]
    mean, error = np.array([robust_mean(values) for values in mine]).T
    plain = np.array([values.mean() for values in mine])
    from_rows, of_mix, differences = np.eye(count), shares, left_out(shares)
    if path is not None:
        mean, plain, error = np.append(mean, path), np.append(plain, path), np.append(error, 0.0)
        from_rows, differences = np.eye(count, count + 1), np.pad(differences, ((0, 0), (0, 1)))
        of_mix = np.append(np.zeros(count), 1.0)
    own = shares[:, None] * (from_rows + of_mix - shares @ from_rows)
    covariance = np.diag(error**2) + _over_completions(influence, of_task)
    effect, low, high = _simultaneous(own, mean, covariance, seed)
    instead, instead_low, instead_high = _simultaneous(differences, mean, covariance, seed)
    total, total_low, total_high = _simultaneous(of_mix[None, :], mean, covariance, seed)
    return Effects(
        effect, low, high, own @ plain, instead, instead_low, instead_high, total[0], total_low[0], total_high[0]
    )


def left_out(shares: Floats) -> Floats:
    """[sources, sources]: rows give each source's `instead` from the sources' own means; zeros for a lone source."""
    count = len(shares)
    matrix = np.zeros((count, count))
    for s, share in enumerate(shares):
        if share < 1:
            matrix[s] = -share * shares / (1 - share)
            matrix[s, s] = share
    return matrix


def _over_completions(influence: Floats, of_task: Sequence[Sequence[int]]) -> Floats:
    """Covariance [sources, sources] of the mean over tasks of the mean over their prompts."""
    samples, count = influence.shape[1:]
    total = np.zeros((count, count))
    for places in of_task:
        for prompt in places:
            of_prompt = influence[prompt] - influence[prompt].mean(axis=0)
            scale = samples * (samples - 1) * (len(places) * len(of_task)) ** 2
            total += of_prompt.T @ of_prompt / scale
    return total


def _simultaneous(matrix: Floats, mean: Floats, covariance: Floats, seed: int) -> tuple[Floats, Floats, Floats]:
    """(values, low, high) of matrix @ mean, with intervals that hold for all of them at once with probability 0.95."""
    values = matrix @ mean
    spread = matrix @ covariance @ matrix.T
    error = np.sqrt(np.clip(np.diag(spread), 0, None))
    finite = np.isfinite(error) & (error > 0)
    if not finite.any():
        return values, np.where(error > 0, -np.inf, values), np.where(error > 0, np.inf, values)
    correlation = spread[np.ix_(finite, finite)] / np.outer(error[finite], error[finite])
    draws = np.random.default_rng(seed).multivariate_normal(
        np.zeros(int(finite.sum())), correlation, size=DRAWS, method="eigh"
    )
    half = np.quantile(np.abs(draws).max(axis=1), LEVEL) * error
    return values, values - half, values + half


def loss_shares(effect: Floats) -> Floats:
    """Each source's share of the predicted losses, in [0, 1]; 0 for one that does not narrow.

    >>> loss_shares(np.array([-3.0, -1.0, 2.0])).tolist()
    [0.75, 0.25, 0.0]
    """
    lost = np.clip(-effect, 0, None)
    return lost / lost.sum() if lost.sum() > 0 else lost
