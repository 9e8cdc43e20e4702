"""The random numbers of a look: a seed for each token to be drawn, and the exponential numbers that it gives.

Each row draws from a stream of its own, keyed by seed, prompt and sample. It depends neither on the batch that the row
is in, nor on rank, device or model, and drawing neither reads nor changes the random state of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

# Counters of one attempt: more than any draw needs numbers.
ATTEMPT = 2**24
# Multipliers of the integer hash "lowbias32" (C. Wellons, hash-prospector): every input bit changes every output bit in
# about half of the cases.
MULTIPLIERS = (0x21F0AAAD, 0xD35A2D97)
# Numbers of 31 bits become numbers below 1, in fp32 too.
SCALE = 2**-31 * (1 - 2**-24)


def token_seeds(seed: int, rows: Sequence[tuple[str, int]], count: int) -> np.ndarray:
    """[len(rows), count, 2] int32: one stream per row, a row being (prompt id, sample), and a seed for each token of it.

    >>> one, both = token_seeds(3, [("a", 1)], 2), token_seeds(3, [("a", 0), ("a", 1)], 2)
    >>> bool((one[0] == both[1]).all()), bool((both[0] == both[1]).all())
    (True, False)
    """
    streams = np.empty((len(rows), count, 2), dtype=np.int32)
    for stream, (prompt, sample) in zip(streams, rows, strict=True):
        key = blake2b(f"{seed}/{sample}/{prompt}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        numbers = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(count)
        stream[:] = np.asarray(numbers, dtype="<u8").view("<i4").reshape(count, 2)
    return streams


def exponentials(seeds: Any, attempt: int, count: int) -> Any:
    """[n, count] fp32, above 0: independent numbers from the standard exponential distribution for each of `seeds` [n, 2].

    Number i of an attempt is the same whatever `count` is. The arithmetic is that of integers, the same on every device,
    up to the logarithm; there is no generator and no wait for the device, so that a CUDA graph can hold it.
    """
    import torch

    first = attempt * ATTEMPT
    counters = torch.arange(first, first + count, device=seeds.device)
    for shift, multiplier in zip((16, 15), MULTIPLIERS, strict=True):
        counters = ((counters ^ (counters >> shift)) * multiplier) & 0xFFFFFFFF
    counters = (counters ^ (counters >> 15)).to(torch.int32)
    # A line through the hashed counters, random for each seed, and another round of the hash over it.
    numbers = torch.addcmul(seeds[:, 1:], counters, seeds[:, :1] | 1)
    numbers ^= (numbers >> 15) & 0x1FFFF
    numbers *= MULTIPLIERS[1] - 2**32
    numbers ^= numbers >> 16  # the sign bit becomes 0
    return numbers.float().add_(0.5).mul_(-SCALE).log1p_().neg_()
