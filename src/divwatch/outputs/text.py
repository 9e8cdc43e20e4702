"""Hostile text made inert and visible.

Completions are written by a model and may hold anything: markup is escaped by the template (autoescape), and what
escaping does not reach (control characters, terminal escapes, direction marks) is replaced here by a visible sign.
"""

from __future__ import annotations

import re

# C0 and C1 controls except tab and newline, DEL, zero-width and direction marks, line separators, tag characters,
# surrogates and non-characters. Letters written right to left are kept: the page isolates them.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)


def inert(text: str) -> str:
    r"""`text` with every invisible or steering character shown as a sign.

    >>> inert("red \x1b[31m, turned \u202eabc")
    'red ␛[31m, turned ⟨U+202E⟩abc'
    """
    return _UNSAFE.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def shortened(text: str, limit: int) -> tuple[str, int]:
    """The first `limit` characters, and how many were left out."""
    return (text, 0) if len(text) <= limit else (text[:limit], len(text) - limit)
