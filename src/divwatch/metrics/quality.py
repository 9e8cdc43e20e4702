"""Quality of the K outputs of a prompt: accuracy, pass@k, majority@k. Shares in [0, 1], higher is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import hypergeom

from divwatch.metrics.subsets import draw_subsets


def accuracy(correct: Sequence[bool]) -> float:
    """Share of the K outputs that are correct: the unbiased estimate of accuracy@1 from all samples; NaN for K = 0.

    >>> accuracy([True, False, False, True])
    0.5
    """
    return float(np.mean(correct)) if len(correct) else float("nan")


def pass_at_k(correct: Sequence[bool], k: int) -> float:
    """Chance that at least one of k outputs is correct: 1 - C(n - c, k) / C(n, k), n = len(correct), c of them correct.

    Unbiased for k <= n; NaN for k > n. Source: Chen et al. (2021, arXiv 2107.03374), equation 1.

    >>> pass_at_k([True, False, False, False], k=2)
    0.5
    """
    n, c = len(correct), int(np.sum(correct))
    return float(1.0 - hypergeom.pmf(0, n, c, k)) if 1 <= k <= n else float("nan")


def majority_at_k(
    answers: Sequence[Hashable | None],
    correct: Sequence[bool],
    k: int | None = None,
    draws: int = 64,
    seed: int = 0,
) -> float:
    """Chance that the most frequent of k answers is correct (self-consistency). Unparsed answers (None) do not vote.

    Ties are broken at random: their value is the share of correct answers among the tied. 0 if nobody votes. With
    k = None or k = K the value is exact. Below, it is the mean over subsets of size k (at most `draws`, seeded), whose
    expectation does not depend on K. NaN for k above K. Source: Wang et al. (2022, arXiv 2203.11171).

    >>> majority_at_k(["4", "4", "5"], [True, True, False])
    1.0
    """
    n = len(answers)
    k = n if k is None else k
    if not 1 <= k <= n:
        return float("nan")
    if k == n:
        return _majority(answers, correct)
    rows = draw_subsets(n, k, draws, seed)
    return float(np.mean([_majority([answers[i] for i in row], [correct[i] for i in row]) for row in rows]))


def _majority(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    votes = Counter(a for a in answers if a is not None)
    if not votes:
        return 0.0
    top = max(votes.values())
    tied = [a for a, count in votes.items() if count == top]
    # A verifier may judge equal canonical answers differently (it also reads the text): then the answer's share counts.
    return float(np.mean([np.mean([c for b, c in zip(answers, correct, strict=True) if b == a]) for a in tied]))
