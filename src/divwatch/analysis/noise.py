"""How much a look moves when nothing changes: the wobble of checkpoints, estimated from the looks themselves.

A bootstrap over prompts sees the noise of sampling completions. It cannot see what moves all prompts of a checkpoint
together, the baseline's checkpoint included. That part is read off the scatter of the looks about a monotone fit, and
shrunk towards a prior while there are few looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import f as fisher

Floats = NDArray[np.float64]

# Before a run has shown its own: 2.5 %, high in the 1-3 % seen between neighbouring checkpoints, worth six looks.
PRIOR_WOBBLE = 0.025
PRIOR_LOOKS = 6.0


@dataclass(frozen=True)
class LookNoise:
    """wobble: relative sd common to all prompts of a look. sampling: the same of one look's mean from its prompts.
    df: degrees of freedom behind their sum, the prior's included."""

    wobble: float
    sampling: float
    df: float


def look_noise(changes: Floats, sampling_variance: float) -> LookNoise:
    """Estimates the wobble from the relative changes of the looks after the baseline.

    With f the non-increasing least-squares fit of the changes y and D its number of levels, the residuals
    (y - f) / (1 + f) have variance V = wobble^2 + sampling^2 on L - D degrees of freedom: the expected dimension of a
    projection on a convex cone is the expected number of levels (Meyer and Woodroofe 2000), so a fall of any shape
    costs levels, not variance. Where an F test at 1 % says that diversity rose, or turned, the fit of that shape is
    taken instead. V is averaged with the prior's by degrees of freedom, and is never below the sampling variance.

    changes: [L] relative changes against the baseline, look 1 to now. sampling_variance: of one look's mean, relative.

    >>> look_noise(np.zeros(30), 0.0).wobble < 0.012 < look_noise(np.tile([0.03, -0.03], 15), 0.0).wobble
    True
    """
    prior_squares = PRIOR_LOOKS * (PRIOR_WOBBLE**2 + sampling_variance)

    def with_prior(squares: float, df: int) -> tuple[float, float]:
        return (prior_squares + squares) / (PRIOR_LOOKS + df), PRIOR_LOOKS + df

    variance, df = with_prior(*_monotone(changes, rising=False))
    for other_variance, other_df in (with_prior(*shape) for shape in _other_shapes(changes)):
        if variance > _f_quantile(df, other_df) * other_variance:
            variance, df = other_variance, other_df
    wobble = float(np.sqrt(max(variance - sampling_variance, 0.0)))
    return LookNoise(wobble, float(np.sqrt(sampling_variance)), df)


def _monotone(y: Floats, rising: bool) -> tuple[float, int]:
    """Sum of squared relative residuals of the monotone fit, and its degrees of freedom."""
    if not y.size:
        return 0.0, 0
    fit = isotonic_regression(y, increasing=rising)
    residuals = (y - fit.x) / np.maximum(1 + fit.x, 0.1)
    return float(residuals @ residuals), int(y.size - (fit.blocks.size - 1))


def _other_shapes(y: Floats) -> list[tuple[float, int]]:
    """Rising; falling then rising; rising then falling: turning where three looks together are lowest or highest."""
    shapes = [_monotone(y, rising=True)]
    if y.size >= 6:
        smooth = np.convolve(y, np.ones(3) / 3, "valid")
        for turn, rising in ((1 + int(smooth.argmin()), False), (1 + int(smooth.argmax()), True)):
            first, second = _monotone(y[: turn + 1], rising), _monotone(y[turn + 1 :], not rising)
            shapes.append((first[0] + second[0], first[1] + second[1]))
    return shapes


@lru_cache(maxsize=4096)
def _f_quantile(df: float, other_df: float) -> float:
    return float(fisher.ppf(0.99, df, other_df))
