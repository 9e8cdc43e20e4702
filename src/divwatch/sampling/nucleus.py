"""One token per row from its logits, by temperature and nucleus, with the row's own random numbers.

Each row draws from its own stream of random numbers, keyed by seed, prompt and sample. Its tokens
depend neither on the batch it is in nor on the rank that holds it. It neither reads nor changes the random state of training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

# Numbers a token may use. With top-p 0.95 one in 20 draws is made again, so that six in a million need the sorted way.
TRIES = 4
# Rows are drawn in parts whose probabilities take so much: at 64 rows or 640, the draw needs the same memory.
CHUNK_BYTES = 128 * 2**20


def uniforms(seed: int, rows: Sequence[tuple[str, int]], count: int) -> np.ndarray:
    """[len(rows), count, TRIES] float32 in [0, 1): one stream per row, a row being (prompt id, sample).

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
    rejection, without sorting the vocabulary: a draw from the whole distribution is kept if it is in the nucleus.
    Raises RuntimeError where a row's logits are not finite.
    """
    import torch

    size = _rows_at_once(logits)
    if len(logits) > size:
        parts = zip(logits.split(size), uniform.split(size), strict=True)
        return torch.cat([draw(part, numbers, temperature, top_p) for part, numbers in parts])
    probabilities, tokens, finite = _tries(logits, uniform, temperature)
    if top_p >= 1:
        check_finite(bool(finite.all()))
        return tokens[:, 0]
    drawn, left = tokens[:, 0].clone(), torch.arange(len(logits), device=logits.device)
    for attempt in range(tokens.shape[1]):
        outside = _outside(probabilities[left], tokens[left, attempt], top_p)
        drawn[left] = tokens[left, attempt]
        # One wait for the device: is anything left to draw, and was all finite?
        check_finite(attempt > 0 or bool(finite.all()))
        left = left[outside]
        if not len(left):
            return drawn
    drawn[left] = _sorted_draw(probabilities[left], uniform[left, 0], top_p)
    return drawn


def draw_without_sync(logits: Any, uniform: Any, temperature: float, top_p: float) -> tuple[Any, Any, Any]:
    """The same draw without waiting for the device, so that a CUDA graph can hold it.

    Takes what `draw` takes. Returns (tokens [n], open [n] bool, finite [] bool). A row that is open has no token yet:
    pass it to `draw`. Where the logits are not finite the tokens mean nothing.

    The first try is checked for all rows. The later ones are checked for the rows that need them, of which a fixed
    number has room: six standard deviations more than the largest share of draws that can lie outside.
    """
    import torch

    tokens, open_, finite = _first_tries(logits, uniform, temperature, top_p)
    if top_p >= 1:
        return tokens, open_, finite
    count = len(logits)
    room = min(count, int(count * (1 - top_p) + 6 * math.sqrt(count * top_p * (1 - top_p))) + 4)
    rows = open_.float().topk(room).indices
    for part in rows.split(_rows_at_once(logits)):
        probabilities, tries, _ = _tries(logits[part], uniform[part], temperature)
        drawn, left = tokens[part], open_[part]
        for attempt in range(1, tries.shape[1]):
            drawn = torch.where(left, tries[:, attempt], drawn)
            left = left & _outside(probabilities, tries[:, attempt], top_p)
        tokens.index_copy_(0, part, drawn)
        open_.index_copy_(0, part, left)
    return tokens, open_, finite


def _first_tries(logits: Any, uniform: Any, temperature: float, top_p: float) -> tuple[Any, Any, Any]:
    """Tokens [n] of the first try, whether each is outside the nucleus [n], and whether all logits are finite []."""
    import torch

    size = _rows_at_once(logits)
    tokens, outside, finite = [], [], []
    for part, numbers in zip(logits.split(size), uniform.split(size), strict=True):
        probabilities, tries, sound = _tries(part, numbers, temperature)
        first = tries[:, 0]
        tokens.append(first)
        outside.append(_outside(probabilities, first, top_p) if top_p < 1 else torch.zeros_like(sound))
        finite.append(sound)
    return torch.cat(tokens), torch.cat(outside), torch.cat(finite).all()


def _tries(logits: Any, uniform: Any, temperature: float) -> tuple[Any, Any, Any]:
    """Probabilities [n, vocabulary], a token for each uniform number [n, TRIES], and whether a row is finite [n]."""
    import torch

    probabilities = (logits.float() / temperature).softmax(-1)
    steps = probabilities.cumsum(-1)
    total = steps[:, -1:]
    # A product rounded up to the whole mass would fall behind the last token that has any.
    below = torch.minimum(uniform * total, total * (1 - 2**-23))
    tokens = torch.searchsorted(steps, below, right=True).clamp(max=logits.shape[-1] - 1)
    return probabilities, tokens, total.isfinite()[:, 0]


def _outside(probabilities: Any, tokens: Any, top_p: float) -> Any:
    """Whether each token [n] is outside the nucleus of its row of probabilities [n, vocabulary]."""
    likelier = probabilities > probabilities.gather(-1, tokens[:, None])
    return (probabilities * likelier).sum(-1) >= top_p


def _rows_at_once(logits: Any) -> int:
    """Rows whose fp32 probabilities take CHUNK_BYTES: the draw needs some copies of them."""
    return max(1, CHUNK_BYTES // (4 * logits.shape[-1]))


def _sorted_draw(probabilities: Any, uniform: Any, top_p: float) -> Any:
    """The same law by sorting, for rows that no try has served."""
    import torch

    values, tokens = probabilities.sort(-1, descending=True)
    values = values.masked_fill(values.cumsum(-1) - values >= top_p, 0.0)
    steps = values.cumsum(-1)
    place = torch.searchsorted(steps, uniform[:, None] * steps[:, -1:], right=True)
    return tokens.gather(-1, torch.minimum(place, (values > 0).sum(-1, keepdim=True) - 1))[:, 0]


def check_finite(finite: bool) -> None:
    """Raises RuntimeError, in words that a user understands, where logits are not finite."""
    if not finite:
        raise RuntimeError("the model's logits are not finite (NaN or infinity): training has diverged")
