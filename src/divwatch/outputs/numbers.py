"""Numbers as people read them: levels, changes in per cent, intervals. Page, terminal and tables all format here.

The texts are typeset for a page (a real minus sign, a space before % that does not break); `plain` makes them ASCII.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

SPACE = "\N{NO-BREAK SPACE}"
# Kinds of verdicts that an alarm carries.
ALARMS = ("aggregate collapse", "narrowing among correct answers", "quality control only", "false recovery")


def number(value: float | None, digits: int = 3) -> str:
    """
    >>> number(0.41237), number(-2.0, 1), number(None)
    ('0.412', '−2.0', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def percent(value: float | None, signed: bool = True, digits: int = 0) -> str:
    r"""A share as text; a change that rounds to nothing has no sign.

    >>> [percent(v).replace("\N{NO-BREAK SPACE}", "_") for v in (-0.412, 0.001, 0.66)]
    ['−41_%', '0_%', '+66_%']
    """
    if value is None or math.isnan(value):
        return "–"
    rounded = round(100 * value, digits)
    sign = "−" if rounded < 0 else "+" if rounded > 0 and signed else ""
    return f"{sign}{abs(rounded):.{digits}f}{SPACE}%"


def steps_of(looks: Sequence[int], ends: tuple[int, int] = (6, 2)) -> str:
    """The steps of looks; of many, so many at either end.

    >>> steps_of([0, 4, 9]), steps_of(range(0, 2000, 100))
    ('0, 4, 9', '0, 100, 200, 300, 400, 500, ..., 1,800, 1,900')
    """
    texts = [f"{step:,}" for step in looks]
    first, last = ends
    return ", ".join(texts if len(texts) <= 2 * first else [*texts[:first], "...", *texts[-last:]])


def interval(lo: float | None, hi: float | None, form: str = "percent", digits: int = 3, signed: bool = True) -> str:
    """An interval as text; empty if it could not be computed.

    form: percent (of shares), step (whole numbers) or number. signed: whether a gain in per cent has a plus.

    >>> interval(-0.5, -0.31), interval(0.5, 0.61, signed=False), interval(10, 25, "step")
    ('[−50, −31]', '[50, 61]', '[10, 25]')
    """
    if lo is None or hi is None or math.isnan(lo) or math.isnan(hi):
        return ""
    if form == "percent":
        a, b = (percent(v, signed).removesuffix(f"{SPACE}%") for v in (lo, hi))
    elif form == "step":
        a, b = f"{lo:.0f}", f"{hi:.0f}"
    else:
        a, b = number(lo, digits), number(hi, digits)
    return f"[{a}, {b}]"


def change(value: float | None, lo: float | None, hi: float | None, signed: bool = True) -> str:
    """A change, or a share (`signed` False), in per cent with its interval.

    >>> plain(change(-0.24, -0.28, -0.19)), plain(change(0.24, 0.21, 0.28, signed=False))
    ('-24 % [-28, -19]', '24 % [21, 28]')
    """
    return f"{percent(value, signed)} {interval(lo, hi, signed=signed)}".rstrip(" ")


def verdict_text(kind: str, confirmed: bool) -> str:
    """A kind of verdict as people read it. confirmed: whether the loss that it rests on is.

    >>> verdict_text("none", False), verdict_text("aggregate collapse", False), verdict_text("aggregate collapse", True)
    ('no alarm', 'aggregate collapse, unconfirmed', 'aggregate collapse')
    """
    text = "no alarm" if kind == "none" else kind
    return text if confirmed or kind not in ALARMS else f"{text}, unconfirmed"


def plain(text: str) -> str:
    """The same text for terminals and logs: an ASCII minus, spaces and dashes."""
    return text.replace("−", "-").replace(SPACE, " ").replace("–", "-")


def typeset(text: str) -> str:
    """The opposite of `plain`, for sentences whose numbers were written in ASCII.

    >>> typeset("fell by -3 % (-9 to +3 %) at pre-SFT").replace(SPACE, "_")
    'fell by −3_% (−9 to +3_%) at pre-SFT'
    """
    return re.sub(r"(?<!\w)-(?=\d)", "−", text).replace(" %", f"{SPACE}%")
