"""What a look asks of a backend: encoded prompts, how to decode them, the seed. Made before anything is sampled, so
that a prompt that cannot be asked is known before the first collective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.panel.form import fixed_form, is_chat, opens_thought, prompt_text, stop_strings
from divwatch.panel.length import token_limit
from divwatch.records import Completion, Prompt
from divwatch.sampling.decoding import Decoding
from divwatch.sampling.memory import context_length
from divwatch.sampling.tokens import stop_tokens
from divwatch.verify.thinking import CLOSE, OPEN


@dataclass(frozen=True)
class Request:
    """Prompts [N] in the panel's order with their token ids; rows of a plan point into them.

    opened: the prompt itself ends inside a thought, as the released Think template's does.
    limits: new tokens after which a prompt's completions are cut, `how.limit` at most.
    ends:   texts that end a prompt's completions besides the stop tokens.
    expected: new tokens of this rank's completions at the look before; empty: not known.
    """

    tokenizer: Any
    prompts: Sequence[Prompt]
    encoded: list[list[int]]
    opened: list[bool]
    limits: list[int]
    ends: list[tuple[str, ...]]
    how: Decoding
    seed: int
    device: Any
    expected: Sequence[int] = ()

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
        entropy = getattr(ids, "entropy", None)  # other backends do not know it
        ids = ids[: self.limits[prompt]]  # a backend may know one limit for all
        # A backend may know fewer end tokens.
        ids = ids[: next((at + 1 for at, token in enumerate(ids) if token in self.how.stops), len(ids))]
        finished = bool(ids) and ids[-1] in self.how.stops
        text = self.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True)
        end = min((at for stop in self.ends[prompt] if (at := text.find(stop)) >= 0), default=None)
        question = self.prompts[prompt]
        return Completion(
            question.id,
            question.task,
            sample,
            (OPEN if self.opened[prompt] else "") + text[:end],
            finished or end is not None,
            len(ids),
            thought_closed=self._closed_by_force(prompt, ids),
            entropy=None if entropy is None else round(entropy, 4),
        )

    def _closed_by_force(self, prompt: int, ids: Sequence[int]) -> bool:
        at = self.how.close_at
        return at is not None and len(ids) > at and self.thought_is_open(prompt, ids[:at])


def make_request(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], config: WatchConfig, seed: int, device: Any
) -> Request:
    """Raises DivwatchError for a prompt that cannot be asked: no chat template, or longer than the model's context."""
    form = fixed_form(config.form, tokenizer)
    texts = [prompt_text(tokenizer, prompt, prompt.thinking, form) for prompt in prompts]
    encoded = [
        list(tokenizer(text, add_special_tokens=not is_chat(prompt, form))["input_ids"])
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    close = tuple(tokenizer(f"\n{CLOSE}\n\n", add_special_tokens=False)["input_ids"]) if config.think_tokens else ()
    thought = 0 if config.think_tokens is None else config.think_tokens + len(close)
    context = context_length(model)
    limits = [
        token_limit(prompt, config.max_new_tokens, context and context - len(ids) - thought) + thought
        for prompt, ids in zip(prompts, encoded, strict=True)
    ]
    how = Decoding(
        float(config.temperature),
        config.top_p,
        stop_tokens(model, tokenizer),
        max(limits),
        config.think_tokens,
        close,
    )
    _check_lengths(context, prompts, encoded, limits)
    opened = [opens_thought(text) for text in texts]
    ends = [stop_strings(prompt, form) for prompt in prompts]
    return Request(tokenizer, prompts, encoded, opened, limits, ends, how, seed, device)


def _check_lengths(
    context: int | None, prompts: Sequence[Prompt], encoded: Sequence[Sequence[int]], limits: Sequence[int]
) -> None:
    for prompt, ids, limit in zip(prompts, encoded, limits, strict=True):
        if not ids:
            raise DivwatchError(f"prompt {prompt.id!r} has no tokens: remove it or give it a text")
        if context and len(ids) + limit > context:
            raise DivwatchError(
                f"prompt {prompt.id!r} has {len(ids)} tokens and {limit} more may follow, the model reads {context}: "
                "shorten or remove the prompt, or lower watch_max_new_tokens"
            )
