"""How much a look moves when nothing changes: the wobble of checkpoints, estimated from the looks themselves.

A bootstrap over prompts sees the noise of sampling completions. It cannot see what moves all prompts of a checkpoint
together, the baseline's checkpoint included. That part is read off the scatter of the looks about a monotone fit, and
shrunk towards a prior while there are few looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

# Before a run has shown its own: 2 %, the middle of the 1-3 % between neighbouring checkpoints, worth six looks.
PRIOR_WOBBLE = 0.02
PRIOR_LOOKS = 6.0


@dataclass(frozen=True)
class LookNoise:
    """wobble: relative sd common to all prompts of a look. sampling: the same of one look's mean from its prompts.
    df: degrees of freedom behind their sum, the prior's included."""

    wobble: float
    sampling: float
    df: float


def look_noise(changes: NDArray[np.float64], sampling_variance: float) -> LookNoise:
    """Estimates the wobble from the relative changes of the looks after the baseline.

    With f the non-increasing least-squares fit of the changes y and D its number of levels, the residuals
    (y - f) / (1 + f) have variance V = wobble^2 + sampling^2 on L - D degrees of freedom: the expected dimension of a
    projection on a convex cone is the expected number of levels (Meyer and Woodroofe 2000), so that a fall of any shape
    costs levels, not variance. V is averaged with the prior's by degrees of freedom, and is never below the sampling
    variance. Where diversity rises, the fit is flat and the wobble overstated: an alarm comes later, never more often.

    changes: [L] relative changes against the baseline, look 1 to now. sampling_variance: of one look's mean, relative.

    >>> look_noise(np.zeros(30), 0.0).wobble < 0.01 < look_noise(np.tile([0.03, -0.03], 15), 0.0).wobble
    True
    """
    residual_squares, df = 0.0, 0.0
    if changes.size:
        fit = isotonic_regression(changes, increasing=False)
        residuals = (changes - fit.x) / np.maximum(1 + fit.x, 0.1)
        residual_squares = float(residuals @ residuals)
        df = float(changes.size - (fit.blocks.size - 1))
    total_df = PRIOR_LOOKS + df
    variance = (PRIOR_LOOKS * (PRIOR_WOBBLE**2 + sampling_variance) + residual_squares) / total_df
    wobble = float(np.sqrt(max(variance - sampling_variance, 0.0)))
    return LookNoise(wobble, float(np.sqrt(sampling_variance)), total_df)
