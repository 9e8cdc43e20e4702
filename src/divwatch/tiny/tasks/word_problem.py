"""Word arithmetic: one right answer, with or without reasoning in a <think> trace.

Tom has 5 apples and buys 7. How many now?  ->  <think>5 + 7 = 12</think>Tom has 12 apples.   right, canonical "12"
"""

from __future__ import annotations

import re
from random import Random

from divwatch.records import Verification
from divwatch.tiny.item import Item

NAME = "word_problem"
PEOPLE = ["Tom", "Ana", "Sam", "Mia", "Leo", "Eva"]
THINGS = ["apples", "books", "coins", "cards", "pens"]
PHRASES = {
    "+": [
        "{who} has {a} {what} and buys {b}. How many now?",
        "{who} had {a} {what} and found {b} more. What is the total?",
        "If {who} owns {a} {what} and gets {b}, how many is that?",
    ],
    "-": [
        "{who} has {a} {what} and gives away {b}. How many are left?",
        "{who} had {a} {what} and lost {b}. What remains?",
        "If {who} owns {a} {what} and sells {b}, how many is that?",
    ],
}
TEMPLATES = [
    "{c}",
    "{who} has {c} {what}.",
    "The answer is {c}.",
    "It is {c} {what}.",
    "There are {c} {what}.",
    "{c} {what} in all.",
    "That makes {c}.",
    "{who} now has {c}.",
]
STRATEGIES = [lambda content, rng: content] * 8  # one right answer: authors differ in words only


def items() -> list[Item]:
    items = []
    for op, phrases in PHRASES.items():
        for p, phrase in enumerate(phrases):
            for a in range(2, 13):
                for b in range(2, 10):
                    if op == "-" and b >= a:
                        continue
                    who, what = PEOPLE[(a + p) % len(PEOPLE)], THINGS[(a * 3 + b) % len(THINGS)]
                    text = phrase.format(who=who, what=what, a=a, b=b)
                    items.append(Item(NAME, p, (op, a, b, who, what), text))
    return items


def core(content: tuple, strategy: int, rng: Random) -> dict:
    op, a, b, who, what = content
    return {"op": op, "a": a, "b": b, "c": a + b if op == "+" else a - b, "who": who, "what": what}


def thought(core: dict) -> str:
    return "{a} {op} {b} = {c}".format(**core)


def wrong(core: dict, rng: Random) -> dict:
    return core | {"c": max(0, core["c"] + rng.choice([-2, -1, 1, 2, 10]))}


def check(answer: str, content: tuple) -> Verification:
    op, a, b, *_ = content
    numbers = re.findall(r"\d+", answer)
    if not numbers:
        return Verification(correct=False, answer=None)
    return Verification(correct=int(numbers[-1]) == (a + b if op == "+" else a - b), answer=str(int(numbers[-1])))
