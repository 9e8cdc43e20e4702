"""How far beyond its noise a fall must be, in two looks running, so that a whole run without change rarely alarms."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, ndtr
from scipy.stats import chi2, norm

_DF = np.array([3.0, 4, 5, 6, 7, 8, 10, 13, 18, 30, 60, 250, 1e5])


def critical_value(pairs: int, alpha: float, df: float) -> float:
    """The c with P(change < -c * se in two looks running, at any of `pairs` places) <= alpha when nothing changes.

    Every change is measured against the same baseline, whose noise b is half of the variance. Given b and the
    estimated scale u (chi-square with `df` degrees of freedom), looks are independent, so the chance at one place
    is p(b, u)^2 with p = Phi(b - sqrt(2) c u), and the union bound over places gives

        E_u E_b min(1, pairs * p(b, u)^2) = alpha,

    which is solved for c. Two looks running make many places cost little: c is 1.1 for one, 2.1 for 29 (df large).

    >>> round(critical_value(29, 0.05, 1e5), 2), round(critical_value(29, 0.05, 5), 2)
    (2.06, 2.77)
    """
    return float(np.interp(-1 / df, -1 / _DF, _critical_values(pairs, alpha)))


@lru_cache(maxsize=256)
def _critical_values(pairs: int, alpha: float) -> NDArray[np.float64]:
    b = np.linspace(-6, 8, 85)
    b_weight = norm.pdf(b) / norm.pdf(b).sum()
    edges = expit(np.linspace(-14, 14, 43))  # fine in the tails: a scale estimated far too small is what alarms
    u_weight, quantiles = np.diff(edges), (edges[1:] + edges[:-1]) / 2

    def excess(c: float, u: NDArray[np.float64]) -> float:
        p = ndtr(b[:, None] - np.sqrt(2) * c * u)
        return float(b_weight @ np.minimum(1, pairs * p**2) @ u_weight - alpha)

    return np.array([brentq(excess, 0, 1e4, args=(np.sqrt(chi2.ppf(quantiles, df) / df),), xtol=1e-4) for df in _DF])
