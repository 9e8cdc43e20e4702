"""One token per row from its logits, by temperature and nucleus, with the row's own random numbers.

A token is drawn by an exponential race, which is the Gumbel-max trick without logarithms: each token gets a random number
from the exponential distribution, and the largest ratio of probability to number wins. Token i wins with its probability.
Two models that are close mostly draw the same token from the same numbers: no way of drawing that sees one model at a
time makes them differ less often in the worst case (Bavarian et al. 2016, "The optimality of correlated sampling").

A race over 100,000 tokens needs as many random numbers. So there are two: one between blocks of tokens with their total
probabilities, one between the tokens of the winning block.
"""

from __future__ import annotations

import math
from typing import Any

from divwatch.sampling.noise import exponentials

# Races a token may use. With top-p 0.95 one in 20 is run again, so that six in a million need the sorted way.
TRIES = 4
# Tokens of a block. Of these sizes the numbers for a row are few, 1,600 for a vocabulary of 100,000.
BLOCK = 64
# Rows are drawn in parts whose probabilities take so much: at 64 rows or 640, the draw needs the same memory. On a CPU in parts
# that stay in its cache and that the allocator keeps.
CHUNK_BYTES, CPU_CHUNK_BYTES = 128 * 2**20, 2 * 2**20


def draw(logits: Any, seeds: Any, temperature: float, top_p: float) -> Any:
    """Token ids [n] drawn from `logits` [n, vocabulary] with `seeds` [n, 2], as `token_seeds` gives them.

    The law is that of transformers' TemperatureLogitsWarper and TopPLogitsWarper: a token stays when those more
    probable than it have less than `top_p` together (of equally probable ones at the edge all stay). It is drawn by
    rejection, without sorting the vocabulary: a draw from the whole distribution is kept if it is in the nucleus.
    Raises RuntimeError where a row's logits are not finite.
    """
    import torch

    size = rows_at_once(logits)
    if len(logits) > size:
        parts = zip(logits.split(size), seeds.split(size), strict=True)
        return torch.cat([draw(part, numbers, temperature, top_p) for part, numbers in parts])
    probabilities = _probabilities(logits, temperature)
    tokens, finite = _race(probabilities, seeds, 0)
    check_finite(bool(finite.all()))
    if top_p >= 1:
        return tokens
    left = _outside(probabilities, tokens, top_p).nonzero()[:, 0]
    for attempt in range(1, TRIES + 1):
        if not len(left):
            break
        last = attempt == TRIES
        rest = _nucleus(probabilities[left], top_p) if last else probabilities[left]
        tokens[left], _ = _race(rest, seeds[left], attempt)
        left = left[:0] if last else left[_outside(rest, tokens[left], top_p)]
    return tokens


def draw_without_sync(logits: Any, seeds: Any, temperature: float, top_p: float) -> tuple[Any, Any, Any]:
    """The same draw without waiting for the device, so that a CUDA graph can hold it.

    Takes what `draw` takes. Returns (tokens [n], open [n] bool, finite [] bool). A row that is open has no token yet:
    pass it to `draw`. Where the logits are not finite the tokens mean nothing.

    The first try is checked for all rows. The later ones are checked for the rows that need them, of which a fixed
    number has room: six standard deviations more than the largest share of draws that can lie outside.
    """
    import torch

    tokens, open_, finite = _first_tries(logits, seeds, temperature, top_p)
    if top_p >= 1:
        return tokens, open_, finite
    count = len(logits)
    room = min(count, int(count * (1 - top_p) + 6 * math.sqrt(count * top_p * (1 - top_p))) + 4)
    rows = open_.float().topk(room).indices
    for part in rows.split(rows_at_once(logits)):
        probabilities = _probabilities(logits[part], temperature)
        drawn, left = tokens[part], open_[part]
        for attempt in range(1, TRIES):
            drawn = torch.where(left, _race(probabilities, seeds[part], attempt)[0], drawn)
            left = left & _outside(probabilities, drawn, top_p)
        tokens.index_copy_(0, part, drawn)
        open_.index_copy_(0, part, left)
    return tokens, open_, finite


def _first_tries(logits: Any, seeds: Any, temperature: float, top_p: float) -> tuple[Any, Any, Any]:
    """Tokens [n] of the first try, whether each is outside the nucleus [n], and whether all logits are finite []."""
    import torch

    size = rows_at_once(logits)
    tokens, outside, finite = [], [], []
    for part, numbers in zip(logits.split(size), seeds.split(size), strict=True):
        probabilities = _probabilities(part, temperature)
        first, sound = _race(probabilities, numbers, 0)
        tokens.append(first)
        outside.append(_outside(probabilities, first, top_p) if top_p < 1 else torch.zeros_like(sound))
        finite.append(sound)
    return torch.cat(tokens), torch.cat(outside), torch.cat(finite).all()


def _probabilities(logits: Any, temperature: float) -> Any:
    return (logits.float() / temperature).softmax(-1)


def _race(probabilities: Any, seeds: Any, attempt: int) -> tuple[Any, Any]:
    """A token [n] for each row of `probabilities` [n, vocabulary], which need not add up to 1; whether a row is finite [n].

    The numbers of another attempt are independent of those of this one.
    """
    import torch

    vocabulary = probabilities.shape[-1]
    whole = vocabulary // BLOCK * BLOCK
    blocks = probabilities[:, :whole].unflatten(-1, (-1, BLOCK)).sum(-1)
    if whole < vocabulary:
        blocks = torch.cat([blocks, probabilities[:, whole:].sum(-1, keepdim=True)], -1)
    numbers = exponentials(seeds, attempt, BLOCK + blocks.shape[-1])
    block = (blocks / numbers[:, BLOCK:]).argmax(-1, keepdim=True)
    inside = block * BLOCK + torch.arange(BLOCK, device=seeds.device)
    chances = probabilities.gather(-1, inside.clamp(max=vocabulary - 1))
    if whole < vocabulary:  # the last block is short
        chances = chances.masked_fill(inside >= vocabulary, 0.0)
    place = (chances / numbers[:, :BLOCK]).argmax(-1, keepdim=True)
    return inside.gather(-1, place)[:, 0], blocks.sum(-1).isfinite()


def _outside(probabilities: Any, tokens: Any, top_p: float) -> Any:
    """Whether each token [n] is outside the nucleus of its row of probabilities [n, vocabulary]."""
    likelier = probabilities > probabilities.gather(-1, tokens[:, None])
    return (probabilities * likelier).sum(-1) >= top_p


def _nucleus(probabilities: Any, top_p: float) -> Any:
    """Probabilities [n, vocabulary] with 0 outside the nucleus, by sorting."""
    values = probabilities.sort(-1, descending=True).values
    least = values.masked_fill(values.cumsum(-1) - values >= top_p, 2.0).amin(-1, keepdim=True)
    return probabilities.masked_fill(probabilities < least, 0.0)


def rows_at_once(logits: Any) -> int:
    """Rows whose fp32 probabilities take a chunk: the draw needs some copies of them."""
    chunk = CPU_CHUNK_BYTES if logits.device.type == "cpu" else CHUNK_BYTES
    return max(1, chunk // (4 * logits.shape[-1]))


def check_finite(finite: bool) -> None:
    """Raises RuntimeError, in words that a user understands, where logits are not finite."""
    if not finite:
        raise RuntimeError("the model's logits are not finite (NaN or infinity): training has diverged")
