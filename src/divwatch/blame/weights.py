"""How much each completion of a look counts in the gradient of diversity.

For one prompt, D = E d(y, y') over pairs of independent samples. By the score-function identity (Williams 1992, REINFORCE),

    grad D = 2 E[(dbar(y) - D) grad log p(y)],   dbar(y) = E d(y, y') over y',

so that with K samples grad D = sum_k w_k grad log p(y_k), w_k = 2 / (K - 2) (dbar_k - mean of dbar). The mean is the
baseline. 2 / (K - 2) in place of 2 / K makes the estimate unbiased: the mean contains sample k itself in 2 / K of its pairs.

Diversity of correct outputs is a ratio of two such means, E[d both correct] / E[both correct]. Its gradient is the same
sum over the correct samples alone, up to a bias of order 1 / (number of correct samples). So it is for usable outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from divwatch.metrics.embedding import gram
from divwatch.metrics.scoring import TextEncoder
from divwatch.records import PromptSamples

Floats = NDArray[np.float64]
FEWEST = 3  # samples: with two the baseline would be the value itself


def completion_weights(distances: Floats, members: Sequence[int]) -> tuple[float, Floats]:
    """(D, w) of one prompt: mean distance of the pairs of `members`, and the weight [K] of each sample in its gradient.

    distances: [K, K], in [0, 2]. members: the samples that count; others have weight 0. The weights add up to 0.
    (NaN, zeros) for fewer than three members.

    >>> completion_weights(np.array([[0.0, 0, 1], [0, 0, 1], [1, 1, 0]]), [0, 1, 2])[1].round(3).tolist()
    [-0.333, -0.333, 0.667]
    """
    weights = np.zeros(len(distances))
    k = len(members)
    if k < FEWEST:
        return float("nan"), weights
    own = distances[np.ix_(members, members)]
    to_others = own.sum(axis=1) / (k - 1)
    mean = float(to_others.mean())
    weights[list(members)] = 2.0 / (k - 2) * (to_others - mean)
    return mean, weights


class PromptDiversity(NamedTuple):
    """One prompt of a look: its mean distance (NaN: fewer than three members), each sample's weight [K] in the gradient of it,
    distances [K, K], and the samples that count.
    """

    value: float
    weights: Floats
    distances: Floats
    members: list[int]


def look_weights(
    samples: Sequence[PromptSamples], encoder: TextEncoder, correct: bool = False
) -> list[PromptDiversity]:
    """Every prompt of a look, over usable outputs, or over correct ones (none for a prompt that cannot be judged)."""
    prompts = []
    texts = [text for s in samples for text in s.outputs]
    embeddings = np.split(encoder.encode(texts), np.cumsum([len(s.outputs) for s in samples])[:-1])
    for sample, rows in zip(samples, embeddings, strict=True):
        flags = sample.correct if correct else sample.usable
        members = [k for k, flag in enumerate(flags or []) if flag and sample.usable[k]]
        g = gram(rows)
        distances = (np.diag(g)[:, None] + np.diag(g)[None, :]) / 2 - g
        prompts.append(PromptDiversity(*completion_weights(distances, members), distances, members))
    return prompts


def sample_influence(prompt: PromptDiversity, slopes: Floats) -> Floats:
    """Influence [K, n] of each sample on sum_k w_k slope_k [n], whose variance is that of its rows divided by K.

    slopes: [K, n], of log p of each sample along n directions. With slopes centred, the sum is twice the covariance of dbar and
    slope; a sample counts in it by its own term and by its distance to the others (Hajek projection of a U-statistic).
    """
    influence = np.zeros_like(slopes)
    mine, k = prompt.members, len(prompt.members)
    if k < FEWEST:
        return influence
    own = prompt.distances[np.ix_(mine, mine)]
    centred = slopes[mine] - slopes[mine].mean(axis=0)
    excess = own.sum(axis=1) / (k - 1) - own.sum() / (k * (k - 1))
    terms = 2 * (excess[:, None] * centred + own @ centred / (k - 1))
    influence[mine] = (terms - terms.mean(axis=0)) * len(slopes) / k
    return influence


def prompt_shares(tasks: Sequence[str], values: Floats) -> Mapping[str, Floats]:
    """task -> share [prompts] of each prompt in that task's mean, and `all`: the equal-weight mean over tasks.

    A prompt whose value is NaN has share 0; a task without values is left out.

    >>> shares = prompt_shares(["a", "a", "b"], np.array([0.1, 0.3, 0.2]))
    >>> {task: share.tolist() for task, share in shares.items()}
    {'a': [0.5, 0.5, 0.0], 'b': [0.0, 0.0, 1.0], 'all': [0.25, 0.25, 0.5]}
    """
    names, there = np.array(tasks), np.isfinite(values)
    shares: dict[str, Floats] = {}
    for task in dict.fromkeys(tasks):
        mine = there & (names == task)
        if mine.any():
            shares[task] = mine / mine.sum()
    if shares:
        shares["all"] = np.mean(list(shares.values()), axis=0)
    return shares
