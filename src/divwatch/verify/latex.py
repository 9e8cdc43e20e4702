"""LaTeX around a short answer: boxes, signs, thousands. What `gsm8k` and `math` do to an answer before they read it."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*\{")
_WORDS = r"\\(?:text|mbox|math|operatorname)(?:rm|it|bf|sf|tt|normal|up|md)?\s*\{([^{}]*)\}"
# One letter or number is part of the expression, except a letter that may be a unit: 5\mathrm{m}.
_SYMBOL = re.compile(r"(?<![\d})~ ,:;!/t])\\math(?:rm|it|bf)\s*\{\s*([A-Za-z])\s*\}")
_LETTER = re.compile(r"\\(?:text|math|operatorname)[a-z]*\s*\{\s*([ei]|[-+]?[\d.,]+)\s*\}")
_QUANTITY = re.compile(r"\\text\s*\{\s*([-+]?[\d.,/]+)\s+([A-Za-z.]+)\s*\}")
_JOINED = re.compile(r"\s*,?\s*\\text\s*\{\s*,?\s*(?:and|or|,)\s*\}\s*")
_SPACE = r"(?:\s|~|\\[,;:! ]|\\quad(?![a-z]))*"
_POWER = r"(?:\^(?:\{\s*-?\d+\s*\}|\d))?"
_SHORT = "mm|cm|dm|km|kg|mg|ml|ft|yd|lb|lbs|oz|mi|hr|hrs|min|sec|mph|kmh|deg|day|days"
# Words right of a number or bracket with nothing of the expression after them: 5\text{ cm}^2, 3\,\mathrm{m}/\mathrm{s}.
_UNIT = re.compile(
    rf"(?<=[\d}})])(?:{_SPACE}(?:{_WORDS}{_POWER}|\\cdot(?![a-z])|\\times(?![a-z])|/))*{_SPACE}{_WORDS}{_POWER}{_SPACE}"
    rf"(?=[,;)\].$]|\\[)}}\]]|\\right|$)"
)
_PLAIN_UNIT = re.compile(
    rf"(?<=[\d}}])(?:\s*(?:{_SHORT})|\s+(?!sqrt|infinity|base)[a-z]{{4,}}(?: [a-z]+)?){_POWER}\s*$"
)
# Units that are no other way to write one another: 3 hours are not 3 minutes.
_UNITS = {
    "s": "s sec secs second seconds", "min": "min mins minute minutes", "h": "h hr hrs hour hours",
    "d": "day days", "wk": "week weeks", "mo": "month months", "yr": "year years",
    "mm": "mm millimeters", "cm": "cm centimeter centimeters", "m": "m meter meters metre metres",
    "km": "km kilometer kilometers", "in": "in inch inches", "ft": "ft foot feet", "yd": "yd yard yards",
    "mi": "mi mile miles", "mg": "mg", "g": "g gram grams", "kg": "kg kilogram kilograms",
    "lb": "lb lbs pound pounds", "oz": "oz ounce ounces", "ml": "ml", "l": "l liter liters litre litres",
    "dollar": "dollar dollars", "cent": "cent cents", "deg": "deg degree degrees", "rad": "rad radian radians",
}  # fmt: skip
# What may stand between boxes that are one answer of several values.
_BETWEEN = re.compile(r"[\s$,;]*(?:and|or)?[\s$]*(?:[A-Za-z]\s*=)?[\s$]*")
_NAMED = re.compile(r"\\operatorname\s*\{\s*(arc(?:sin|cos|tan)|sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|max|min)\s*\}")
# The name of a quantity before its value: \text{Area} = 12, \mathrm{P}(X = 1) = \frac{1}{2}.
_NAME = re.compile(rf"^\s*{_WORDS}\s*(?:\([^()]*\))?\s*=(?=[^=]+$)")
_SPACED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?!\d)")
_DASH = re.compile(r"(?<![\w)}\]%])(?<![\d)}\]%] )[\u2010-\u2013](?=[$£€¥₹]?\.?\d)")  # a dash as the sign of a number
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
    text = _DASH.sub("-", text.translate(_MINUS))
    return _THOUSANDS.sub(lambda m: m[1] + re.sub(r"\D", "", m[2]), text)


def without_units(latex: str) -> tuple[str, bool]:
    r"""An expression without its unit, and whether it mixes words and numbers: then only equal text is equal.

    >>> without_units(r"3\text{ cm}, 4\text{ cm}"), without_units(r"2\mathrm{e}^x")
    (('3, 4', False), ('2e^x', False))
    >>> without_units(r"4\text{ hours }10\text{ minutes}")[1]
    True
    """
    latex = _NAME.sub("", _NAMED.sub(r"\\\1 ", latex.strip().removesuffix(".")))
    latex = _SPACED.sub(
        lambda m: m[0].replace(" ", ""), _LETTER.sub(r"\1", _SYMBOL.sub(r"\1", " ".join(plain_numbers(latex).split())))
    )
    latex = _JOINED.sub(", ", _QUANTITY.sub(r"\1\\text{ \2}", latex))
    units = {plain_text(m[0]) for m in _UNIT.finditer(latex)}
    bare = _PLAIN_UNIT.sub("", _UNIT.sub("", latex)).strip()
    mixed = len(units) > 1 or (re.search(_WORDS, bare) is not None and re.search(r"\d", bare) is not None)
    return (latex, True) if mixed else (bare, False)


def unit_of(latex: str) -> str | None:
    r"""The unit behind a value, one name for all ways to write it; None without one that is known.

    >>> unit_of(r"3\text{ hours}"), unit_of(r"3\,\mathrm{hr}"), unit_of(r"3\text{ apples}")
    ('h', 'h', None)
    """
    latex = " ".join(latex.split())
    match = _UNIT.search(latex) or _PLAIN_UNIT.search(latex)
    word = re.sub(r"\^.*", "", plain_text(match[0])) if match and match.end() == len(latex) else ""
    return next((name for name, words in _UNITS.items() if word in words.split()), None)


def plain_text(latex: str) -> str:
    r"""Letters, digits and operators of an expression, without its layout: for a comparison as text.

    >>> plain_text(r"12_{\text{eight}}") == plain_text(r"12_{\rm eight}") == "12_eight"
    True
    """
    latex = re.sub(r"\\(?:text|mbox|math|rm|operatorname|left|right|quad)[a-z]*(?![a-z])|\\[,;:! ]", "", latex)
    return re.sub(r"[\s{}$~]", "", latex).lower().rstrip(".")


def find_boxes(text: str) -> tuple[list[tuple[int, int, str]], bool]:
    r"""The outermost \boxed{...} and \fbox{...} as (start, end, content), and whether one of them never closes.

    >>> find_boxes(r"\boxed {7}, \fbox{\frac{1}{2}}, \boxed{3")
    ([(0, 10, '7'), (12, 30, '\\frac{1}{2}')], True)
    """
    boxes: list[tuple[int, int, str]] = []
    at = 0
    while opening := _BOX.search(text, at):
        end = _closing_brace(text, opening.end())
        if end is None:
            return boxes, True
        boxes.append((opening.start(), end + 1, text[opening.end() : end]))
        at = end + 1
    return boxes, False


def answer_boxes(text: str, boxes: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    r"""The last box, and those before it that are one answer with it: `\boxed{2}, \boxed{3}`.

    >>> text = r"\boxed{2}. No, \boxed{3} or \boxed{4}"
    >>> [content for _, _, content in answer_boxes(text, find_boxes(text)[0])]
    ['3', '4']
    """
    first = len(boxes) - 1
    while first > 0 and _BETWEEN.fullmatch(text, boxes[first - 1][1], boxes[first][0]):
        first -= 1
    return boxes[first:]


def _closing_brace(text: str, at: int) -> int | None:
    depth = 1
    for brace in re.compile(r"(?<!\\)[{}]").finditer(text, at):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.start()
    return None
