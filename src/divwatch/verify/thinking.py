"""Separates reasoning from the answer: the answer is what follows the thought."""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


def final_answer(text: str) -> str | None:
    """The text after the last closed thought, stripped; None if a thought was opened and never closed.

    >>> final_answer("<think>5 + 9 = 14</think>5 and 9."), final_answer("5 and 9."), final_answer("<think>5 + 9")
    ('5 and 9.', '5 and 9.', None)
    """
    _, closed, after = text.rpartition(CLOSE)
    if OPEN in after:
        return None
    return (after if closed else text).strip()
