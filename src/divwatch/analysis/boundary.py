"""How far beyond noise a fall must lie, so that a quiet run rarely sees one, however often it is looked at.

At every look the looks after some knee are contrasted with those before it. `early` is the contrast of all looks after
the baseline with the baseline, `late` the contrast at every other knee.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.stats import norm

EARLY_SHARE = 0.75  # of alpha: most falls begin before the first look after the baseline


@lru_cache(maxsize=4096)
def critical_value(looks: int, alpha: float, early: bool) -> float:
    """c such that the largest normal deviate of the scan is beyond c in at most its share of `alpha` of quiet runs.

    The deviates of one run are correlated: a scan of many counts as few independent tests. Their number was measured
    on white noise, for 4 to 201 looks and levels of 0.1 to 0.001 (`tests/analysis/test_detector.py` holds it against
    fresh noise): about 2.5 for the early contrast, and (L - 3)(log L - 0.5) for the late ones.

    >>> round(critical_value(21, 0.05, early=True), 2), round(critical_value(21, 0.05, early=False), 2)
    (2.11, 3.46)
    """
    level = alpha * (EARLY_SHARE if early else 1 - EARLY_SHARE)
    tests = 2.4 if early else max((looks - 3) * (np.log(looks) - 0.5), 1.0)
    tests *= (0.0125 / level) ** (0.1 if early else 0.12)
    return float(norm.isf(min(level / max(tests, 1.0), 0.5)))
