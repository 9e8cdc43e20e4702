"""Which rows are decoded together and for how long: batches are packed by the lengths that occur, not by the longest possible.

A batch is decoded until few of its rows run, or until the room reserved for them is used. Rows that still run then wait
with the tokens they have, and later join others like them: their prompt and these tokens are read again, which costs a
prefill but no memory in between. Each token has its own seed (`noise.py`), so a row draws what it would have drawn
without the interruption, up to rounding.

The first batch of a run reserves room for the longest completion. The lengths that occur in a batch say how much room the
next one reserves, those of a whole look how much the first batch of the next look. Where all rows fit into one batch, or all
have full length, nothing is interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from divwatch.sampling.decoding import Decoding
from divwatch.sampling.entropy import DecodedTokens
from divwatch.sampling.plan import Need, Row, count_that_fit, stored_tokens
from divwatch.sampling.request import Request

# Room for new tokens comes in multiples of this; shorter completions are not worth an interruption.
STRETCH = 64
# A batch ends early once this share of its rows runs; on a CPU, which is busy with few rows, at most so many rows.
SPARE, CPU_SPARE = 1 / 4, 8
# The next batch reserves room for this share of the rows, and this much more.
QUANTILE, MARGIN = 7 / 8, 1.25
# Rows that were interrupted at a tokens may add so many times a before they are interrupted again.
GROWTH = 3
# A row reads its own text when it continues: activations and states count for that.
READING = 2


class Batch(list[Row]):
    """Rows that are decoded together.

    steps:  new tokens that are reserved for a row, how many it has already not counted.
    spare, spare_from: as in `Decoding`.
    tokens: what the batch is expected to store.
    so_far: tokens of rows that continue.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        steps: int,
        spare: int = 0,
        spare_from: int = 0,
        tokens: int = 0,
        so_far: Mapping[Row, DecodedTokens] | None = None,
    ) -> None:
        super().__init__(rows)
        self.steps, self.spare, self.spare_from, self.tokens = steps, spare, spare_from, tokens
        self.so_far = so_far or {}

    def made(self, row: Row) -> DecodedTokens:
        """The tokens that a row has already."""
        return self.so_far.get(row, DecodedTokens([], 0.0))


class Queue:
    """The rows of a rank that are not done.

    done: the completions of the others.
    """

    def __init__(
        self, request: Request, rows: Sequence[Row], row_tokens: int, shared: bool, padded: bool, refill: bool
    ) -> None:
        """row_tokens: what a row stores beside its tokens, counted in tokens; shared, padded: as `batches` takes them;
        refill: whether rows may be interrupted."""
        self.request, self.row_tokens, self.shared, self.padded = request, row_tokens, shared, padded
        self.done: dict[Row, DecodedTokens] = {}
        self._so_far: dict[Row, DecodedTokens] = {}
        lengths = request.lengths
        self._new = sorted(rows, key=lambda row: (-lengths[row.prompt], row.prompt, row.sample))
        self._interrupted: list[Row] = []
        self._refill = refill and request.how.limit > STRETCH
        learned = request.expected if self._refill else ()
        self._reserve = room_for(learned, request.how) if learned else request.how.limit

    def __len__(self) -> int:
        return len(self._new) + len(self._interrupted)

    def next_batch(self, tokens: int) -> Batch:
        """Takes a batch of at most `tokens` tokens out of the queue, new rows first, then those that have the fewest tokens."""
        continues = not self._new
        if continues:
            self._interrupted.sort(key=lambda row: (len(self._so_far[row]), row))
        waiting = self._interrupted if continues else self._new
        steps = max(self._reserve, GROWTH * len(self._so_far[waiting[0]])) if continues else self._reserve
        shared = self.shared and not continues
        count = self._count(waiting, steps, tokens, shared)
        if count == len(self) and count == self._count(waiting, self.request.how.limit, tokens, shared):
            steps = self.request.how.limit  # nothing waits for the room
        rows = waiting[:count]
        stored = stored_tokens([self._need(i, row, steps) for i, row in enumerate(rows)], shared)
        del waiting[:count]
        spare = int(len(rows) * SPARE) if self._refill and len(self) else 0
        if self.request.device.type == "cpu":
            spare = min(spare, CPU_SPARE)
        steps = min(steps, max(self._left(row) for row in rows))
        so_far = {row: self._so_far[row] for row in rows if row in self._so_far}
        return Batch(rows, steps, spare, 0 if continues else thought_ends(self.request.how), stored, so_far)

    def _count(self, waiting: Sequence[Row], steps: int, tokens: int, shared: bool) -> int:
        needs = (self._need(i, row, steps) for i, row in enumerate(waiting))
        return count_that_fit(needs, tokens, shared, self.padded)

    def put_back(self, batch: Batch) -> None:
        """Takes back the rows of a batch that could not be decoded."""
        if batch.so_far:
            self._interrupted[:0] = batch
        else:
            self._new[:0] = batch

    def start_over(self, batch: Batch) -> None:
        """Takes back rows whose tokens do not fit when read again. They start anew; no row is interrupted from now on."""
        self._refill, self._reserve = False, self.request.how.limit
        for row in batch:
            del self._so_far[row]
        self._new += batch

    def accept(self, batch: Batch, made: Sequence[DecodedTokens]) -> int:
        """Takes the completions of a batch, whole as far as they are decoded. Returns how many are done."""
        before = len(self.done)
        for row, ids in zip(batch, made, strict=True):
            if len(ids) >= self.request.limits[row.prompt] or (ids and ids[-1] in self.request.how.stops):
                self.done[row] = ids
                self._so_far.pop(row, None)
            else:
                self._so_far[row] = ids
                self._interrupted.append(row)
        if self._refill and not batch.so_far:
            self._reserve = room_for([len(ids) for ids in made], self.request.how, batch.steps)
        return len(self.done) - before

    def _left(self, row: Row) -> int:
        """New tokens that a row may still have."""
        return self.request.limits[row.prompt] - len(self._so_far.get(row, ()))

    def _need(self, place: int, row: Row, steps: int) -> Need:
        width, room = self.request.lengths[row.prompt], min(steps, self._left(row)) + self.row_tokens
        if row not in self._so_far:
            return Need(row.prompt, width, room)
        return Need(place, READING * (width + len(self._so_far[row])), room)


def room_for(lengths: Sequence[int], how: Decoding, cut_at: int | None = None) -> int:
    """New tokens to reserve for completions like those of such lengths: what QUANTILE of them need and MARGIN more, or twice
    as much where that many were cut at `cut_at`.

    >>> how = Decoding(1.0, 1.0, [], limit=1024)
    >>> room_for([20, 40, 200], how), room_for([20, 200, 200], how, cut_at=200)
    (256, 448)
    """
    reached = sorted(lengths)[min(len(lengths) - 1, int(len(lengths) * QUANTILE))]
    room = MARGIN * reached if cut_at is None or reached < cut_at else 2 * reached
    least = thought_ends(how)  # a thought is closed in the batch that it starts in
    return min(how.limit, max(least, STRETCH * -int(-room // STRETCH)))


def thought_ends(how: Decoding) -> int:
    """New tokens after which no thought is closed by force any more."""
    return 0 if how.close_at is None else how.close_at + len(how.close_with) + 1


def can_continue(model: Any) -> bool:
    """Whether a completion can be read again and continued with the same law and in little memory.

    Not where positions depend on the length (`dynamic`, `longrope`): keys computed early differ from those of a text read
    at once. Not with `eager` attention, which stores a score for each pair of tokens.
    """
    config = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) == "eager":
        return False
    kinds = (getattr(config, "rope_parameters", None), getattr(config, "rope_scaling", None))
    return not any(kind in str(kinds) for kind in ("dynamic", "longrope"))
