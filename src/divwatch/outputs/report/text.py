"""Hostile text made inert and visible, and numbers as people read them.

Completions are written by a model and may hold anything: markup is escaped by the template (autoescape), and what
escaping does not reach (control characters, terminal escapes, direction marks) is replaced here by a visible sign.
"""

from __future__ import annotations

import math
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


def missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: float | None, digits: int = 3) -> str:
    """
    >>> number(0.41237), number(-2.0, 1), number(None)
    ('0.412', '−2.0', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def percent(value: float | None, signed: bool = True) -> str:
    r"""A share as text; a change that rounds to nothing has no sign.

    >>> [percent(v).replace("\N{NO-BREAK SPACE}", "_") for v in (-0.412, 0.001, 0.66)]
    ['−41_%', '0_%', '+66_%']
    """
    if value is None or math.isnan(value):
        return "–"
    whole = round(100 * value)
    sign = "−" if whole < 0 else "+" if whole > 0 and signed else ""
    return f"{sign}{abs(whole)}\N{NO-BREAK SPACE}%"


def between(lo: float | None, hi: float | None, form: str = "percent", digits: int = 3) -> str:
    """An interval as text; empty where it could not be computed.

    >>> between(-0.5, -0.31), between(10, 25, "step")
    ('[−50, −31]', '[10, 25]')
    """
    if lo is None or hi is None or math.isnan(lo) or math.isnan(hi):
        return ""
    if form == "percent":
        a, b = (percent(v, signed=True).removesuffix("\N{NO-BREAK SPACE}%") for v in (lo, hi))
    elif form == "step":
        a, b = f"{lo:.0f}", f"{hi:.0f}"
    else:
        a, b = number(lo, digits), number(hi, digits)
    return f"[{a}, {b}]"
