"""What a look asks of a backend: encoded prompts, how to decode them, the seed. Made before anything is sampled, so
that a prompt that cannot be asked is known before the first collective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.records import Completion, Prompt
from divwatch.sampling.decode import Decoding
from divwatch.verify.thinking import CLOSE, OPEN


@dataclass(frozen=True)
class Request:
    """Prompts [N] in the panel's order with their token ids; rows of a plan point into them."""

    tokenizer: Any
    prompts: Sequence[Prompt]
    encoded: list[list[int]]
    opened: list[bool]  # the prompt itself ends inside a thought, as the released Think template's does
    how: Decoding
    seed: int
    device: Any

    @cached_property
    def ids(self) -> list[str]:
        return [prompt.id for prompt in self.prompts]

    @cached_property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.encoded]

    def thought_is_open(self, prompt: int, ids: Sequence[int]) -> bool:
        text = (OPEN if self.opened[prompt] else "") + self.tokenizer.decode(ids, skip_special_tokens=True)
        return OPEN in text.rpartition(CLOSE)[2]

    def completion(self, prompt: int, sample: int, ids: Sequence[int]) -> Completion:
        """A row of new tokens as the record keeps it. A thought that the prompt opened is opened in the text too."""
        finished = bool(ids) and ids[-1] in self.how.stops
        text = self.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True)
        asked = self.prompts[prompt]
        return Completion(
            asked.id,
            asked.task,
            sample,
            (OPEN if self.opened[prompt] else "") + text,
            finished,
            len(ids),
            thought_closed=self._closed_by_force(prompt, ids),
        )

    def _closed_by_force(self, prompt: int, ids: Sequence[int]) -> bool:
        at = self.how.close_at
        return at is not None and len(ids) > at and self.thought_is_open(prompt, ids[:at])


def make_request(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], config: WatchConfig, seed: int, device: Any
) -> Request:
    """Raises DivwatchError for a prompt that cannot be asked: no chat template, or longer than the model's context."""
    texts = [prompt_text(tokenizer, prompt) for prompt in prompts]
    encoded = [list(tokenizer(text, add_special_tokens=plain)["input_ids"]) for text, plain in texts]
    close = tuple(tokenizer(f"\n{CLOSE}\n\n", add_special_tokens=False)["input_ids"]) if config.think_tokens else ()
    thought = 0 if config.think_tokens is None else config.think_tokens + len(close)
    how = Decoding(
        float(config.temperature),
        config.top_p,
        stop_tokens(model, tokenizer),
        config.max_new_tokens + thought,
        config.think_tokens,
        close,
    )
    _check_lengths(model, prompts, encoded, how.limit)
    opened = [text.rstrip().endswith(OPEN) for text, _ in texts]
    return Request(tokenizer, prompts, encoded, opened, how, seed, device)


def prompt_text(tokenizer: Any, prompt: Prompt) -> tuple[str, bool]:
    """(text, whether the tokenizer adds its special tokens): through the chat template where it is a conversation."""
    if prompt.messages is None:
        return prompt.text, True
    if not tokenizer.chat_template:
        raise DivwatchError(
            f"prompt {prompt.id!r} is a conversation but the tokenizer has no chat template: set one, or give plain prompts"
        )
    return tokenizer.apply_chat_template(prompt.messages, add_generation_prompt=True, tokenize=False), False


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a completion: the model's own list and the tokenizer's end token."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    stops = sorted(i for i in ids if i is not None)
    if not stops:
        raise DivwatchError("neither model nor tokenizer names an end token: set tokenizer.eos_token")
    return stops


def _check_lengths(model: Any, prompts: Sequence[Prompt], encoded: Sequence[Sequence[int]], limit: int) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not ids:
            raise DivwatchError(f"prompt {prompt.id!r} has no tokens: remove it or give it a text")
        if context and len(ids) + limit > context:
            raise DivwatchError(
                f"prompt {prompt.id!r} has {len(ids)} tokens and {limit} more may follow, the model reads {context}: "
                "shorten or remove the prompt, or lower watch_max_new_tokens"
            )
