"""Which rank samples what, and in which batches: plain arithmetic on prompt lengths, the same on every rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


class Need(NamedTuple):
    """What a row needs in a batch: which text it reads, tokens of that text, tokens of room behind it."""

    text: int
    width: int
    room: int


def count_that_fit(needs: Iterable[Need], tokens: int, shared: bool = False, padded: bool = True) -> int:
    """How many rows from the first on make a batch that stores at most `tokens` tokens; at least one.

    All rows have the width and the room of the largest. shared: a text is stored once for all its rows, not once for each.
    padded: texts of different lengths may share a batch.

    >>> count_that_fit([Need(0, 5, 5), Need(1, 2, 5), Need(2, 3, 20)], tokens=30)
    2
    >>> count_that_fit([Need(0, 6, 4), Need(0, 6, 4)], tokens=14), count_that_fit([Need(0, 6, 4)] * 2, 14, shared=True)
    (1, 2)
    >>> count_that_fit([Need(0, 6, 4), Need(1, 5, 4)], tokens=99, padded=False)
    1
    """
    texts: set[int] = set()
    width = room = count = 0
    for need in needs:
        texts.add(need.text)
        alike = not count or need.width == width
        width, room = max(width, need.width), max(room, need.room)
        stored = width * (len(texts) if shared else count + 1) + room * (count + 1)
        if count and (stored > tokens or not (padded or alike)):
            break
        count += 1
    return count


def stored_tokens(needs: Sequence[Need], shared: bool = False) -> int:
    """Tokens that a batch stores: texts padded to the longest, once per text or once per row, and room for each row."""
    texts = len({need.text for need in needs}) if shared else len(needs)
    return texts * max(need.width for need in needs) + len(needs) * max(need.room for need in needs)
