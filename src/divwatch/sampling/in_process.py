"""The default backend: this rank's rows through the model in training, batch by batch within the memory there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from divwatch.sampling.decode import decode, supports_prefix
from divwatch.sampling.entropy import DecodedTokens
from divwatch.sampling.known import has_known_cache
from divwatch.sampling.memory import MEMORY_SHARE, free_bytes, is_out_of_memory, release, row_tokens, token_bytes
from divwatch.sampling.noise import token_seeds
from divwatch.sampling.plan import Row
from divwatch.sampling.ranks import Ranks
from divwatch.sampling.refill import Batch, Queue, can_continue
from divwatch.sampling.request import Request

# Prompt and completion tokens in one batch on a CPU, all rows counted: enough to keep its cores busy.
CPU_TOKENS = 32_768


def generate(
    model: Any, request: Request, rows: Sequence[Row], progress: Callable[[int], None], refill: bool = True
) -> list[list[int]]:
    """New token ids of each row, in the order given. Local: no collective is called.

    A batch that does not fit in memory is halved and tried again. Raises what the model raises otherwise.
    refill: whether rows may be interrupted and continued (`refill.py`), where the model allows it.
    """
    queue = _queue(model, request, rows, refill)
    tokens = tokens_that_fit(model, request)
    while queue:
        batch = queue.next_batch(tokens)
        made, error = _attempt(model, request, batch)
        if error is not None:
            if not is_out_of_memory(error) or (len(batch) == 1 and not batch.so_far):
                raise error
            del error
            release(request.device)
            if len(batch) == 1:
                queue.start_over(batch)
                continue
            tokens = max(1, min(tokens, batch.tokens) // 2)
            queue.put_back(batch)
        elif count := queue.accept(batch, made):
            progress(count)
    return [queue.done[row] for row in rows]


def generate_in_step(
    model: Any, request: Request, rows: Sequence[Row], ranks: Ranks, progress: Callable[[int], None]
) -> list[list[int]]:
    """The same where every forward is a collective: all ranks make as many batches, and decode each until all are done.

    A rank without a row left reads the first prompt, for nothing but the others' sake. The memory is agreed on before the
    first batch, the number of steps before each.
    """
    # What is special about one rank's batch must not change which forwards it takes part in.
    request = replace(request, how=replace(request.how, mode="eager"))
    tokens = min(ranks.share(tokens_that_fit(model, request)))
    queue = _queue(model, request, rows)
    while True:
        batch = queue.next_batch(tokens) if queue else Batch([], 0)
        steps = max(ranks.share(batch.steps))
        if not steps:
            return [queue.done[row] for row in rows]
        taking_part = batch or Batch([Row(0, 0)], 1)
        made = decode_batch(model, request, taking_part, lambda alive: ranks.any(alive, request.device), steps)
        if batch and (count := queue.accept(batch, made)):
            progress(count)


def _queue(model: Any, request: Request, rows: Sequence[Row], refill: bool = True) -> Queue:
    # A model that follows its own `generate` may not know padding: PEFT puts virtual tokens before it.
    padded = has_known_cache(model)
    refill = refill and padded and can_continue(model)
    return Queue(request, rows, row_tokens(model), _shares_prompts(model, request), padded, refill)


def _attempt(model: Any, request: Request, batch: Batch) -> tuple[list[DecodedTokens], Exception | None]:
    """(made, None) or ([], error): the error is handed back, not handled here, so that its frames hold no memory."""
    try:
        return decode_batch(model, request, batch, lambda alive: alive), None
    except Exception as error:
        return [], error.with_traceback(None)


def decode_batch(
    model: Any, request: Request, batch: Batch, any_rank: Callable[[bool], bool], steps: int | None = None
) -> list[DecodedTokens]:
    """The completions of the batch's rows, as far as they are decoded then. steps: of all ranks, if they decode in step."""
    steps = steps or batch.steps
    parts = [batch.made(row) for row in batch]
    places: dict[tuple[int, tuple[int, ...]], int] = {}
    owners = [places.setdefault((row.prompt, tuple(part)), len(places)) for row, part in zip(batch, parts, strict=True)]
    ages = [len(part) for part in parts]
    limits = [min(batch.steps, request.limits[row.prompt] - age) for row, age in zip(batch, ages, strict=True)]
    streams = [(request.ids[row.prompt], row.sample) for row in batch]
    seeds = token_seeds(request.seed, streams, max(ages) + steps)
    seeds = np.stack([stream[age : age + steps] for stream, age in zip(seeds, ages, strict=True)])
    how = replace(request.how, limit=steps, spare=batch.spare, spare_from=batch.spare_from)
    new = decode(
        model,
        [request.encoded[prompt] + list(part) for prompt, part in places],
        owners,
        seeds,
        limits,
        replace(how, close_at=None) if any(ages) else how,
        request.device,
        lambda at, ids: request.thought_is_open(batch[at].prompt, ids),
        any_rank,
    )
    return [part.continued_by(more) for part, more in zip(parts, new, strict=True)]


def tokens_that_fit(model: Any, request: Request) -> int:
    """Tokens of keys and values, logits counted as such, that fit into the memory that is free on this rank."""
    fit = max(1, int(MEMORY_SHARE * free_bytes(request.device) / token_bytes(model)))
    return min(fit, CPU_TOKENS) if request.device.type == "cpu" else fit


def _shares_prompts(model: Any, request: Request) -> bool:
    """Whether rows are expected to share their prompt's keys. Where they do not after all, batches are halved."""
    if request.how.mode_on(request.device) == "eager":
        return False
    return supports_prefix(model, max(request.lengths) + request.how.limit)
