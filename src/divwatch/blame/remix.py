"""From effects of sources to a better mix: factors on their rows that halve the predicted loss of diversity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# First order over what leaving the narrowest source out does, in trainings (docs/blame.md, Measured).
EXAGGERATION = 3.0


def held_back(means: Floats, shares: Floats) -> Floats:
    """Effects of mixes of one source alone, [sources], with differences that a new training can be expected to have.

    First order adds a source's effects up as if nothing pulled the model back; in a training the other rows do. The mean over
    the mix stays, differences from it are divided by EXAGGERATION.

    >>> held_back(np.array([-0.9, 0.3]), np.array([0.5, 0.5])).round(2).tolist()
    [-0.5, -0.1]
    """
    level = shares @ means
    return np.asarray(level + (means - level) / EXAGGERATION)


def halving_factors(
    means: Floats, shares: Floats, blamed: NDArray[np.bool_], observed: float | None = None, target: float = 0.5
) -> Floats | None:
    """Factors [sources] on the numbers of rows, 1 for all but the blamed sources, that keep `target` of the loss.

    means: effect of a mix of one source alone, [sources]. shares: of the sources in the mix. observed: change of diversity
    of the run, if it is known; what the prediction lacks of it goes to all sources alike. At the same number of rows in
    all, the mix then has the shares factor x share / sum. Blamed sources go down by a factor exp(-strength x excess), excess
    being how much more than the other sources' mean they narrow: of all mixes with this effect, the nearest to the original
    one in Kullback-Leibler divergence. 0 if leaving them out keeps more than `target`. None without a blamed source or a
    loss.

    >>> halving_factors(np.array([-0.4, 0.0]), np.array([0.5, 0.5]), np.array([True, False])).round(2).tolist()
    [0.33, 1.0]
    """
    if observed is not None:
        means = means + (observed - shares @ means)
    before = float(shares @ means)
    if not blamed.any() or blamed.all() or before >= 0:
        return None
    others = float(shares[~blamed] @ means[~blamed] / shares[~blamed].sum())
    pooled = np.where(blamed, means, others)
    excess = np.where(blamed, np.clip(others - means, 0, None), 0.0)

    def factors(strength: float) -> Floats:
        return np.exp(-strength * excess)

    def effect(factor: Floats) -> float:
        weights = factor * shares
        return float(weights @ pooled / weights.sum())

    without = np.where(blamed, 0.0, 1.0)
    if effect(without) <= target * before:
        return without
    low, high = 0.0, 1.0 / max(float(excess.max()), 1e-30)
    while effect(factors(high)) < target * before and high < 1e30:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if effect(factors(middle)) < target * before else (low, middle)
    return factors(high)
