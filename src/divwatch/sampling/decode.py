"""One batch of completions from the model in process: the law of `generate`, at less work.

A prompt is read once and its keys and values serve all its samples; rows that have stopped leave the batch once they
are half of it. On a CUDA device the prompts' keys are also stored once, and each step runs from a CUDA graph
(`steps.py`), for models that allow it; for others, and on a CPU, the keys are repeated for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from divwatch.sampling.as_generate import decode_as_generate
from divwatch.sampling.choose import Choices, last_logits
from divwatch.sampling.decoding import Decoding
from divwatch.sampling.entropy import DecodedTokens
from divwatch.sampling.known import (
    UnknownCache,
    changes_in_modules,
    check_filled,
    check_model,
    restore_modules,
    states_in_modules,
)
from divwatch.sampling.log import warn_once


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    owners: Sequence[int],
    seeds: Any,
    limits: Sequence[int],
    how: Decoding,
    device: Any,
    still_open: Callable[[int, list[int]], bool] = lambda row, ids: False,
    any_rank: Callable[[bool], bool] = lambda alive: alive,
) -> list[DecodedTokens]:
    """New token ids of each row, its stop token included where it stopped; fewer where `how.spare` ends the batch early.

    prompts:    token ids; owners: [n] for each row the prompt it answers; seeds: [n, how.limit, 2], one for each token.
    limits:     [n] new tokens after which a row is cut, at most how.limit.
    still_open: (row, its new ids) -> whether its thought is open, asked once at `how.close_at`.
    any_rank:   whether any rank has rows left. If a forward is a collective, a rank that is done continues with one
                row until all are done.
    """
    import torch

    seeds = torch.as_tensor(seeds, device=device)
    pad = max(how.stops[0], 0)
    try:
        check_model(model)
        logits, mask, cache = _read(model, prompts, pad, device)
    except UnknownCache as reason:
        warn_once(f"decoding goes through the model's own generate, which is slower: {reason}")
        ids, mask = _left_padded([prompts[owner] for owner in owners], pad, device)
        return decode_as_generate(model, ids, mask, Choices(seeds, limits, how, still_open), any_rank)
    if how.mode_on(device) != "eager":
        rows = _decode_shared(model, logits, mask, cache, owners, seeds, limits, how, still_open)
        if rows is not None:
            return rows
    return _decode_eager(model, logits, mask, cache, owners, Choices(seeds, limits, how, still_open), any_rank)


def _decode_shared(
    model: Any,
    logits: Any,
    mask: Any,
    cache: Any,
    owners: Sequence[int],
    seeds: Any,
    limits: Sequence[int],
    how: Decoding,
    still_open: Callable[[int, list[int]], bool],
) -> list[DecodedTokens] | None:
    """`decode` over keys that are stored once per prompt, or None if the model does not allow it."""
    import torch

    from divwatch.sampling.graph import is_recordable
    from divwatch.sampling.prefix import PrefixCache, Unsupported, check_attention, check_cache
    from divwatch.sampling.steps import decode_in_steps

    capture = how.mode_on(mask.device) == "captured" and mask.device.type == "cuda"
    if capture and not is_recordable(model):
        capture = False
        warn_once("decoding runs without a CUDA graph: the model has forward hooks")
    prefix = None
    try:
        check_attention(model, mask.shape[1] + max(limits))
        check_cache(cache, mask.device)
        prefix = PrefixCache(cache, mask, owners, max(1, max(limits) - 1))
        prefix.use_kernels(model.config.get_text_config().num_attention_heads // cache.layers[0].keys.shape[1])
        of = torch.tensor(owners, device=mask.device)
        return decode_in_steps(model, prefix, logits[of], mask.sum(-1)[of], seeds, limits, how, still_open, capture)
    except Unsupported as reason:
        warn_once(f"decoding repeats a prompt's keys for each of its samples: {reason}")
        return None
    finally:
        if prefix is not None:
            prefix.free()


def supports_prefix(model: Any, longest: int) -> bool:
    """Whether `model` is expected to store a prompt's keys once, for `longest` tokens of prompt and completion."""
    from divwatch.sampling.prefix import Unsupported, check_attention

    try:
        check_model(model)
        check_attention(model, longest)
    except (UnknownCache, Unsupported):
        return False
    return True


def _decode_eager(
    model: Any,
    logits: Any,
    mask: Any,
    cache: Any,
    owners: Sequence[int],
    choices: Choices,
    any_rank: Callable[[bool], bool],
) -> list[DecodedTokens]:
    """`decode` with the prompts' keys repeated for each row."""
    import torch

    from divwatch.sampling.cache import give_room, select_rows

    device, limit = mask.device, choices.how.limit
    of = torch.tensor(owners, device=device)
    give_room(cache, of)
    logits, mask = logits[of], mask[of]
    position = mask.sum(-1, keepdim=True) - 1
    while True:
        tokens = choices.choose(logits)
        if choices.steps == limit or not any_rank(choices.going_on):
            return choices.ids()
        left = choices.left
        if left <= len(tokens) // 2:
            keep = choices.running.nonzero()[:, 0] if left else torch.zeros(1, dtype=torch.long, device=device)
            if len(keep) < len(tokens):
                select_rows(cache, keep)
                choices.keep(keep)
                tokens, mask, position = tokens[keep], mask[keep], position[keep]
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], -1)
        position = position + 1
        inputs = {"input_ids": tokens[:, None], "position_ids": position, "attention_mask": mask}
        logits = last_logits(model(**inputs, past_key_values=cache, use_cache=True))


def _read(model: Any, prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Any, Any, Any]:
    """The prompts' last logits [P, vocabulary], their attention mask [P, L] and their keys and values in a cache."""
    from transformers import DynamicCache

    ids, mask = _left_padded(prompts, pad, device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    before = states_in_modules(model)
    output = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits = last_logits(output)
    if changed := changes_in_modules(model, before):
        restore_modules(before)
        raise UnknownCache(f"it keeps states outside its cache ({changed})")
    check_filled(cache, len(prompts))
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
