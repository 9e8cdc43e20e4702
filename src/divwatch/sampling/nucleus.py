"""One token a row from its logits, by temperature and nucleus, with the row's own random numbers.

A row's randomness is a stream of its own, keyed by seed, prompt and sample. So what is drawn depends neither on the
batch a row shares nor on the rank that holds it, and no random state of the training run is read or moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

# A nucleus is rarely wider; where it is, the whole vocabulary is sorted.
HEAD = 256


def uniforms(seed: int, rows: Sequence[tuple[str, int]], count: int) -> np.ndarray:
    """[len(rows), count] float32 in [0, 1): a stream a row, a row being (prompt id, sample).

    >>> one, both = uniforms(3, [("a", 1)], 2), uniforms(3, [("a", 0), ("a", 1)], 2)
    >>> bool((one[0] == both[1]).all()), bool((both[0] == both[1]).all())
    (True, False)
    """
    streams = np.empty((len(rows), count), dtype=np.float32)
    for stream, (prompt, sample) in zip(streams, rows, strict=True):
        key = blake2b(f"{seed}/{sample}/{prompt}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).random(dtype=np.float32, out=stream)
    return streams


def draw(logits: Any, uniform: Any, temperature: float, top_p: float) -> Any:
    """Token ids [n] drawn from `logits` [n, vocabulary] with one uniform number [n] each.

    The law is that of transformers' TemperatureLogitsWarper and TopPLogitsWarper: a token stays when those more
    probable than it have less than `top_p` together. Raises RuntimeError where a row's logits are not finite.
    """
    import torch

    logits = logits.float() / temperature
    total = logits.logsumexp(-1, keepdim=True)
    wide = top_p >= 1
    size = logits.shape[-1]
    values, tokens = (logits, None) if wide else logits.topk(min(HEAD, size))
    kept = (values - total).exp()
    if not wide:
        # One wait for the device: is the head wide enough, and is all finite?
        short, finite = torch.stack([(kept.sum(-1) < top_p).any(), total.isfinite().all()]).tolist()
        _check(finite)
        if short and size > HEAD:
            values, tokens = logits.sort(-1, descending=True)
            kept = (values - total).exp()
        before = kept.cumsum(-1) - kept
        kept = kept.masked_fill(before >= top_p, 0.0)
    else:
        _check(total.isfinite().all())
    steps = kept.cumsum(-1)
    place = torch.searchsorted(steps, uniform[:, None] * steps[:, -1:], right=True)
    # A product rounded up to the whole mass would fall behind the last kept token.
    last = size - 1 - kept.flip(-1).gt(0).float().argmax(-1, keepdim=True) if wide else (kept > 0).sum(-1, True) - 1
    place = torch.minimum(place, last)
    return place[:, 0] if tokens is None else tokens.gather(-1, place)[:, 0]


def _check(finite: Any) -> None:
    if not finite:
        raise RuntimeError("the model's logits are not finite (NaN or infinity): training has diverged")
