"""Rows whose prompt fills the token limit, which leaves no token of an answer to learn."""

from __future__ import annotations

import hashlib
from typing import Any


class Limit:
    """`fits(row)` is False if the context of the first answer has `tokens` tokens or more, chat template included.

    A token is at least one byte of text, so only rows with more bytes than the limit are tokenised: the check costs little
    on a large set. `tokens` None: every row fits, and so does a row whose first text is its answer. A conversation that the
    tokenizer has no chat template for, or whose template refuses it, is as long as its texts: the trainer has the last word.
    """

    def __init__(self, tokenizer: Any, tokens: int | None) -> None:
        self.tokenizer = tokenizer
        self.tokens = tokens

    def fits(self, row: dict[str, Any]) -> bool:
        if self.tokens is None:
            return True
        prompt = _context(row)
        if isinstance(prompt, str):
            return len(prompt.encode()) < self.tokens or len(self.tokenizer(prompt)["input_ids"]) < self.tokens
        if not prompt or sum(_bytes(message) for message in prompt) + self._frame < self.tokens:
            return True
        return self._length(prompt) < self.tokens

    def describe(self) -> list[Any]:
        """What `fits` depends on, for the key of the prepared copy."""
        if self.tokens is None:
            return [None]
        state = f"{self.tokenizer.chat_template}{len(self.tokenizer)}{self.tokenizer.name_or_path}"
        return [self.tokens, hashlib.sha256(state.encode()).hexdigest()]

    @property
    def _frame(self) -> int:
        """More bytes than any template adds to a conversation of a few turns."""
        return 64 + len(str(self.tokenizer.chat_template or "").encode())

    def _length(self, messages: list[dict[str, Any]]) -> int:
        try:
            encoded = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        # No template, or one that raises: it may take the whole conversation, which the trainer renders.
        except Exception:
            encoded = self.tokenizer("\n".join(m["content"] for m in messages if isinstance(m.get("content"), str)))
        return len(encoded["input_ids"])


def _context(row: dict[str, Any]) -> str | list[dict[str, Any]]:
    """What stands before the first answer: `prompt`, or the messages before the first assistant turn. Other forms: []."""
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return prompt
    turns = row.get("messages") if prompt is None else prompt
    messages = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    if prompt is not None:
        return messages
    first = next((i for i, m in enumerate(messages) if m.get("role") == "assistant"), len(messages))
    return messages[:first]


def _bytes(message: dict[str, Any]) -> int:
    """Bytes of a message's texts, and of the marks around it."""
    return 32 + sum(len(value.encode()) for value in message.values() if isinstance(value, str))
