"""The tokenizer of a trainer, and the tokens that end an answer."""

from __future__ import annotations

import copy
from typing import Any

from divwatch.errors import DivwatchError

MARK = "divwatch-answer"
# Put before a template that reads contents as lists of parts: it makes such lists of plain texts.
PARTS = (
    "{%- set as_parts = namespace(messages=[]) -%}{%- for message in messages -%}"
    "{%- set content = message['content'] if message['content'] is not string "
    "else [{'type': 'text', 'text': message['content']}] -%}"
    "{%- set as_parts.messages = as_parts.messages + [dict(message, content=content)] -%}"
    "{%- endfor -%}{%- set messages = as_parts.messages -%}"
)


def tokenizer_of(trainer: Any) -> Any:
    """The trainer's tokenizer; of a processor (vision-language models) its tokenizer, with the processor's chat template.

    A template that the trainer uses in place of the tokenizer's (TRL's assistant_only_loss, and GRPO with tools) is used.

    Raises DivwatchError if there is none.
    """
    processing = trainer.processing_class
    if processing is None:
        raise DivwatchError("the trainer has no tokenizer: give it one as processing_class")
    tokenizer, template = getattr(processing, "tokenizer", None), getattr(trainer, "chat_template", None)
    if tokenizer is None:
        if not callable(getattr(processing, "decode", None)):
            raise DivwatchError(
                f"processing_class is a {type(processing).__name__} without a tokenizer: give a tokenizer or its processor"
            )
        return _with_template(processing, template) if isinstance(template, str) else processing
    template = template or getattr(processing, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        return tokenizer
    own = _with_template(tokenizer, template)
    if MARK not in (_render(own, [{"role": "user", "content": MARK}]) or MARK):
        own.chat_template = PARTS + template
    return own


def _with_template(tokenizer: Any, template: str) -> Any:
    """A copy: the trainer's tokenizer stays as it is."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    return own


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a completion: the model's own list, the tokenizer's end token, the template's end of a turn."""
    own = model.generation_config.eos_token_id if getattr(model, "generation_config", None) is not None else None
    ids = {*(own if isinstance(own, (list, tuple)) else [own]), tokenizer.eos_token_id, _turn_token(tokenizer)}
    stops = sorted(i for i in ids if i is not None)
    if not stops:
        raise DivwatchError("neither model nor tokenizer names an end token: set tokenizer.eos_token")
    return stops


def why_endless(model: Any, tokenizer: Any) -> str | None:
    """One line if the chat template ends an answer with none of `stop_tokens`; else None."""
    end = _turn_end(tokenizer)
    if end is None or set(_encode(tokenizer, end)) & set(stop_tokens(model, tokenizer)):
        return None
    return (
        f"the chat template ends an answer with {(end.strip() or end)[:40]!r}, which is no end token, so answers run to the "
        "limit: end it with the tokenizer's eos_token, or add its token to model.generation_config.eos_token_id"
    )


def _turn_token(tokenizer: Any) -> int | None:
    """The first special or added token after an answer in the chat template: what training taught to end it with."""
    end = _turn_end(tokenizer)
    if end is None:
        return None
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    special.discard(getattr(tokenizer, "unk_token_id", None))
    return next((i for i in _encode(tokenizer, end) if i in special), None)


def _turn_end(tokenizer: Any) -> str | None:
    """What the chat template writes after the last answer; None without a template, or one that renders no answer."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    text = _render(tokenizer, [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}])
    return text.rpartition(MARK)[2] if text and MARK in text else None


def _render(tokenizer: Any, messages: list[dict[str, str]]) -> str | None:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # templates raise what they like; a prompt that cannot be asked gets its own line
        return None


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
