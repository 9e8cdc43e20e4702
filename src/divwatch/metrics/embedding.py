"""Diversity of a set of embeddings: mean pairwise cosine distance and the Vendi score.

`gram` turns L2-normalised embeddings [..., K, d] into cosines [..., K, K]; each metric takes those, on the last two
axes, so a batch of prompts with the same K is one call. Unit: none. Direction: higher is more diverse.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from divwatch.metrics.subsets import draw_subsets


def gram(embeddings: Any) -> np.ndarray:
    """Cosines of all pairs of outputs, [..., K, K]: what every metric here is a function of.

    embeddings: [..., K, d], L2-normalised. Products keep the precision of the embeddings (float32: 1e-7). Raises
    ValueError for fewer than two axes.
    """
    e = np.asarray(embeddings)
    if e.ndim < 2:
        raise ValueError(f"embeddings have shape {e.shape}: give [outputs, dimensions]")
    e = e if e.dtype in (np.float32, np.float64) else e.astype(np.float64)
    return (e @ np.swapaxes(e, -1, -2)).astype(np.float64, copy=False)


def pairwise_distance(cosines: Any) -> Any:
    """Mean cosine distance over the pairs of outputs: D = 1 - mean_{i<j} e_i.e_j.

    cosines: [..., K, K] from `gram`. Returns [...] (a float for one set), in [0, 2]; 0 means that all outputs point the
    same way. NaN for K < 2. Unbiased in K: its expectation is the distance of two independent outputs, whatever K.
    It inherits the encoder's blind spots: truncation, topic and style in one number, no invariance to length.
    Computed as (tr G - sum G / K) / (K - 1), the trace of the unbiased covariance, which is 0 for equal outputs even
    where rounding leaves |e| != 1, and never below.
    Source: D_SBERT of Karouzos, Tan and Aletras (2026, arXiv 2604.16027), appendix B; Tevet and Berant (2021).

    >>> pairwise_distance(gram([[1.0, 0.0], [0.0, 1.0]]))
    1.0
    """
    g = np.asarray(cosines, dtype=np.float64)
    k = g.shape[-1]
    if k < 2:
        return _scalar(np.full(g.shape[:-2], np.nan))
    return _scalar(np.maximum(0.0, (np.einsum("...ii->...", g) - g.sum(axis=(-2, -1)) / k) / (k - 1)))


def vendi(cosines: Any, q: float = 1.0) -> Any:
    """Vendi score of order q: the effective number of different outputs.

    exp(H_q(lambda)), lambda the eigenvalues of G / K, G the matrix of cosines. q = 1: exp(-sum lambda log lambda);
    q = inf: 1 / max lambda; else (sum lambda^q)^(1 / (1 - q)).
    cosines: [..., K, K] from `gram`. Returns [...] (a float for one set), in [1, K]; NaN for K = 0.
    Bias: it grows with K at an unchanged distribution (at a mean distance of 0.32 from 2.3 at K = 4 to 5.3 at K = 32):
    compare only at equal K, or use `rarefied_vendi`. q >= 2 is steadier.
    Source: Friedman and Dieng (2023, TMLR); orders: Pasarkar and Dieng (2024).

    >>> round(vendi(gram([[1.0, 0.0], [0.0, 1.0]])), 6), round(vendi(gram([[1.0, 0.0], [1.0, 0.0]])), 6)
    (2.0, 1.0)
    """
    g = np.asarray(cosines, dtype=np.float64)
    k = g.shape[-1]
    if k == 0:
        return _scalar(np.full(g.shape[:-2], np.nan))
    if q == 2:  # sum lambda^2 = |G / K|_F^2: no eigenvalues needed
        return _scalar(k * k / np.einsum("...ij,...ij->...", g, g))
    return vendi_of_spectrum(np.linalg.eigvalsh(g / k), q)


def vendi_of_spectrum(eigenvalues: Any, q: float = 1.0) -> Any:
    """exp of the Renyi entropy of order q of eigenvalues [..., K] that sum to 1; tiny negative ones count as zero."""
    p = np.asarray(eigenvalues, dtype=np.float64)
    p = np.where(p > 1e-12, p, 0.0)
    p = p / p.sum(axis=-1, keepdims=True)
    if q == 1:
        return _scalar(np.exp(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)))
    if np.isinf(q):
        return _scalar(1.0 / p.max(axis=-1))
    if q == 0:  # the rank; what single-precision embeddings leave as noise does not count
        return _scalar((p > 1e-6).sum(axis=-1).astype(float))
    return _scalar((p**q).sum(axis=-1) ** (1.0 / (1.0 - q)))


def rarefied_vendi(cosines: Any, m: int, q: float = 1.0, draws: int = 64, seed: int = 0) -> Any:
    """Expected Vendi score of m of the K outputs, which makes sets of different K comparable.

    The mean over all subsets of size m if there are at most `draws` of them, otherwise over `draws` seeded ones.
    cosines: [..., K, K] from `gram`. Returns [...], in [1, m]; NaN for K < m. Its expectation does not depend on
    K >= m. At m = K it is `vendi`. Source: rarefaction, Hurlbert (1971); Chao et al. (2014).

    >>> round(rarefied_vendi(gram([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), m=2), 6)
    1.666667
    """
    g = np.asarray(cosines, dtype=np.float64)
    k = g.shape[-1]
    if m < 1 or k < m:
        return _scalar(np.full(g.shape[:-2], np.nan))
    subsets = draw_subsets(k, m, draws, seed)
    inside = g[..., subsets[:, :, None], subsets[:, None, :]]  # [..., draws, m, m]
    return _scalar(np.mean(vendi(inside, q), axis=-1))


def pair_statistics(cosines: Any, correct: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of outputs by correctness: their number and mean distance, all that the split of a change needs.

    cosines: [K, K]; correct: [K] flags. Returns (counts [3], distances [3], NaN if there is no pair), in the order
    correct-correct, correct-wrong, wrong-wrong.

    >>> counts, distances = pair_statistics([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], [True, True, False])
    >>> counts.tolist(), distances.tolist()
    ([1, 2, 0], [0.5, 1.0, nan])
    """
    g = np.asarray(cosines, dtype=np.float64)
    # |e_i - e_j|^2 / 2 is the cosine distance of unit vectors, and stays 0 for equal ones when rounding leaves |e| !=
    # 1.
    distance = (np.diag(g)[:, None] + np.diag(g)[None, :]) / 2 - g
    flags = np.asarray(correct, dtype=bool)
    i, j = np.triu_indices(len(flags), k=1)
    group = 2 - flags[i].astype(int) - flags[j].astype(int)
    counts = np.bincount(group, minlength=3)
    sums = np.bincount(group, weights=distance[i, j], minlength=3)
    return counts, np.divide(sums, counts, out=np.full(3, np.nan), where=counts > 0)


def across_input_values(centres: Any) -> np.ndarray:
    """Across-input diversity, one value per prompt: their mean is the mean distance between outputs of different prompts.

    centres: [N, d], the mean embedding of each prompt's outputs (NaN rows: missing), or one output's embedding each.
    The distance of two prompts is 1 - c_i.c_j, the mean over their pairs of outputs; higher = outputs depend more on
    the prompt. The values are jackknife pseudo-values, n D - (n - 1) D without prompt i, so a bootstrap of their
    mean has the spread of the pairwise mean (the plain per-prompt distances would halve it). Unbiased in K and N; NaN
    for fewer than two prompts.
    Source: across-input diversity of Kirk et al. (2024) and of the paper's code; pseudo-values: Efron and Stein (1981).

    >>> across_input_values([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).mean().round(6).item()
    0.666667
    """
    c = np.asarray(centres, dtype=np.float64)
    values = np.full(len(c), np.nan)
    there = ~np.isnan(c).any(axis=-1)
    c, n = c[there], int(there.sum())
    if n < 2:
        return values
    others = c.sum(axis=0) - c
    mine = 1.0 - np.einsum("nd,nd->n", c, others) / (n - 1)  # mean distance of prompt i to the others
    total = mine.mean()
    values[there] = total if n == 2 else n * total - (n * total - 2 * mine) * (n - 1) / (n - 2)
    return values


def _scalar(values: Any) -> Any:
    """A float for one set, an array for a batch."""
    return float(values) if np.ndim(values) == 0 else values
