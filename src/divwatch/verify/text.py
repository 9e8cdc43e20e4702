"""Verifiers for short answers: the same text, or the same final number."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from divwatch.records import Verification
from divwatch.verify.latex import find_boxes, plain_numbers

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+"
# A minus behind a digit or a word is an operator or a hyphen (12-5, step-2); one before a space starts a list item.
_NUMBER = re.compile(
    rf"(?P<minus>(?<![\w)])(?<![\d)] )-(?=[$£€¥₹]?\s?\.?\d))?(?P<currency>[$£€¥₹]\s?(?P<after>-)?)?"
    rf"(?P<value>{_DIGITS})(?:\s?/\s?(?P<by>\d+)(?![\d/]))?"
)
_SIGN = r"(?:-|minus\s|negative\s)"
_BEFORE_NUMBER = rf"(?={_SIGN}?\s?[$£€¥₹]?-?\s?\.?\d)"
_FILLERS = r"(?:(?:approximately|about|roughly|exactly|only|just|simply|therefore|thus|equal to|[a-z]\s?=)[\s*_($:]+)*"
_ANSWER = (
    r"answer|\u7b54\u6848|\u7b54\u3048|r\u00e9ponse|respuesta|resposta|risposta|antwort|\u043e\u0442\u0432\u0435\u0442"
)
_IS = r"\s+(?:(?:is|equals)\b|(?:would|will|should|must) be\b)"
# A colon or what stands for it: a dash or an arrow, "\u662f", the end of a heading.
_COLON = r"(?:\s+(?:->?|[\u2013\u2014])(?=\s)|\s*[:\uff1a=\u662f\u4e3a\u2192]|[*_ \t]*\n)"
# Ways to announce a final answer beside a box, most explicit first; of several of one kind the last counts.
_ANNOUNCED = [
    re.compile(rf"####(?!#)[\s:*]*{_BEFORE_NUMBER}"),
    re.compile(
        rf"(?:{_ANSWER})(?:(?:\s+(?:to|for|of)\b[^.:\n]{{1,80}}?)?{_IS}|{_COLON})[\s:*_=($`\"'\u201c]*?{_FILLERS}{_BEFORE_NUMBER}",
        re.IGNORECASE,
    ),
    re.compile(rf"^[ \t]*A:[\s*]*{_BEFORE_NUMBER}", re.MULTILINE),
]
_HEADING = re.compile(r"\d+(?:[.):](?=\s+\S)|(?:st|nd|rd|th)\b| [-\u2013\u2014] )")  # #### 2. Add the rest
# The answer is 3 * 6 = 18, 9 eggs * $2 = $18, 5 % of 360 = 18.
_NOUN = r"\s(?!(?:of|times|plus|minus|x|because|since|as|so|if|and|or)\b)(?>[a-z]+)"
_TERM = rf"(?>[(\s]*)[$£€¥₹]?(?>\d[\d.,/]*)\)?(?:\s?%)?(?:{_NOUN}){{0,2}}"
_OPERATOR = r"\s*(?:[-+*/x\u00d7\u00f7]|of\b|times\b|plus\b|minus\b|divided by\b|multiplied by\b)"
_EQUATION = re.compile(
    rf"(?:[-\d\s.,+*/x\u00d7\u00f7()$£€¥₹%]*|{_TERM}(?:{_OPERATOR}{_TERM}){{0,6}}\s*)=(?=[^=\n]*\d)", re.IGNORECASE
)
_TIMES = re.compile(r"\\(?:times|cdot)(?![a-z])")
_FRACTION = re.compile(r"(?<![\d}])\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_MIXED = re.compile(
    r"(?<![\d.,/])(\d+)\s*\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}|(?<![\d.,/])(\d+) (\d)/(\d{1,2})(?![\d/])"
)
_PRODUCT = re.compile(r"\s*(?:\^\s*\{?\d|[*x\u00d7]\s*\d)")
_STYLED = re.compile(r"\\(?:text|math)[a-z]*\s*\{([^{}]*)\}|\\(?:underline|emph)\s*\{([^{}]*)\}")
_MARKUP = re.compile(r"\\[()\[\]]|\\(?:left|right|displaystyle|quad|,|;|:|!)(?![a-z])|[{}]")


def exact(answer: str, reference: Any) -> Verification:
    """Correct if the answer equals the reference, ignoring case, surrounding space and a final full stop.

    >>> exact(" Paris. ", "paris").correct
    True
    """
    normal = _normal(answer)
    return Verification(normal == _normal(str(reference)), normal)


def _normal(text: str) -> str:
    return " ".join(text.strip().rstrip(".").lower().split())


def gsm8k(answer: str, reference: Any) -> Verification:
    r"""Correct if the final number equals the reference's.

    The final number is in the last \boxed or \fbox, else after ####, after 'answer is' or 'Answer:', after 'A:', else
    it is the last number. A markdown heading (`#### 2. Add the rest`) announces nothing; a last box that never closes
    has no number. LaTeX around the number is read. The reference is GSM8K's own answer field or the bare number.

    >>> gsm8k("5 bags of 3 make 15. The answer is $15.00.", "... #### 15")
    Verification(correct=True, answer='15', reason=None)
    """
    number, expected = final_number(answer), final_number(str(reference))
    return Verification(number is not None and number == expected, number)


def final_number(text: str) -> str | None:
    """The final number (see `gsm8k`) in canonical form: no commas, currency or trailing zeros; None if there is none.

    >>> final_number("It costs 1,234.50 dollars"), final_number("none")
    ('1234.5', None)
    """
    text = plain_numbers(text).replace("\\$", "$").replace("\\%", "%")
    boxes, unfinished = find_boxes(text)
    if unfinished:
        return None
    if boxes:
        content = _without_latex(boxes[-1][2])
        value = content.rpartition("=")[2]
        if number := _NUMBER.search(value):
            return None if _PRODUCT.match(value, number.end()) else _canonical(number)  # \boxed{10^3} is not 10
        if number := _NUMBER.search(content):
            return _canonical(number)
    text = _without_latex(text)
    for pattern in _ANNOUNCED:
        ends = [m.end() for m in pattern.finditer(text) if "#" not in m[0] or not _HEADING.match(text, m.end())]
        if ends:
            return _announced_number(text[ends[-1] :])
    numbers = list(_NUMBER.finditer(text))
    return _canonical(numbers[-1]) if numbers else None


def _announced_number(text: str) -> str | None:
    """The number at the start of `text`, or the result of the equation there. A space may follow its minus."""
    while equation := _EQUATION.match(text):
        text = text[equation.end() :]
    number = _NUMBER.search(
        _joined_thousands(re.sub(rf"^\s*(?:-\s+|{_SIGN}(?=\s?[$£€¥₹]?\.?\d))", "-", text, flags=re.IGNORECASE))
    )
    return _canonical(number) if number else None


def _joined_thousands(text: str) -> str:
    """1 000 000 at the start of the text as 1000000."""
    return re.sub(r"^\W*[1-9]\d{0,2}(?: \d{3})+(?![\d-])", lambda m: m[0][:1] + m[0][1:].replace(" ", ""), text)


def _without_latex(text: str) -> str:
    r"""The text of LaTeX commands that only set a number: \text{18}, \mathbf{18}; \frac{36}{2} as 36/2."""
    for _ in range(3):  # commands inside commands
        text = _STYLED.sub(lambda m: m[1] or m[2] or "", text)
        text = _MIXED.sub(_as_fraction, text)
        text = _FRACTION.sub(lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", text)
    text = _TIMES.sub("*", text).replace("\\div", "/")
    return _MARKUP.sub(" ", text)


def _as_fraction(mixed: re.Match[str]) -> str:
    """2\\frac{1}{2} and 2 1/2 as 5/2."""
    whole, top, bottom = (int(part) for part in mixed.groups() if part is not None)
    return f"{whole * bottom + top}/{bottom}" if top < bottom else mixed[0]


def _canonical(number: re.Match[str]) -> str | None:
    """Decimal where that is exact, else a fraction in lowest terms."""
    try:
        value = Fraction(number["value"].replace(",", "")) / Fraction(number["by"] or 1)
        if number["minus"] or number["after"]:
            value = -value
        places, rest = 0, value.denominator
        while rest % 10 == 0 or rest % 5 == 0 or rest % 2 == 0:
            rest //= 10 if rest % 10 == 0 else 5 if rest % 5 == 0 else 2
            places += 1
        if rest != 1:
            return str(value)
        digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    except (ValueError, ZeroDivisionError):  # more digits than Python converts
        return None
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :].rstrip("0")
    return ("-" if value < 0 else "") + whole + ("." + decimals if decimals else "")
