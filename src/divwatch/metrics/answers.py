"""Diversity of canonical answers: how many different ones, and how evenly they are used.

Every function takes the answers of one prompt as hashable values; None (nothing could be parsed) is left out, for a
broken answer is not a different answer. K is the number of answers that are left. Direction: higher is more diverse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.stats import hypergeom


def answer_counts(answers: Iterable[Any]) -> np.ndarray:
    """How often each answer occurs, [distinct], largest first.

    >>> answer_counts(["4", "4", None, "5"]).tolist()
    [2, 1]
    """
    return np.array(sorted(Counter(a for a in answers if a is not None).values(), reverse=True), dtype=np.int64)


def distinct(answers: Iterable[Any]) -> float:
    """Number of different answers, in [1, K]; NaN without any answer.

    Bias: grows with K until every answer of the model was seen: compare at equal K, or use `rarefied_distinct`.

    >>> distinct(["4", "4", "5"])
    2.0
    """
    return float(len(answer_counts(answers)) or np.nan)


def rarefied_distinct(answers: Iterable[Any], m: int) -> float:
    """Expected number of different answers among m of the K, exactly: sum_i 1 - C(K - n_i, m) / C(K, m).

    In [1, m]; NaN for K < m. Unbiased: its expectation does not depend on K >= m. Source: Hurlbert (1971, Ecology 52).

    >>> round(rarefied_distinct(["4", "4", "5"], m=2), 6)
    1.666667
    """
    n = answer_counts(answers)
    k = int(n.sum())
    if m < 1 or k < m:
        return float("nan")
    return float(np.sum(1.0 - hypergeom.pmf(0, k, n, m)))


def entropy(answers: Iterable[Any]) -> float:
    """Plug-in Shannon entropy of the answers, -sum p log p in nats, in [0, log K]; NaN without any answer.

    Bias: too low, by about (number of possible answers - 1) / 2K: compare at equal K, or use `rarefied_entropy`.

    >>> round(entropy(["a", "b"]), 6)
    0.693147
    """
    n = answer_counts(answers)
    if len(n) == 0:
        return float("nan")
    p = n / n.sum()
    return float(abs(np.sum(p * np.log(p))))


def rarefied_entropy(answers: Iterable[Any], m: int) -> float:
    """Expected plug-in entropy of m of the K answers, exactly, in nats, in [0, log m]; NaN for K < m.

    The number of times that answer i is among the m is hypergeometric, so the expectation is a finite sum.

    >>> round(rarefied_entropy(["a", "b", "b"], m=2), 6)
    0.462098
    """
    n = answer_counts(answers)
    k = int(n.sum())
    if m < 1 or k < m:
        return float("nan")
    j = np.arange(1, m + 1)
    terms = -(j / m) * np.log(j / m)
    return float(np.sum(hypergeom.pmf(j[:, None], k, n[None, :], m) * terms[:, None]))


def gini_simpson(answers: Iterable[Any]) -> float:
    """Chance that two of the answers differ: 1 - sum n_i (n_i - 1) / (K (K - 1)), in [0, 1]; NaN for K < 2.

    Unbiased in K (drawn without replacement); Hill number of order 2 is 1 / (1 - this). Source: Simpson (1949, Nature
    163).

    >>> round(gini_simpson(["4", "4", "5"]), 6)
    0.666667
    """
    n = answer_counts(answers)
    k = int(n.sum())
    return float(1.0 - np.sum(n * (n - 1)) / (k * (k - 1))) if k >= 2 else float("nan")
