"""Which m of K outputs: the subsets over which rarefied metrics are averaged."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np


@lru_cache(maxsize=256)
def draw_subsets(k: int, m: int, draws: int = 64, seed: int = 0) -> np.ndarray:
    """Subsets of size m of k items as rows of indices, [draws, m], read-only.

    All of them where there are at most `draws`; else seeded ones, cut from random permutations into disjoint blocks, so
    that every item is used equally often (up to the last permutation), which lowers the variance and keeps the mean.

    >>> draw_subsets(3, 2).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    if not 1 <= m <= k:
        raise ValueError(f"cannot take {m} of {k}")
    if comb(k, m) <= draws:
        rows = np.array(list(combinations(range(k), m)))
    else:
        rng = np.random.default_rng([seed, k, m])
        blocks = k // m
        orders = [rng.permutation(k)[: blocks * m].reshape(blocks, m) for _ in range(-(-draws // blocks))]
        rows = np.sort(np.concatenate(orders)[:draws], axis=1)
    rows.setflags(write=False)
    return rows
