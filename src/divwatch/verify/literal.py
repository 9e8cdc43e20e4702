"""CRUXEval: the value that a function returns, given as a Python literal. The answer is parsed, never run."""

from __future__ import annotations

import ast
import re
from typing import Any

from divwatch.records import Verification

_LONGEST = 20_000  # characters: the parser needs too much memory for more
_WRAPPED = re.compile(r"\[ANSWER\](.*?)(?:\[/ANSWER\]|\Z)", re.DOTALL)
_FENCED = re.compile(r"```(?:python)?\s*\n?(.*?)```", re.DOTALL)


def cruxeval(answer: str, reference: Any) -> Verification:
    """Correct if the answer's literal `==` the reference's: 1 == 1.0, sets in any order.

    The answer: between [ANSWER] tags, in a fenced block, or all of it; after `==` where it repeats the assertion. The
    reference: the literal's text, or the data set's row (its `output`). The canonical answer is the literal as Python
    writes it.

    >>> cruxeval("[ANSWER]assert f(2) == {'b': 1, 'a': (2,)}[/ANSWER]", "{'a': (2,), 'b': 1}").correct
    True
    """
    expected = ast.literal_eval(reference["output"] if isinstance(reference, dict) else str(reference))
    literal = _parse_literal(answer)
    if literal is None:
        return Verification(False, None)
    value, text = literal
    return Verification(bool(value == expected), text)


def _parse_literal(answer: str) -> tuple[Any, str] | None:
    """The literal and Python's text of it; None where there is none."""
    for pattern in (_WRAPPED, _FENCED):
        if blocks := pattern.findall(answer):
            answer = blocks[-1]
    answer = answer.strip().strip("`").strip()
    for text in (answer, *_after_assertion(answer)):
        if len(text) <= _LONGEST:
            try:
                value = ast.literal_eval(text)
                return value, repr(value)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
    return None


def _after_assertion(answer: str) -> list[str]:
    """What follows each `==` of an answer that starts as `assert f(...) ==` or `f(...) ==`, first to last."""
    if not re.match(r"(?:assert\s+)?f\(", answer):
        return []
    return [answer[at.end() :].strip() for at in re.finditer("==", answer)]
