"""One batch of completions from the model in process: the law of `generate`, at less work.

A prompt is read once and its keys and values serve all its samples; rows that have stopped leave the batch once they
are half of it. On a CUDA device the prompts' keys are also stored once, and each step runs from a CUDA graph
(`steps.py`), for models that allow it; for others, and on a CPU, the keys are repeated for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from divwatch.sampling.decoding import Decoding
from divwatch.sampling.log import warn_once
from divwatch.sampling.nucleus import draw


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    owners: Sequence[int],
    uniforms: Any,
    limits: Sequence[int],
    how: Decoding,
    device: Any,
    still_open: Callable[[int, list[int]], bool] = lambda row, ids: False,
    any_rank: Callable[[bool], bool] = lambda alive: alive,
) -> list[list[int]]:
    """New token ids of each row, its stop token included where it stopped.

    prompts:    token ids; owners: [n] for each row the prompt it answers; uniforms: [n, how.limit, TRIES] random numbers.
    limits:     [n] new tokens after which a row is cut, at most how.limit.
    still_open: (row, its new ids) -> whether its thought is open, asked once at `how.close_at`.
    any_rank:   whether any rank has rows left. Where a forward is a collective, a rank that is done goes on with one
                row until all are.
    """
    import torch

    noise = torch.as_tensor(uniforms, device=device)
    logits, mask, cache = _read(model, prompts, max(how.stops[0], 0), device)
    if how.mode_on(device) != "eager":
        rows = _decode_shared(model, logits, mask, cache, owners, noise, limits, how, still_open)
        if rows is not None:
            return rows
    return _decode_eager(model, logits, mask, cache, owners, noise, limits, how, still_open, any_rank)


def _decode_shared(
    model: Any,
    logits: Any,
    mask: Any,
    cache: Any,
    owners: Sequence[int],
    noise: Any,
    limits: Sequence[int],
    how: Decoding,
    still_open: Callable[[int, list[int]], bool],
) -> list[list[int]] | None:
    """`decode` over keys that are stored once a prompt, or None where the model does not allow it."""
    import torch

    from divwatch.sampling.graph import is_recordable
    from divwatch.sampling.prefix import PrefixCache, Unsupported, check_cache, check_model
    from divwatch.sampling.steps import decode_in_steps

    capture = how.mode_on(mask.device) == "captured" and mask.device.type == "cuda"
    if capture and not is_recordable(model):
        capture = False
        warn_once("decoding runs without a CUDA graph: the model has forward hooks")
    prefix = None
    try:
        check_model(model, mask.shape[1] + max(limits))
        check_cache(cache, mask.device)
        prefix = PrefixCache(cache, mask, owners, max(1, max(limits) - 1))
        prefix.use_kernels(model.config.get_text_config().num_attention_heads // cache.layers[0].keys.shape[1])
        of = torch.tensor(owners, device=mask.device)
        return decode_in_steps(model, prefix, logits[of], mask.sum(-1)[of], noise, limits, how, still_open, capture)
    except Unsupported as reason:
        warn_once(f"decoding repeats a prompt's keys for each of its samples: {reason}")
        return None
    finally:
        if prefix is not None:
            prefix.free()


def supports_prefix(model: Any, longest: int) -> bool:
    """Whether `model` is expected to store a prompt's keys once, for `longest` tokens of prompt and completion."""
    from divwatch.sampling.prefix import Unsupported, check_model

    try:
        check_model(model, longest)
    except Unsupported:
        return False
    return True


def _decode_eager(
    model: Any,
    logits: Any,
    mask: Any,
    cache: Any,
    owners: Sequence[int],
    noise: Any,
    limits: Sequence[int],
    how: Decoding,
    still_open: Callable[[int, list[int]], bool],
    any_rank: Callable[[bool], bool],
) -> list[list[int]]:
    """`decode` with the prompts' keys repeated for each row."""
    import torch

    from divwatch.sampling.cache import select_rows

    device = mask.device
    of = torch.tensor(owners, device=device)
    select_rows(cache, of)
    logits, mask = logits[of], mask[of]
    position = mask.sum(-1, keepdim=True) - 1
    stops = torch.tensor(how.stops, device=device)
    count = len(owners)
    written = torch.zeros((count, how.limit), dtype=torch.long, device=device)
    length = torch.tensor(limits, device=device)
    rows = torch.arange(count, device=device)  # which rows the batch still holds
    running = torch.ones(count, dtype=torch.bool, device=device)
    closing = None
    for t in range(how.limit):
        tokens = draw(logits, noise[rows, t], how.temperature, how.top_p)
        if how.close_at is not None and how.close_at <= t < how.close_at + len(how.close_with):
            if closing is None:
                closing = _unclosed(written, t, running, rows, still_open)
            tokens = torch.where(closing[rows], how.close_with[t - how.close_at], tokens)
        written[rows, t] = tokens
        stopped = running & torch.isin(tokens, stops)
        length[rows[stopped]] = t + 1
        running = running & ~stopped & (length[rows] > t + 1)
        left = int(running.sum())
        if t + 1 == how.limit or not any_rank(left > 0):
            break
        if left <= len(running) // 2:
            keep = running.nonzero()[:, 0] if left else torch.zeros(1, dtype=torch.long, device=device)
            if len(keep) < len(running):
                cache.batch_select_indices(keep)
                rows, tokens, mask = rows[keep], tokens[keep], mask[keep]
                position, running = position[keep], running[keep]
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], -1)
        position = position + 1
        inputs = {"input_ids": tokens[:, None], "position_ids": position, "attention_mask": mask}
        logits = model(**inputs, past_key_values=cache, use_cache=True).logits[:, -1]
    return [row[:n] for row, n in zip(written.tolist(), length.tolist(), strict=True)]


def _read(model: Any, prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Any, Any, Any]:
    """The prompts' last logits [P, vocabulary], their attention mask [P, L] and their keys and values in a cache."""
    from transformers import DynamicCache

    ids, mask = _left_padded(prompts, pad, device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    logits = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    return logits, mask, cache


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Any, Any]:
    """Token ids and attention mask [prompts, width]; `pad` is never attended to, so any id will do."""
    import torch

    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, tokens in enumerate(prompts):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    return ids.to(device), mask.to(device)


def _unclosed(written: Any, t: int, running: Any, rows: Any, still_open: Callable[[int, list[int]], bool]) -> Any:
    """Flags of all rows: still writing, and inside a thought."""
    import torch

    flags = torch.zeros(len(written), dtype=torch.bool)
    for row in rows[running].tolist():
        flags[row] = still_open(row, written[row, :t].tolist())
    return flags.to(written.device)
