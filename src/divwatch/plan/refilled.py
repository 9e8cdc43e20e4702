"""The batches of a look whose completions differ in length: the queue that refills batches (`sampling/refill.py`), run on
lengths instead of tokens.

Lengths are taken to be exponentially distributed, cut at the limit. The look before had the same, so that the first batch
too reserves room for the lengths that occur.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from divwatch.sampling.decoding import Decoding
from divwatch.sampling.entropy import DecodedTokens
from divwatch.sampling.plan import Row
from divwatch.sampling.refill import Queue
from divwatch.sampling.request import Request

TOKEN, STOP = 1, 0


class Stretch(NamedTuple):
    """What a batch decodes.

    rows:    rows at its start.
    steps:   decode steps.
    running: mean share of the rows that still run.
    written: mean tokens of a running row that its completion had before.
    stored:  tokens that the batch reserves memory for.
    """

    rows: int
    steps: int
    running: float
    written: float
    stored: int


def refilled(
    rows: int, samples: int, prompt_tokens: int, limit: int, mean: float, tokens: int, row_tokens: int, on_gpu: bool
) -> list[Stretch]:
    """The batches of a rank with `rows` rows, `samples` of each prompt, whose completions have `mean` tokens on average.

    tokens: how many fit into its memory. row_tokens: what a row stores besides, counted in tokens. on_gpu: whether a
    prompt is stored once for all its samples.
    """
    import torch

    prompts = -(-rows // samples)
    how = Decoding(1.0, 1.0, [STOP], limit)
    device = torch.device("cuda" if on_gpu else "cpu")
    lengths = dict(zip((Row(i // samples, i % samples) for i in range(rows)), _lengths(rows, limit, mean), strict=True))
    request = Request(
        None, (), [[TOKEN] * prompt_tokens] * prompts, [False] * prompts, [limit] * prompts, [()] * prompts, how, 0, device,
        expected=list(lengths.values()),
    )  # fmt: skip
    queue = Queue(request, list(lengths), row_tokens, shared=on_gpu, padded=True, refill=True)
    stretches = []
    while queue:
        batch = queue.next_batch(tokens)
        before = np.array([len(batch.made(row)) for row in batch])
        left = np.array([lengths[row] for row in batch]) - before
        last = np.sort(left)[len(batch) - batch.spare - 1]  # then no more than `spare` rows run
        steps = int(min(last, batch.steps))
        new = np.minimum(left, steps)
        stretches.append(
            Stretch(len(batch), steps, float(new.mean() / steps), float((new * before).sum() / new.sum()), batch.tokens)
        )
        queue.accept(
            batch, [_tokens(n, n == lengths[row]) for n, row in zip((before + new).tolist(), batch, strict=True)]
        )
    return stretches


def _lengths(rows: int, limit: int, mean: float) -> list[int]:
    """[rows] whole quantiles of an exponential distribution that is cut at `limit` and then has this mean, in random order."""
    if mean >= 0.98 * limit:
        return [limit] * rows
    scale = brentq(lambda s: s * -np.expm1(-limit / s) - mean, mean / 2, 100 * limit)
    quantiles = -scale * np.log1p(-(np.arange(rows) + 0.5) / rows)
    whole = np.clip(np.rint(quantiles), 1, limit).astype(int)
    return list(np.random.default_rng(0).permutation(whole).tolist())


@lru_cache(maxsize=4096)
def _tokens(count: int, ended: bool) -> DecodedTokens:
    return DecodedTokens([TOKEN] * (count - 1) + [STOP if ended else TOKEN], 0.0)
