"""One token a row from its logits, by temperature and nucleus, with the row's own random numbers.

A row's randomness is a stream of its own, keyed by seed, prompt and sample. So what is drawn depends neither on the
batch a row shares nor on the rank that holds it, and no random state of the training run is read or moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

# Numbers a token may use. With top-p 0.95 one in 20 draws is made again, so that six in a million need the sorted way.
TRIES = 4


def uniforms(seed: int, rows: Sequence[tuple[str, int]], count: int) -> np.ndarray:
    """[len(rows), count, TRIES] float32 in [0, 1): a stream a row, a row being (prompt id, sample).

    >>> one, both = uniforms(3, [("a", 1)], 2), uniforms(3, [("a", 0), ("a", 1)], 2)
    >>> bool((one[0] == both[1]).all()), bool((both[0] == both[1]).all())
    (True, False)
    """
    streams = np.empty((len(rows), count, TRIES), dtype=np.float32)
    for stream, (prompt, sample) in zip(streams, rows, strict=True):
        key = blake2b(f"{seed}/{sample}/{prompt}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).random(dtype=np.float32, out=stream)
    return streams


def draw(logits: Any, uniform: Any, temperature: float, top_p: float) -> Any:
    """Token ids [n] drawn from `logits` [n, vocabulary] with TRIES uniform numbers [n, TRIES].

    The law is that of transformers' TemperatureLogitsWarper and TopPLogitsWarper: a token stays when those more
    probable than it have less than `top_p` together (of equally probable ones at the edge all stay). It is drawn by
    rejection, without sorting the vocabulary: a draw from the whole distribution is kept if it lies in the nucleus.
    Raises RuntimeError where a row's logits are not finite.
    """
    import torch

    probabilities = (logits.float() / temperature).softmax(-1)
    steps = probabilities.cumsum(-1)
    total = steps[:, -1:]
    # A product rounded up to the whole mass would fall behind the last token that has any.
    below = torch.minimum(uniform * total, total * (1 - 2**-23))
    tokens = torch.searchsorted(steps, below, right=True).clamp(max=logits.shape[-1] - 1)
    if top_p >= 1:
        _check(bool(total.isfinite().all()))
        return tokens[:, 0]
    drawn, left = tokens[:, 0].clone(), torch.arange(len(logits), device=logits.device)
    for attempt in range(tokens.shape[1]):
        held = probabilities[left]
        likelier = held > held.gather(-1, tokens[left, attempt : attempt + 1])
        outside = (held * likelier).sum(-1) >= top_p
        drawn[left] = tokens[left, attempt]
        # One wait for the device: is anything left to draw, and was all finite?
        _check(attempt > 0 or bool(total.isfinite().all()))
        left = left[outside]
        if not len(left):
            return drawn
    drawn[left] = _sorted_draw(probabilities[left], uniform[left, 0], top_p)
    return drawn


def _sorted_draw(probabilities: Any, uniform: Any, top_p: float) -> Any:
    """The same law by sorting, for rows that no try has served."""
    import torch

    values, tokens = probabilities.sort(-1, descending=True)
    values = values.masked_fill(values.cumsum(-1) - values >= top_p, 0.0)
    steps = values.cumsum(-1)
    place = torch.searchsorted(steps, uniform[:, None] * steps[:, -1:], right=True)
    return tokens.gather(-1, torch.minimum(place, (values > 0).sum(-1, keepdim=True) - 1))[:, 0]


def _check(finite: bool) -> None:
    if not finite:
        raise RuntimeError("the model's logits are not finite (NaN or infinity): training has diverged")
