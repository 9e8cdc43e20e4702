"""LaTeX around a short answer: boxes, signs, thousands. What `gsm8k` and `math` do to an answer before they read it."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*\{")
_MINUS = str.maketrans("\u2212\uff0d\ufe63", "---")
# 9{,}500, 9,\!500, 9\,500 and thin or fixed spaces. A plain space also stands between two numbers.
_THOUSANDS = re.compile(
    r"(?<![\d.])([1-9]\d{0,2})((?:(?:\{,\}|,(?:\\!)+|\\[,;:!]|\\ |~|\{\}|[\u00a0\u2009\u202f])\s?\d{3})+)(?!\d)"
)


def plain_numbers(text: str) -> str:
    r"""`text` with an ASCII minus in place of Unicode's and no LaTeX or thin space between the groups of a number.

    >>> plain_numbers("\u22129{,}500 and 12\\,000")
    '-9500 and 12000'
    """
    return _THOUSANDS.sub(lambda m: m[1] + re.sub(r"\D", "", m[2]), text.translate(_MINUS))


def find_boxes(text: str) -> tuple[list[tuple[int, int, str]], bool]:
    r"""The outermost \boxed{...} and \fbox{...} as (start, end, content), and whether one of them never closes.

    >>> find_boxes(r"\boxed {7}, \fbox{\frac{1}{2}}, \boxed{3")
    ([(0, 10, '7'), (12, 30, '\\frac{1}{2}')], True)
    """
    boxes, at = [], 0
    while opening := _BOX.search(text, at):
        end = _closing_brace(text, opening.end())
        if end is None:
            return boxes, True
        boxes.append((opening.start(), end + 1, text[opening.end() : end]))
        at = end + 1
    return boxes, False


def _closing_brace(text: str, at: int) -> int | None:
    depth = 1
    for brace in re.compile(r"(?<!\\)[{}]").finditer(text, at):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.start()
    return None
