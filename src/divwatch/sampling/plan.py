"""Which rank samples what, and in which batches: plain arithmetic on prompt lengths, the same on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Row(NamedTuple):
    """One completion to be sampled: the prompt's place in the panel, and which of its K samples."""

    prompt: int
    sample: int


def share_out(lengths: Sequence[int], samples: int, world: int) -> list[list[Row]]:
    """Rows of every rank: as many as of any other, but for one; every row once.

    Long and short prompts are dealt out evenly, and a prompt's samples stay together where they can, since they share
    its prefill; at most two prompts of a rank are split.

    >>> [len(rows) for rows in share_out([5, 9, 7], samples=4, world=2)]
    [6, 6]
    """
    by_length = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    dealt = [i for rank in range(world) for i in by_length[rank::world]]
    rows = [Row(i, k) for i in dealt for k in range(samples)]
    cuts = [len(rows) * rank // world for rank in range(world + 1)]
    return [rows[start:stop] for start, stop in pairwise(cuts)]


def batches(
    rows: Sequence[Row],
    lengths: Sequence[int],
    new_tokens: int,
    tokens: int,
    shared: bool = False,
    padded: bool = True,
) -> list[list[Row]]:
    """Rows in batches of like length, each of at most `tokens` tokens with padding and `new_tokens` to come.

    Longest first: a batch that does not fit shows at once. A row that alone is too large is a batch.

    shared: a prompt's tokens are stored once for all its rows, not once for each. padded: prompts of different lengths
    may share a batch.

    >>> batches([Row(0, 0), Row(1, 0), Row(1, 1)], lengths=[2, 6], new_tokens=4, tokens=20)
    [[Row(prompt=1, sample=0), Row(prompt=1, sample=1)], [Row(prompt=0, sample=0)]]
    >>> len(batches([Row(0, 0), Row(1, 0), Row(1, 1)], lengths=[2, 6], new_tokens=4, tokens=24, shared=True))
    1
    >>> len(batches([Row(0, 0), Row(1, 0)], lengths=[2, 6], new_tokens=4, tokens=99, padded=False))
    2
    """
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (-lengths[row.prompt], row.prompt, row.sample)):
        fits = groups and batch_tokens([*groups[-1], row], lengths, new_tokens, shared) <= tokens
        if not fits or not (padded or lengths[row.prompt] == lengths[groups[-1][0].prompt]):
            groups.append([])
        groups[-1].append(row)
    return groups


def batch_tokens(batch: Sequence[Row], lengths: Sequence[int], new_tokens: int, shared: bool = False) -> int:
    """Tokens that a batch stores: prompts padded to the longest, once per prompt or once per row, and `new_tokens` per row."""
    prompts = {row.prompt for row in batch}
    longest = max(lengths[prompt] for prompt in prompts)
    return longest * (len(prompts) if shared else len(batch)) + new_tokens * len(batch)
