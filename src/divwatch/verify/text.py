"""Verifiers for short answers: the same text, or the same final number."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from divwatch.records import Verification

_NUMBER = r"-?\$?\s?\d[\d,]*(?:\.\d+)?"
# Ways to announce a final answer, most explicit first; of several of one kind the last counts.
_ANNOUNCED = [
    re.compile(rf"####\s*({_NUMBER})"),
    re.compile(r"\\boxed\{([^{}]*)\}"),
    re.compile(rf"answer\s+is:?\s*\**({_NUMBER})", re.IGNORECASE),
    re.compile(rf"^\s*A:\s*({_NUMBER})", re.MULTILINE),
]


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
    """Correct if the final number equals the reference's: after ####, in \\boxed, after 'answer is' or 'A:', else the last one.

    The reference is GSM8K's own answer field or the bare number.

    >>> gsm8k("5 bags of 3 make 15. The answer is $15.00.", "... #### 15")
    Verification(correct=True, answer='15', reason=None)
    """
    number, expected = final_number(answer), final_number(str(reference))
    return Verification(number is not None and number == expected, number)


def final_number(text: str) -> str | None:
    """The announced or last number in canonical form (no commas, currency or trailing zeros); None if there is none.

    >>> final_number("It costs 1,234.50 dollars"), final_number("none")
    ('1234.5', None)
    """
    for pattern in _ANNOUNCED:
        announced = pattern.findall(text)
        numbers = re.findall(_NUMBER, announced[-1]) if announced else []
        if numbers:
            return _canonical(numbers[-1])
    numbers = re.findall(_NUMBER, text)
    return _canonical(numbers[-1]) if numbers else None


def _canonical(number: str) -> str | None:
    try:
        value = Decimal(re.sub(r"[^\d.\-]", "", number)).normalize()
    except InvalidOperation:
        return None
    return format(value + 0, "f")  # + 0: no negative zero
