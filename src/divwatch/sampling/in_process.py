"""The default backend: this rank's rows through the model in training, batch by batch within the memory there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from divwatch.sampling.decode import decode, supports_prefix
from divwatch.sampling.entropy import DecodedTokens
from divwatch.sampling.known import has_known_cache
from divwatch.sampling.memory import MEMORY_SHARE, free_bytes, is_out_of_memory, release, row_tokens, token_bytes
from divwatch.sampling.noise import token_seeds
from divwatch.sampling.plan import Row, batch_tokens, batches
from divwatch.sampling.ranks import Ranks
from divwatch.sampling.request import Request

# Prompt and completion tokens in one batch on a CPU, all rows counted: enough to keep its cores busy.
CPU_TOKENS = 32_768


def generate(model: Any, request: Request, rows: Sequence[Row], progress: Callable[[int], None]) -> list[list[int]]:
    """New token ids of each row, in the order given. Local: no collective is called.

    A batch that does not fit in memory is halved and tried again. Raises what the model raises otherwise.
    """
    done: dict[Row, list[int]] = {}
    tokens = tokens_that_fit(model, request)
    waiting = _batches(model, request, rows, tokens)
    while waiting:
        batch = waiting.pop(0)
        made, error = _attempt(model, request, batch)
        if error is not None:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise error
            del error
            release(request.device)
            tokens = max(1, min(tokens, _tokens_of(model, request, batch)) // 2)
            waiting = _batches(model, request, [*batch, *(row for later in waiting for row in later)], tokens)
            continue
        done.update(zip(batch, made, strict=True))
        progress(len(batch))
    return [done[row] for row in rows]


def generate_in_step(
    model: Any, request: Request, shares: Sequence[Sequence[Row]], ranks: Ranks, progress: Callable[[int], None]
) -> list[list[int]]:
    """The same where every forward is a collective: all ranks make as many batches, and decode each until all are done.

    shares: the rows of every rank, so that each knows how many batches the others make. A rank without a row left
    repeats the first prompt, for nothing but the others' sake. The memory is agreed on before the first batch.
    """
    # What is special about one rank's batch must not change which forwards it takes part in.
    request = replace(request, how=replace(request.how, mode="eager"))
    tokens = min(ranks.share(tokens_that_fit(model, request)))
    planned = [_batches(model, request, rows, tokens) for rows in shares]
    mine = planned[ranks.rank]
    done: dict[Row, list[int]] = {}
    for turn in range(max(map(len, planned))):
        batch = mine[turn] if turn < len(mine) else [Row(0, 0)]
        tokens_by_row = decode_batch(model, request, batch, lambda alive: ranks.any(alive, request.device))
        if turn < len(mine):
            done.update(zip(batch, tokens_by_row, strict=True))
            progress(len(batch))
    return [done[row] for row in shares[ranks.rank]]


def _attempt(model: Any, request: Request, batch: list[Row]) -> tuple[list[DecodedTokens], Exception | None]:
    """(made, None) or ([], error): the error is handed back, not handled here, so that its frames hold no memory."""
    try:
        return decode_batch(model, request, batch, lambda alive: alive), None
    except Exception as error:
        return [], error.with_traceback(None)


def decode_batch(
    model: Any, request: Request, batch: list[Row], any_rank: Callable[[bool], bool]
) -> list[DecodedTokens]:
    prompts = list(dict.fromkeys(row.prompt for row in batch))
    place = {prompt: i for i, prompt in enumerate(prompts)}
    how = request.how
    seeds = token_seeds(request.seed, [(request.ids[row.prompt], row.sample) for row in batch], how.limit)
    return decode(
        model,
        [request.encoded[prompt] for prompt in prompts],
        [place[row.prompt] for row in batch],
        seeds,
        [request.limits[row.prompt] for row in batch],
        how,
        request.device,
        lambda at, ids: request.thought_is_open(batch[at].prompt, ids),
        any_rank,
    )


def tokens_that_fit(model: Any, request: Request) -> int:
    """Tokens of keys and values, logits counted as such, that fit into the memory that is free on this rank."""
    fit = max(1, int(MEMORY_SHARE * free_bytes(request.device) / token_bytes(model)))
    return min(fit, CPU_TOKENS) if request.device.type == "cpu" else fit


def _batches(model: Any, request: Request, rows: Sequence[Row], tokens: int) -> list[list[Row]]:
    # A model that follows its own `generate` may not know padding: PEFT puts virtual tokens before it.
    padded = has_known_cache(model)
    return batches(rows, request.lengths, _new_tokens(model, request), tokens, _shares_prompts(model, request), padded)


def _tokens_of(model: Any, request: Request, batch: Sequence[Row]) -> int:
    return batch_tokens(batch, request.lengths, _new_tokens(model, request), _shares_prompts(model, request))


def _new_tokens(model: Any, request: Request) -> int:
    """Tokens of a row beside its prompt's, its logits and states counted as such."""
    return request.how.limit + row_tokens(model)


def _shares_prompts(model: Any, request: Request) -> bool:
    """Whether rows are expected to share their prompt's keys. Where they do not after all, batches are halved."""
    if request.how.mode_on(request.device) == "eager":
        return False
    return supports_prefix(model, max(request.lengths) + request.how.limit)
