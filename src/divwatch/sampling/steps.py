"""Decoding in steps of fixed shape over a shared prefix: as it is, or each step captured in a CUDA graph.

Everything that changes between steps is in tensors that keep their addresses. A step waits for the device once, at its
end. Shapes change when the own tokens outgrow a span and when rows that have stopped leave; the step is then captured
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from divwatch.errors import one_line
from divwatch.sampling.decoding import Decoding
from divwatch.sampling.entropy import DecodedTokens, decoded, token_entropy
from divwatch.sampling.graph import Recorder
from divwatch.sampling.memory import is_out_of_memory
from divwatch.sampling.nucleus import check_finite, draw, draw_without_sync
from divwatch.sampling.prefix import PrefixCache, Unsupported, prefix_attention

# Attention by products reads so many own tokens more at a time: a few that are not there cost less than a capture.
SPAN = 64
# Logits of a replay may differ from those of the step by this share of the largest one: rounding in bf16.
TOLERANCE = 0.05

StillOpen = Callable[[int, list[int]], bool]


class Steps:
    """The state of a batch between two steps.

    rows:    [R] places of the rows that the batch still holds among all n of them.
    token:   [R] their newest token; first: [R] position of a row's first new token.
    index:   [1] which new token the step decides, counted from 0.
    written: [n, limit] new tokens; ends: [n] new tokens of a row, so far as is known.
    entropies: [n, limit] of the distributions that they were drawn from.
    closing: [n] whether `forced` [1] replaces what was drawn, where it is not negative.
    """

    def __init__(
        self, model: Any, cache: PrefixCache, lengths: Any, seeds: Any, limits: Sequence[int], how: Decoding
    ) -> None:
        """lengths: [n] tokens of each row's prompt; seeds: [n, limit, 2]."""
        self.model, self.cache, self.seeds, self.how = model, cache, seeds, how
        device, count = seeds.device, len(seeds)
        self.device = device
        self.rows = torch.arange(count, device=device)
        self.first = lengths
        self.token = torch.zeros(count, dtype=torch.long, device=device)
        self.index = torch.zeros(1, dtype=torch.long, device=device)
        self.written = torch.zeros((count, seeds.shape[1]), dtype=torch.long, device=device)
        self.entropies = torch.zeros(self.written.shape, device=device)
        self.ends = torch.tensor(limits, device=device)
        self.closing = torch.zeros(count, dtype=torch.bool, device=device)
        self.forced = torch.full((1,), -1, device=device)
        self.stops = torch.tensor(how.stops, device=device)
        self.logits: Any = None
        self.open: Any = None
        self.status: Any = None

    def forward(self) -> None:
        """Reads the newest token of each row and decides the next one.

        Running it again gives the same result if `token` is set back first.
        """
        slot = self.index - 1
        self.cache.begin(slot, self.ends[self.rows] > self.index)
        position = (self.first + slot)[:, None]
        inputs = {"input_ids": self.token[:, None], "position_ids": position}
        self.decide(self.model(**inputs, past_key_values=self.cache, use_cache=True).logits[:, -1])

    def decide(self, logits: Any) -> None:
        """Draws a token for each row of `logits` [R, vocabulary]."""
        self.logits = logits
        self.entropies.index_put_((self.rows, self.index), token_entropy(logits))
        seeds = self.seeds[self.rows, self.index]
        tokens, open_, finite = draw_without_sync(logits, seeds, self.how.temperature, self.how.top_p)
        self._accept(tokens, open_)
        self.status = torch.stack([self._running().sum(), self.open.sum(), (~finite).sum()])

    @property
    def outputs(self) -> tuple[Any, Any, Any]:
        """What a step leaves behind besides `token` and `written`: a graph writes it into the same tensors each time."""
        return self.logits, self.open, self.status

    @outputs.setter
    def outputs(self, tensors: tuple[Any, Any, Any]) -> None:
        self.logits, self.open, self.status = tensors

    def count_running(self) -> int:
        """How many rows are still decoding. The one wait of a step; draws what `decide` left open."""
        running, still_open, broken = self.status.tolist()
        check_finite(not broken)
        if still_open:
            left = self.open.nonzero()[:, 0]
            tokens = self.token.clone()
            seeds = self.seeds[self.rows[left], self.index]
            tokens[left] = draw(self.logits[left], seeds, self.how.temperature, self.how.top_p)
            self._accept(tokens, torch.zeros_like(self.open))
            running = int(self._running().sum())
        return int(running)

    def drop_stopped(self) -> None:
        """Keeps the rows still decoding."""
        chosen = self._running().nonzero()[:, 0]
        self.cache.keep(chosen.tolist())
        self.rows, self.first, self.token = self.rows[chosen], self.first[chosen], self.token[chosen]
        self.logits = self.open = None

    def close_thoughts(self, t: int, still_open: StillOpen) -> None:
        """At `how.close_at` asks which thoughts are open; says which token is forced at step `t`."""
        how = self.how
        if how.close_at is None:
            return
        if t == how.close_at:
            flags = [False] * len(self.closing)
            for row in self.rows[self.ends[self.rows] > t].tolist():
                flags[row] = still_open(row, self.written[row, :t].tolist())
            self.closing.copy_(torch.tensor(flags))
        inside = how.close_at <= t < how.close_at + len(how.close_with)
        if inside or t == how.close_at + len(how.close_with):
            self.forced.fill_(how.close_with[t - how.close_at] if inside else -1)

    def _accept(self, tokens: Any, open_: Any) -> None:
        forced = self.closing[self.rows] & (self.forced >= 0)
        tokens = torch.where(forced, self.forced, tokens)
        self.open = open_ & ~forced
        self.token.copy_(tokens)
        self.written.index_put_((self.rows, self.index), tokens)
        stops = (tokens[:, None] == self.stops).any(-1) & ~self.open
        ends = self.ends[self.rows]
        self.ends.index_copy_(0, self.rows, torch.where(stops, torch.minimum(ends, self.index + 1), ends))

    def _running(self) -> Any:
        return self.ends[self.rows] > self.index + 1


def decode_in_steps(
    model: Any,
    cache: PrefixCache,
    logits: Any,
    lengths: Any,
    seeds: Any,
    limits: Sequence[int],
    how: Decoding,
    still_open: StillOpen,
    capture: bool,
) -> list[DecodedTokens]:
    """New token ids of each row. What `decode` documents, with the prompts read: `logits` [n, vocabulary], `cache`."""
    state = Steps(model, cache, lengths, seeds, limits, how)
    limit = max(limits)
    with prefix_attention(model), Recorder(seeds.device, capture) as recorder:
        for t in range(limit):
            state.index.fill_(t)
            state.close_thoughts(t, still_open)
            if t == 0:
                state.decide(logits)
                del logits
            else:
                span = cache.room if cache.kernels else min(cache.room, -(-t // SPAN) * SPAN)
                if span != cache.span:
                    cache.span = span
                    recorder.forget()
                _run(recorder, state, first=t == 1)
            left = state.count_running()
            if t + 1 == limit or not how.goes_on(left, t + 1):
                break
            # A new recording costs some steps, and rows that have stopped cost little.
            if left <= len(state.rows) // (4 if recorder.capture else 2):
                recorder.forget()
                state.drop_stopped()
    return decoded(state.written, state.entropies, state.ends.clamp(max=t + 1))


def _run(recorder: Recorder, state: Steps, first: bool) -> None:
    """Runs a step. If the first one fails, the model does not support a shared prefix."""
    try:
        if recorder.recorded and not recorder.verified:
            _verify(recorder, state)
        else:
            recorder.run(state.forward)
    except Exception as error:
        if not first or isinstance(error, Unsupported) or is_out_of_memory(error):
            raise
        raise Unsupported(one_line(error)) from error


def _verify(recorder: Recorder, state: Steps) -> None:
    """Replays a graph for the first time and compares the logits with those of the step itself, which costs one step.

    The step is a later one than the one that was recorded, so a graph that reads stale tensors shows.
    """
    recorded, token = state.outputs, state.token.clone()
    state.forward()
    expected = state.logits
    state.outputs = recorded
    state.token.copy_(token)
    recorder.run(state.forward)
    difference, largest = (state.logits - expected).abs().max(), expected.abs().max()
    recorder.verified = bool(difference <= TOLERANCE * largest)
    if not recorder.verified:  # the recorded step's token may be wrong already, so the batch starts again without steps
        raise Unsupported("a replayed step gave other logits than the step itself")
