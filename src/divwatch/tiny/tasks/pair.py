"""Two numbers with a given sum: many right answers, each with a canonical form.

Give two numbers that add up to 14.  ->  5 and 9.          right, canonical "5+9"
                                         9 + 5 = 14        right, canonical "5+9"
                                         5 and 8.          wrong
"""

from __future__ import annotations

import re
from random import Random

from divwatch.records import Verification
from divwatch.tiny.item import Item

NAME = "pair"
PHRASES = [
    "Give two numbers that add up to {n}.",
    "Which two numbers make {n}?",
    "Find a pair of numbers with sum {n}.",
    "Split {n} into two numbers.",
    "I need two numbers whose sum is {n}.",
    "Write {n} as a sum of two numbers.",
    "Name two numbers that total {n}.",
    "What pair adds to {n}?",
    "Tell me two numbers with a total of {n}.",
    "Break {n} into two parts.",
]
# The first six are one number each given n (a narrow author repeats himself); the last is any split.
STRATEGIES = [
    lambda n, rng: n // 2,
    lambda n, rng: 1,
    lambda n, rng: n - 2,
    lambda n, rng: 3,
    lambda n, rng: n - 4,
    lambda n, rng: n // 2 + 1,
    lambda n, rng: rng.randint(1, n - 1),
]
TEMPLATES = [
    "{a} and {b}.",
    "{a} + {b} = {n}",
    "The numbers are {a} and {b}.",
    "You can use {a} and {b}.",
    "{a} plus {b} makes {n}.",
    "Take {a}, then add {b}.",
    "How about {a} and {b}?",
    "One pair is {a}, {b}.",
]


def items() -> list[Item]:
    return [Item(NAME, p, (n,), phrase.format(n=n)) for p, phrase in enumerate(PHRASES) for n in range(5, 25)]


def core(content: tuple, strategy: int, rng: Random) -> dict:
    (n,) = content
    a = STRATEGIES[strategy](n, rng)
    return {"a": a, "b": n - a, "n": n}


def thought(core: dict) -> str:
    return "{a} + {b} = {n}".format(**core)


def wrong(core: dict, rng: Random) -> dict:
    return core | {"b": max(0, core["b"] + rng.choice([-3, -2, -1, 1, 2, 3]))}


def check(answer: str, content: tuple) -> Verification:
    (n,) = content
    numbers = [int(x) for x in re.findall(r"\d+", answer)]
    if len(numbers) == 3 and numbers[2] == n:
        numbers = numbers[:2]
    if len(numbers) != 2:
        return Verification(correct=False, answer=None)
    low, high = sorted(numbers)
    return Verification(correct=low + high == n, answer=f"{low}+{high}")
