"""Separates reasoning from the answer: the answer is what follows the thought."""

from __future__ import annotations

import unicodedata

OPEN, CLOSE = "<think>", "</think>"
# Letters and symbols without ink, and the marks of bytes that are no text.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc\ufffd\U0001d159")


def final_answer(text: str) -> str | None:
    """The text after the last closed thought, stripped; None if a thought was opened and never closed.

    Text of which nothing can be seen (zero-width and control characters, marks without a letter) is empty.

    >>> final_answer("<think>5 + 9 = 14</think>5 and 9."), final_answer("5 and 9."), final_answer("<think>5 + 9")
    ('5 and 9.', '5 and 9.', None)
    """
    _, closed, after = text.rpartition(CLOSE)
    if OPEN in after:
        return None
    answer = (after if closed else text).strip()
    return answer if any(map(_is_visible, answer)) else ""


def _is_visible(character: str) -> bool:
    """Letters, digits, punctuation, symbols and private use."""
    category = unicodedata.category(character)
    if category == "Cn":  # emoji newer than Python's tables, but no tags, selectors or non-characters
        return 0x10000 <= ord(character) < 0xE0000 and ord(character) & 0xFFFE != 0xFFFE
    return (category[0] in "LNPS" and character not in _BLANK) or category == "Co"
