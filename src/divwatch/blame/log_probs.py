"""Log-probability of completions under the distribution that a look samples from, and one weighted backward pass.

A look draws from softmax(logits / T), cut to the nucleus of mass top-p and renormalised. Here log p is that
distribution's, with the nucleus of each token held fixed: exact wherever a small step moves no token over the nucleus' edge.
What is lost is the change of diversity that comes from tokens which enter or leave the nucleus. Only tokens that the
look sampled are read, so reasoning that is stripped before the distance is taken still carries gradient, as it should.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from divwatch.blame.derivative import gradient_of_sum

# Tokens of a batch, padding included: the logits of a batch are kept for the backward pass.
CPU_TOKENS, GPU_TOKENS = 4096, 16384


class Sampled(NamedTuple):
    """One sampled completion as tokens: those of its prompt, and those that followed, the end token included.

    forced: range in `completion` of the tokens that were written, not sampled, because they close a thought.
    """

    prompt: list[int]
    completion: list[int]
    forced: tuple[int, int] = (0, 0)


def log_probs(model: Any, batch: Sequence[Sampled], temperature: float, top_p: float, pad: int, device: Any) -> Any:
    """log p [n] of each completion given its prompt, in nats, under nucleus sampling at this temperature."""
    import torch

    longest = max(len(s.prompt) + len(s.completion) for s in batch)
    ids = torch.full((len(batch), longest), pad, dtype=torch.long)
    read = torch.zeros((len(batch), longest), dtype=torch.long)
    scored = torch.zeros((len(batch), longest), dtype=torch.bool)
    for row, s in enumerate(batch):
        end = len(s.prompt) + len(s.completion)
        ids[row, :end] = torch.tensor(s.prompt + s.completion)
        read[row, :end] = 1
        scored[row, len(s.prompt) : end] = True
        scored[row, len(s.prompt) + s.forced[0] : len(s.prompt) + s.forced[1]] = False
    ids, read, scored = ids.to(device), read.to(device), scored.to(device)[:, 1:]
    logits = model(input_ids=ids, attention_mask=read, use_cache=False).logits[:, :-1]
    of_tokens = token_log_probs(logits[scored], ids[:, 1:][scored], temperature, top_p)
    rows = scored.nonzero()[:, 0]
    return torch.zeros(len(batch), device=device).index_add(0, rows, of_tokens)


def token_log_probs(logits: Any, tokens: Any, temperature: float, top_p: float) -> Any:
    """log p [n] of `tokens` [n] under softmax(`logits` [n, vocabulary] / T) cut to its nucleus.

    >>> import torch
    >>> token_log_probs(torch.tensor([[0.0, 0.0, -9.0]]), torch.tensor([1]), 1.0, 0.9).exp().round(decimals=3).tolist()
    [0.5]
    """
    import torch

    scaled = logits.float() / temperature
    if top_p < 1:
        with torch.no_grad():
            probabilities = scaled.softmax(-1)
            values = probabilities.sort(-1, descending=True).values
            least = values.masked_fill(values.cumsum(-1) - values >= top_p, 2.0).amin(-1, keepdim=True)
            outside = (probabilities < least).scatter(-1, tokens[:, None], False)
        scaled = scaled.masked_fill(outside, float("-inf"))
    return scaled.gather(-1, tokens[:, None])[:, 0] - scaled.logsumexp(-1)


def in_batches(sampled: Sequence[Sampled], device: Any) -> Iterator[list[int]]:
    """Places in `sampled`, in batches of like length that fit the token limit."""
    limit = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
    lengths = [len(s.prompt) + len(s.completion) for s in sampled]
    batch: list[int] = []
    for i in sorted(range(len(sampled)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > limit:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def weighted_gradient(
    model: Any, parameters: Sequence[Any], sampled: Sequence[Sampled], weights: Sequence[float], *how: Any
) -> list[Any]:
    """sum_k weights[k] grad log p(completion k): a tensor for each parameter. `.grad` fields are left alone.

    With `completion_weights` x a prompt's share this is the gradient of the mean pairwise distance. how: as for
    `weighted_sums`.
    """
    return gradient_of_sum(weighted_sums(model, sampled, weights, *how), parameters)


def weighted_sums(
    model: Any,
    sampled: Sequence[Sampled],
    weights: Sequence[float],
    temperature: float,
    top_p: float,
    pad: int,
    device: Any,
) -> Iterator[Any]:
    """sum_k weights[k] log p(completion k) in parts, a scalar of each batch, ready for a backward pass."""
    import torch

    used = [i for i, w in enumerate(weights) if w != 0]
    chosen = [sampled[i] for i in used]
    for batch in in_batches(chosen, device):
        w = torch.tensor([weights[used[i]] for i in batch], dtype=torch.float32, device=device)
        yield (w * log_probs(model, [chosen[i] for i in batch], temperature, top_p, pad, device)).sum()


def all_log_probs(
    model: Any, sampled: Sequence[Sampled], temperature: float, top_p: float, pad: int, device: Any
) -> Any:
    """log p [n] of every completion, without gradients, as a float64 array."""
    import numpy as np
    import torch

    values = np.zeros(len(sampled))
    with torch.no_grad():
        for batch in in_batches(sampled, device):
            part = log_probs(model, [sampled[i] for i in batch], temperature, top_p, pad, device)
            values[batch] = part.double().cpu().numpy()
    return values
