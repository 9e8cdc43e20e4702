"""Rows whose prompt fills the token limit, which leaves no token of an answer to learn."""

from __future__ import annotations

import hashlib
from typing import Any


class Limit:
    """`fits(row)` is False if the context of the first answer has `tokens` tokens or more, chat template included.

    A token is at least one byte of text, so only rows with more bytes than the limit are tokenised: the check costs little
    on a large set. `tokens` None: every row fits.
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
        if sum(_bytes(message) for message in prompt) + self._frame < self.tokens:
            return True
        return len(self._ids(prompt)) < self.tokens

    def describe(self) -> list[Any]:
        """What `fits` depends on, for the key of the prepared copy."""
        if self.tokens is None:
            return [None]
        state = f"{self.tokenizer.chat_template}{len(self.tokenizer)}{self.tokenizer.name_or_path}"
        return [self.tokens, hashlib.sha256(state.encode()).hexdigest()]

    @property
    def _frame(self) -> int:
        """More bytes than any template adds to a conversation of a few turns."""
        return 64 + len((self.tokenizer.chat_template or "").encode())

    def _ids(self, messages: list[dict[str, Any]]) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        return encoded["input_ids"]


def _context(row: dict[str, Any]) -> Any:
    """What stands before the first answer: `prompt`, or the messages before the first assistant turn."""
    if row.get("prompt") is not None:
        return row["prompt"]
    messages = row.get("messages") or []
    first = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))
    return messages[:first]


def _bytes(message: dict[str, Any]) -> int:
    """Bytes of a message's texts, and of the marks around it."""
    return 32 + sum(len(value.encode()) for value in message.values() if isinstance(value, str))
