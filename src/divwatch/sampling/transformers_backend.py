"""K completions a prompt from the model in process: prompts sorted by length, batches bounded by tokens, left-padded here.

The tokenizer is only read: its padding side and chat template stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.records import Completion, Prompt
from divwatch.sampling.isolation import untouched

# Prompt and completion tokens in one batch, all samples counted: about 2 GB of keys and values at the 7B shape in bf16
# with grouped heads, and enough to keep a CPU or a GPU busy with a small model.
TOKENS_PER_BATCH = 32_768


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: WatchConfig,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Completion]:
    """`config.samples` completions for each prompt, grouped by prompt in the order given.

    `progress` is called with the number of completions of each finished batch. Leaves model and random state untouched.
    """
    import torch

    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    stops = stop_tokens(model, tokenizer)
    found: dict[int, list[Completion]] = {}
    with untouched(model, seed), torch.no_grad():
        for batch in _batches(encoded, config.samples, config.max_new_tokens):
            rows = _generate(model, [encoded[i] for i in batch], config, stops)
            for place, i in enumerate(batch):
                mine = rows[place * config.samples : (place + 1) * config.samples]
                found[i] = [_completion(tokenizer, prompts[i], k, row, stops) for k, row in enumerate(mine)]
            progress(len(rows))
    return [completion for i in range(len(prompts)) for completion in found[i]]


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt: through the chat template where it is a conversation and there is one."""
    if prompt.messages is None:
        return list(tokenizer(prompt.text)["input_ids"])
    if not tokenizer.chat_template:
        raise DivwatchError(
            f"prompt {prompt.id!r} is a conversation but the tokenizer has no chat template: set one, or give plain prompts"
        )
    text = tokenizer.apply_chat_template(prompt.messages, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a completion: the model's own list and the tokenizer's end token."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    stops = sorted(i for i in ids if i is not None)
    if not stops:
        raise DivwatchError("neither model nor tokenizer names an end token: set tokenizer.eos_token")
    return stops


def _batches(encoded: list[list[int]], samples: int, new_tokens: int) -> Iterator[list[int]]:
    """Indices of prompts of like length, longest first (so that a batch that does not fit is met at once)."""
    batch: list[int] = []
    for i in sorted(range(len(encoded)), key=lambda i: (-len(encoded[i]), i)):
        longest = len(encoded[batch[0]]) if batch else len(encoded[i])
        if batch and (len(batch) + 1) * samples * (longest + new_tokens) > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _generate(model: Any, encoded: list[list[int]], config: WatchConfig, stops: list[int]) -> list[list[int]]:
    """New token ids of samples x prompts, sample fastest; each row ends at its stop token or at the limit.

    The same law as `generate(num_return_sequences=K)` at less work: a prompt is read once and its keys and values are
    repeated K times, and rows that have stopped leave the batch once they are half of it.
    """
    import torch
    from transformers import DynamicCache
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopPLogitsWarper,
    )

    warp: Any = LogitsProcessorList(
        [TemperatureLogitsWarper(float(config.temperature)), TopPLogitsWarper(config.top_p)]
    )
    stop_ids = torch.tensor(stops, device=model.device)
    ids, mask = _left_padded(encoded, stops[0], model.device)
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    inputs = {"input_ids": ids, "position_ids": positions}
    logits = model(**inputs, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    cache.batch_repeat_interleave(config.samples)
    logits, mask = logits.repeat_interleave(config.samples, 0), mask.repeat_interleave(config.samples, 0)
    position = positions[:, -1:].repeat_interleave(config.samples, 0)
    count = len(logits)
    written = torch.zeros((count, config.max_new_tokens), dtype=torch.long, device=model.device)
    length = torch.full((count,), config.max_new_tokens, device=model.device)
    alive = torch.arange(count, device=model.device)  # which rows the batch still holds
    running = torch.ones(count, dtype=torch.bool, device=model.device)
    for t in range(config.max_new_tokens):
        probabilities = warp(written, logits.float()).softmax(-1)
        tokens = torch.multinomial(probabilities, 1)
        written[alive, t] = tokens[:, 0]
        stopped = running & torch.isin(tokens[:, 0], stop_ids)
        length[alive[stopped]] = t + 1
        running = running & ~stopped
        left = int(running.sum())
        if left == 0 or t + 1 == config.max_new_tokens:
            break
        if left <= len(running) // 2:
            keep = running.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            alive, tokens, mask, position = alive[keep], tokens[keep], mask[keep], position[keep]
            running = running[keep]
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], -1)
        position = position + 1
        inputs = {"input_ids": tokens, "position_ids": position, "attention_mask": mask}
        logits = model(**inputs, past_key_values=cache, use_cache=True).logits[:, -1]
    return [row[:n] for row, n in zip(written.tolist(), length.tolist(), strict=True)]


def _left_padded(encoded: list[list[int]], pad: int, device: Any) -> tuple[Any, Any]:
    """Token ids and attention mask [prompts, width]; `pad` is never attended to, so any id will do."""
    import torch

    width = max(map(len, encoded))
    ids = torch.full((len(encoded), width), pad)
    mask = torch.zeros((len(encoded), width), dtype=torch.long)
    for row, tokens in enumerate(encoded):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    return ids.to(device), mask.to(device)


def _completion(tokenizer: Any, prompt: Prompt, k: int, row: list[int], stops: list[int]) -> Completion:
    finished = bool(row) and row[-1] in stops
    text = tokenizer.decode(row[:-1] if finished else row, skip_special_tokens=True)
    return Completion(prompt.id, prompt.task, k, text, finished, len(row))
