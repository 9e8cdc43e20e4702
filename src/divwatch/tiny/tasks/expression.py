"""An expression of a given value, checked by a safe evaluator (integer arithmetic only).

Write an expression equal to 12.  ->  3 * 4          right, canonical "3*4"
                                      20 - 8 = 12    right, canonical "20-8"
                                      12             wrong: no operation
"""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction
from random import Random

from divwatch.records import Verification
from divwatch.tiny.item import Item

NAME = "expression"
PHRASES = [
    "Write an expression equal to {n}.",
    "Give a calculation that makes {n}.",
    "What calculation gives {n}?",
    "Show a way to get {n}.",
    "Make {n} with a calculation.",
    "Find an expression with value {n}.",
    "How can I compute {n}?",
    "Write some arithmetic for {n}.",
    "Compute {n} from other numbers.",
    "Give me a formula for {n}.",
]


def _product(n: int, rng: Random) -> str:
    factors = [d for d in range(2, n) if n % d == 0]
    return f"{n // (d := rng.choice(factors))} * {d}" if factors else f"{n} * 1"


STRATEGIES = [
    lambda n, rng: f"{n - 1} + 1",
    lambda n, rng: f"{n + 1} - 1",
    lambda n, rng: f"{n - n // 2} + {n // 2}",
    lambda n, rng: f"{n + 10} - 10",
    _product,
    lambda n, rng: f"{n - (b := rng.randint(1, n - 1))} + {b}",
    lambda n, rng: f"{n + (b := rng.randint(1, 9))} - {b}",
    lambda n, rng: f"{(a := rng.randint(1, n - 2))} + {(b := rng.randint(1, n - a - 1))} + {n - a - b}",
]
TEMPLATES = [
    "{e}",
    "{e} = {n}",
    "{n} = {e}",
    "You can write {e}.",
    "It is {e}.",
    "Try {e}.",
    "One way is {e}.",
    "Use {e} to get {n}.",
]
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_CANDIDATE = re.compile(r"\(*\s*\d+(?:\s*[-+*/]\s*\(*\s*\d+\s*\)*)+")


def items() -> list[Item]:
    return [Item(NAME, p, (n,), phrase.format(n=n)) for p, phrase in enumerate(PHRASES) for n in range(5, 25)]


def core(content: tuple, strategy: int, rng: Random) -> dict:
    (n,) = content
    return {"e": STRATEGIES[strategy](n, rng), "n": n}


def thought(core: dict) -> str:
    return "{e} = {n}".format(**core)


def wrong(core: dict, rng: Random) -> dict:
    first, rest = core["e"].split(" ", 1)
    return core | {"e": f"{max(0, int(first) + rng.choice([-3, -2, -1, 1, 2, 3]))} {rest}"}


def check(answer: str, content: tuple) -> Verification:
    (n,) = content
    candidates = _CANDIDATE.findall(answer)
    if len(candidates) != 1:
        return Verification(correct=False, answer=None)
    try:
        value = evaluate(candidates[0])
    except (SyntaxError, ZeroDivisionError, ValueError):
        return Verification(correct=False, answer=None)
    return Verification(correct=value == n, answer=re.sub(r"\s+", "", candidates[0]))


def evaluate(expression: str) -> Fraction:
    """Value of + - * / over whole numbers, exactly. Raises ValueError for anything else, also for a long expression.

    >>> evaluate("2 * (3 + 4)")
    Fraction(14, 1)
    """
    if len(expression) > 100:
        raise ValueError("expression longer than 100 characters")
    return _value(ast.parse(expression.strip(), mode="eval").body)


def _value(node: ast.AST) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
    raise ValueError("only + - * / over whole numbers")
