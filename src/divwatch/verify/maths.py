"""MATH and other answers in LaTeX, compared by math-verify. Runs in a separate process (`child_process.py`): sympy can hang.

math-verify drops everything from the first unit on, and compares decimals to six places whatever their size. Therefore
units are removed before it reads an expression (`latex.py`), and numbers that it calls equal are compared once more, by
their ratio.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Any, NamedTuple

import sympy
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from divwatch.records import Verification
from divwatch.verify.latex import answer_boxes, find_boxes, plain_numbers, plain_text, unit_of, without_units

# Boxed expressions first, then LaTeX, then bare numbers. math-verify's own time limit would set signal handlers.
_LATEX = replace(LatexExtractionConfig().normalization_config, units=False)
_CONFIG = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=_LATEX), ExprExtractionConfig()]
for _name in ("math_verify.parser", "math_verify.grader"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_LONGEST = 2000  # characters of an expression
_RATIO = 1e-4  # 0.333333 is 1/3, 0.0000011 is not 0.0000012
_SEGMENT = re.compile(r"(?<!\\)\$\$?([^$]+)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BASE = re.compile(r"(?<=\d)_(?:\d|\{[^{}]*(?:\{[^{}]*\})?\s*\})")  # 12_8, 12_{\text{eight}}


def math(answer: str, reference: Any) -> Verification:
    """Correct if the answer's last boxed, else announced, else last expression equals the reference's.

    The reference: MATH's solution (with its \\boxed), the bare answer, or the row (`answer`, else `solution`). Boxes
    with only a comma, `and` or `or` between them are one answer of several values. A last box that never closes is no
    answer. A unit behind a value is ignored, unless the reference has another one (3 hours are not 3 minutes). Words
    between numbers (`4\\text{ hours }10\\text{ minutes}`) are compared as text. The canonical answer is sympy's text of
    the expression in a normal form; where the two are equal, of the reference.
    Raises ValueError for a reference without an expression.

    >>> math(r"Thus $x = \\boxed{\\frac{1}{2}}$.", "0.5")
    Verification(correct=True, answer='1/2', reason=None)
    """
    if isinstance(reference, dict):
        reference = reference.get("answer") or reference["solution"]
    text = str(reference)
    if not find_boxes(text)[0]:
        text = f"\\boxed{{{text.strip().strip('$')}}}"
    gold, given = _read(text), _read(answer)
    if not gold.expressions:
        raise ValueError(f"no expression in the reference {str(reference)[:50]!r}")
    if gold.words is not None or given.words is not None:
        return Verification(gold.words == given.words, given.words or given.canonical())
    if not given.expressions:
        return Verification(False, None)
    if any(one and other and one != other for one, other in ((gold.base, given.base), (gold.unit, given.unit))):
        return Verification(False, f"{given.canonical()} {given.unit or ''}".rstrip())
    equal = verify(gold.expressions, given.expressions, timeout_seconds=None)
    if equal and _same_size(gold.expressions[0], given.expressions[0]):
        return Verification(True, gold.canonical())
    return Verification(False, given.canonical())


class _Final(NamedTuple):
    """A final answer: its plain text where it mixes words and numbers, its base and unit, math-verify's expressions."""

    words: str | None
    base: str
    unit: str | None
    expressions: list[Any]

    def canonical(self) -> str | None:
        """The text that answers in one group share. An answer that is equal to the reference gets the reference's."""
        return str(_normal_form(self.expressions[0]))[:500] + self.base if self.expressions else None


_NOTHING = _Final(None, "", None, [])


def _read(text: str) -> _Final:
    text = plain_numbers(text)
    boxes, unfinished = find_boxes(text)
    if unfinished:
        return _NOTHING
    if boxes := [box for box in boxes if box[2].strip()]:  # "I write it in \\boxed{}"
        values = ", ".join(content.strip().strip("$") for _, _, content in answer_boxes(text, boxes))
        text, parts = f"\\boxed{{{values}}}", [(0, len(values) + 8, values, "\\boxed{%s}")]
    else:
        parts = [(m.start(), m.end(), m[1] or m[2] or m[3], "$%s$") for m in _SEGMENT.finditer(text)]
    words, base, unit, rewritten, at = None, "", None, "", 0
    for start, end, content, form in parts:
        if len(content) > _LONGEST:
            return _NOTHING
        bare, mixed = without_units(content.strip().strip("$"))
        base, unit = "".join(plain_text(m[0]) for m in _BASE.finditer(bare)), unit_of(content)
        if base:
            bare, mixed = without_units(_BASE.sub("", bare))
        words = plain_text(bare) + base if mixed else None
        rewritten += text[at:start] + form % bare
        at = end
    expressions = parse(rewritten + text[at:], extraction_config=_CONFIG, parsing_timeout=None)  # type: ignore[arg-type]
    return _Final(words, base, unit, [_exact_powers(expression) for expression in expressions])


def _exact_powers(expression: Any) -> Any:
    """2^{1/2} for 2^{0.5}, which math-verify compares as a rounded number."""
    if not isinstance(expression, sympy.Expr):
        return expression
    powers = [p for p in expression.atoms(sympy.Pow) if isinstance(p.exp, sympy.Float)]
    return expression.xreplace({p: sympy.Pow(p.base, sympy.Rational(str(p.exp)), evaluate=False) for p in powers})


def _same_size(a: Any, b: Any) -> bool:
    """False where two expressions have values whose ratio is not near 1, at one point for each symbol."""
    if isinstance(a, sympy.Eq) and isinstance(b, sympy.Eq) and a.lhs != b.lhs:
        return True
    a, b = (e.rhs if isinstance(e, sympy.Eq) else e for e in (a, b))
    if isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase):
        return all(map(_same_size, a, b))
    if isinstance(a, sympy.Tuple | sympy.Interval) and type(a) is type(b):
        return all(map(_same_size, a.args, b.args))
    if isinstance(a, sympy.FiniteSet) and isinstance(b, sympy.FiniteSet):
        return all(any(_same_size(x, y) for y in b.args) for x in a.args)
    if not isinstance(a, sympy.Expr) or not isinstance(b, sympy.Expr):
        return True
    names = {s.name for s in a.free_symbols}
    if names != {s.name for s in b.free_symbols}:
        return True
    point = {name: sympy.Rational(13 + 7 * i, 10) for i, name in enumerate(sorted(names))}
    values = [e.doit().subs({s: point[s.name] for s in e.free_symbols}).evalf(30) for e in (a, b)]
    if not all(v.is_number and v.is_finite for v in values) or values[0] == values[1]:
        return True
    if any(v == 100 * w for v, w in (values, reversed(values))):  # math-verify reads 50 as 50 %
        return True
    return bool(abs(values[0] - values[1]) <= _RATIO * max(map(abs, values)))


def _normal_form(expression: Any) -> Any:
    """The same for expressions in different notation: expanded, one fraction, constants by value; sets by element."""
    if isinstance(expression, sympy.Eq) and isinstance(expression.lhs, sympy.Symbol):
        return _normal_form(expression.rhs)  # x = 3 answers as 3 does
    try:
        if isinstance(expression, sympy.Expr):  # 2^{0.5} is 2^{1/2}
            expression = expression.xreplace({f: sympy.Rational(str(f)) for f in expression.atoms(sympy.Float)})
        if isinstance(expression, sympy.Tuple | sympy.FiniteSet | sympy.Interval):
            return expression.func(*map(_normal_form, expression.args))
        if isinstance(expression, sympy.MatrixBase):
            return expression.applyfunc(_normal_form)
        if not isinstance(expression, sympy.Expr):
            return expression
        value = expression.doit()
        if value.is_number and not value.is_Rational:
            rational = sympy.expand(value)
            return rational if rational.is_Rational else value.evalf(12)
        return sympy.cancel(sympy.expand(value))
    except Exception:  # what sympy cannot expand stays as it was written
        return expression
