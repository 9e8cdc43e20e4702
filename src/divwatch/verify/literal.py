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
    writes it, the same for equal literals.

    >>> cruxeval("[ANSWER]assert f(2) == {'b': 1, 'a': (2,)}[/ANSWER]", "{'a': (2,), 'b': 1}").correct
    True
    """
    expected = ast.literal_eval(reference["output"] if isinstance(reference, dict) else str(reference))
    literal = _parse_literal(answer)
    if literal is None:
        return Verification(False, None)
    value, text = literal
    return Verification(True, _canonical(expected)) if value == expected else Verification(False, text)


def _parse_literal(answer: str) -> tuple[Any, str] | None:
    """The literal and its canonical text; None if there is none."""
    for pattern in (_WRAPPED, _FENCED):
        if blocks := pattern.findall(answer):
            answer = blocks[-1]
    answer = answer.strip().strip("`").strip()
    for text in (answer, *_after_assertion(answer)):
        if len(text) <= _LONGEST:
            try:
                value = ast.literal_eval(text)
                return value, _canonical(value)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
    return None


def _canonical(value: Any) -> str:
    """Python's text of a literal; one text for all that are equal (1, 1.0 and True; sets and dicts in any order).

    >>> _canonical({2.0: True, 1: {"b", "a"}})
    "{1: {'a', 'b'}, 2: 1}"
    """
    if isinstance(value, complex) and not value.imag:
        value = value.real
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return repr(int(value))
    if isinstance(value, list):
        return "[" + ", ".join(map(_canonical, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_canonical, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, set) and value:
        return "{" + ", ".join(sorted(map(_canonical, value))) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{_canonical(k)}: {_canonical(v)}" for k, v in value.items())) + "}"
    return repr(value)


def _after_assertion(answer: str) -> list[str]:
    """What follows each `==` of an answer that starts as `assert f(...) ==` or `f(...) ==`, first to last."""
    if not re.match(r"(?:assert\s+)?f\(", answer):
        return []
    return [answer[at.end() :].strip() for at in re.finditer("==", answer)]
