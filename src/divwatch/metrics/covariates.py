"""What a look knows besides diversity: length and entropy of the answers, and whether RL would learn from the prompts.

Covariates help to read a curve. No alarm and no verdict follows from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import hypergeom

from divwatch.records import Completion, PromptSamples

# Completions of a prompt that are compared with one another in a step of GRPO.
GROUP_SIZES = (4, 8, 16)


def covariate_values(samples: Sequence[PromptSamples], completions: Sequence[Completion]) -> dict[str, np.ndarray]:
    """The `covariates/*` keys, one value for each prompt of `samples`; NaN where it is not known.

    tokens:            mean tokens of a completion.
    entropy:           mean over the prompt's tokens of the entropy of the model's own distribution (temperature 1), in
                       nats. It is measured on sampled tokens: lower the sampling temperature, and it falls.
    branching_factor:  e to the entropy: among how many equally likely tokens the model chooses.
    learning_signal_g: for each g of GROUP_SIZES up to K: see `learning_signal`.
    """
    k = min((len(s.outputs) for s in samples), default=0)
    by_prompt: dict[str, list[Completion]] = {s.id: [] for s in samples}
    for completion in completions:
        by_prompt[completion.prompt_id].append(completion)
    own = [by_prompt[s.id] for s in samples]
    entropy = np.array([_mean_entropy(c) for c in own])
    values = {
        "tokens": np.array([_mean_tokens(c) for c in own]),
        "entropy": entropy,
        "branching_factor": np.exp(entropy),
    }
    for size in GROUP_SIZES:
        if size <= k and any(s.correct is not None for s in samples):
            values[f"learning_signal_{size}"] = np.array([_signal(s, size) for s in samples])
    return {f"covariates/{name}": column for name, column in values.items()}


def _mean_tokens(completions: Sequence[Completion]) -> float:
    """NaN for completions of another tool, whose tokens nobody has counted."""
    mean = float(np.mean([c.tokens for c in completions]))
    return mean if mean else float("nan")


def learning_signal(correct: Sequence[bool], size: int) -> float:
    """Chance that a group of `size` completions has both right and wrong ones, so that GRPO learns from it.

    With c of K completions correct it is 1 - C(c, size) / C(K, size) - C(K - c, size) / C(K, size): the unbiased estimate
    of 1 - p^size - (1 - p)^size. NaN for a size above K.

    >>> learning_signal([True, False], 2), learning_signal([True] * 4, 2)
    (1.0, 0.0)
    """
    k, c = len(correct), int(np.sum(correct))
    if not 1 <= size <= k:
        return float("nan")
    # Among `size` completions drawn from the K, all or none are correct.
    same = hypergeom.pmf(size, k, c, size) + hypergeom.pmf(0, k, c, size)
    return float(np.clip(1.0 - same, 0.0, 1.0))


def _signal(sample: PromptSamples, size: int) -> float:
    if sample.correct is None:
        return float("nan")
    return learning_signal([c and u for c, u in zip(sample.correct, sample.usable, strict=True)], size)


def _mean_entropy(completions: Sequence[Completion]) -> float:
    known = [(c.entropy, c.tokens) for c in completions if c.entropy is not None and c.tokens]
    entropies, tokens = zip(*known, strict=True) if known else ((), ())
    return float(np.average(entropies, weights=tokens)) if known else float("nan")
