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
_BEFORE_NUMBER = r"(?=-?\s?[$£€¥₹]?-?\s?\.?\d)"
_FILLERS = r"(?:(?:approximately|about|roughly|exactly|only|just|simply|therefore|thus|equal to|[a-z]\s?=)[\s*_($:]+)*"
# Ways to announce a final answer beside a box, most explicit first; of several of one kind the last counts.
_ANNOUNCED = [
    re.compile(rf"####(?!#)[\s:*]*{_BEFORE_NUMBER}"),
    re.compile(rf"answer(?:\s+is\b|\s*[:=])[\s:*_=($]*?{_FILLERS}{_BEFORE_NUMBER}", re.IGNORECASE),
    re.compile(rf"^[ \t]*A:[\s*]*{_BEFORE_NUMBER}", re.MULTILINE),
]
_HEADING = re.compile(r"\d+(?:[.):](?=\s+\S)|(?:st|nd|rd|th)\b| [-\u2013\u2014] )")  # #### 2. Add the rest
_EQUATION = re.compile(r"[-\d\s.,+*/x\u00d7\u00f7()$£€¥₹%]*=(?=[^=\n]*\d)")  # The answer is 3 * 6 = 18.
_TIMES = re.compile(r"\\(?:times|cdot)(?![a-z])")
_FRACTION = re.compile(r"(?<![\d}])\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
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
        number = _NUMBER.search(content.rpartition("=")[2]) or _NUMBER.search(content)
        if number:
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
    number = _NUMBER.search(re.sub(r"^\s*-\s+", "-", text))
    return _canonical(number) if number else None


def _without_latex(text: str) -> str:
    r"""The text of LaTeX commands that only set a number: \text{18}, \mathbf{18}; \frac{36}{2} as 36/2."""
    for _ in range(3):  # commands inside commands
        text = _STYLED.sub(lambda m: m[1] or m[2] or "", text)
        text = _FRACTION.sub(r"\1/\2", text)
    text = _TIMES.sub("*", text).replace("\\div", "/")
    return _MARKUP.sub(" ", text)


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
