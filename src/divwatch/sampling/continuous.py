"""The `continuous` backend: transformers' continuous batching, for long completions of very unequal lengths.

Its hazards are fenced here or by the caller: it sets torch's global seed (the caller keeps the random state), leaves the
model in eval mode (the caller restores it), changes the attention implementation (checked and put back), and drops a
request that fails without a word (counted). It reads no sharded weights and closes no thoughts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.sampling.memory import MEMORY_SHARE, free_bytes, token_bytes
from divwatch.sampling.plan import Row
from divwatch.sampling.request import Request


def generate(model: Any, request: Request, rows: Sequence[Row], progress: Callable[[int], None]) -> list[list[int]]:
    """New token ids of each row, in the order given. Local: no collective is called."""
    from transformers import ContinuousBatchingConfig

    how = request.how
    if how.close_at is not None:
        raise DivwatchError(
            "watch_think_tokens needs watch_backend transformers: continuous batching closes no thought"
        )
    if not rows:
        return []
    attention = model.config._attn_implementation
    # Rows of another rank or look draw other numbers.
    seed = hash((request.seed, rows[0])) % 2**31
    try:
        outputs = model.generate_batch(
            [request.encoded[row.prompt] for row in rows],
            generation_config=_generation_config(request),
            continuous_batching_config=ContinuousBatchingConfig(
                seed=seed, max_memory_percent=MEMORY_SHARE, **_room(model, request, rows)
            ),
            progress_bar=False,
        )
    finally:
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
    completions = [list(output.generated_tokens) for output in outputs.values() if output.error is None]
    if len(completions) != len(rows):
        raise RuntimeError(f"continuous batching returned {len(completions)} of {len(rows)} completions")
    progress(len(completions))
    return completions


def _room(model: Any, request: Request, rows: Sequence[Row]) -> dict[str, Any]:
    """Of the cache: by default it takes all the memory it may, and has to clear it; no more than all rows need is enough.

    Where that is more than half of what a look may take, the library sizes the cache: it knows what the masks need beside.
    """
    from transformers import ContinuousBatchingConfig

    # Older transformers call a page a block.
    names: Any = ContinuousBatchingConfig
    page: int = getattr(names, "page_size", None) or names.block_size
    pages = sum(-(-(request.lengths[row.prompt] + request.how.limit) // page) for row in rows)
    small = pages * page * token_bytes(model) < 0.5 * MEMORY_SHARE * free_bytes(request.device)
    # A dense mask of a batch's tokens by all that is held: on a CPU nothing better is chosen.
    batch = {"max_batch_tokens": max(len(rows), 1024)} if request.device.type == "cpu" else {}
    return batch | ({"num_blocks": pages} if small else {})


def _generation_config(request: Request) -> Any:
    from transformers import GenerationConfig

    how = request.how
    return GenerationConfig(
        do_sample=True,
        temperature=how.temperature,
        top_p=how.top_p,
        top_k=0,
        max_new_tokens=how.limit,
        eos_token_id=how.stops,
        pad_token_id=how.stops[0],
    )
