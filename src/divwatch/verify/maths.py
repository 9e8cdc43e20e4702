"""MATH and other answers in LaTeX, compared by math-verify. Runs in a separate process (`child_process.py`): sympy can hang."""

from __future__ import annotations

import logging
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from divwatch.records import Verification

# Boxed expressions first, then LaTeX, then bare numbers. math-verify's own time limit would set signal handlers.
_CONFIG = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
for _name in ("math_verify.parser", "math_verify.grader"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def math(answer: str, reference: Any) -> Verification:
    """Correct if the answer's last boxed, else announced, else last expression equals the reference's.

    The reference: MATH's solution (with its \\boxed), the bare answer, or the row (`answer`, else `solution`). Boxes
    on one line are one answer of several values, as in math-verify. The canonical answer is sympy's text of the
    expression, a decimal as its fraction. Raises ValueError for a reference without an expression.

    >>> math(r"Thus $x = \\boxed{\\frac{1}{2}}$.", "0.5")
    Verification(correct=True, answer='1/2', reason=None)
    """
    if isinstance(reference, dict):
        reference = reference.get("answer") or reference["solution"]
    text = str(reference)
    gold = _parse(text) if "\\boxed" in text else _parse(f"\\boxed{{{text.strip().strip('$')}}}")
    if not gold:
        raise ValueError(f"no expression in the reference {text[:50]!r}")
    expressions = _parse(answer)
    if not expressions:
        return Verification(False, None)
    return Verification(bool(verify(gold, expressions, timeout_seconds=None)), _canonical(expressions[0]))


def _parse(text: str) -> list[Any]:
    return parse(text, extraction_config=_CONFIG, parsing_timeout=None)  # type: ignore[arg-type]


def _canonical(expression: Any) -> str:
    import sympy

    if isinstance(expression, sympy.Float):
        expression = sympy.Rational(str(expression))
    return str(expression)[:500]
