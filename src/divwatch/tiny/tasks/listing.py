"""A list with a constraint: that many different things of one kind.

Name three animals.  ->  cat, dog and fox.   right, canonical "cat dog fox"
                         cat, cat and dog.   wrong: one twice
"""

from __future__ import annotations

import re
from random import Random

from divwatch.records import Verification
from divwatch.tiny.item import Item

NAME = "listing"
KINDS = {
    "animals": "cat dog fox cow owl bear frog duck goat wolf".split(),
    "colours": "red blue green pink black white grey brown gold teal".split(),
    "fruits": "apple pear plum fig lemon mango peach grape melon kiwi".split(),
    "tools": "hammer saw drill axe rake spade pliers wrench file level".split(),
    "drinks": "tea milk water juice coffee cocoa soda cider broth punch".split(),
    "clothes": "hat coat scarf shirt sock shoe glove belt dress cap".split(),
    "cities": "paris rome oslo cairo lima tokyo delhi quito berlin madrid".split(),
    "games": "chess tag cards darts golf tennis poker bingo rugby snooker".split(),
}
COUNTS = {"two": 2, "three": 3, "four": 4}
PHRASES = [
    "Name {count} {kind}.",
    "List {count} {kind}.",
    "Give me {count} {kind}.",
    "Can you name {count} different {kind}?",
    "I want a list of {count} {kind}.",
    "What are {count} {kind}?",
    "Tell me {count} {kind} you know.",
    "Write down {count} {kind}.",
]
TEMPLATES = [
    "{joined}.",
    "Here they are: {joined}.",
    "{joined} are {kind}.",
    "I can name {joined}.",
    "Sure: {joined}.",
    "{kind}: {joined}.",
    "My list: {joined}.",
    "Some are {joined}.",
]


def _from(start: int):
    return lambda things, count, rng: [things[(start + i) % len(things)] for i in range(count)]


STRATEGIES = [_from(0), _from(4), _from(7), *[lambda things, count, rng: rng.sample(things, count)] * 5]


def items() -> list[Item]:
    return [
        Item(NAME, p, (kind, count), phrase.format(kind=kind, count=count))
        for p, phrase in enumerate(PHRASES)
        for kind in KINDS
        for count in COUNTS
    ]


def core(content: tuple, strategy: int, rng: Random) -> dict:
    kind, count = content
    return _render(kind, STRATEGIES[strategy](KINDS[kind], COUNTS[count], rng))


def _render(kind: str, things: list[str]) -> dict:
    return {"joined": ", ".join(things[:-1]) + " and " + things[-1], "kind": kind, "things": things}


def thought(core: dict) -> str:
    return "{n} {kind}".format(n=len(core["things"]), kind=core["kind"])


def wrong(core: dict, rng: Random) -> dict:
    things = list(core["things"])
    other = rng.choice([kind for kind in KINDS if kind != core["kind"]])
    things[rng.randrange(len(things))] = rng.choice(KINDS[other])
    return _render(core["kind"], things)


def check(answer: str, content: tuple) -> Verification:
    kind, count = content
    all_things = {thing for things in KINDS.values() for thing in things}
    named = [word for word in re.findall(r"[a-z]+", answer.lower()) if word in all_things]
    if not named:
        return Verification(correct=False, answer=None)
    right = len(named) == COUNTS[count] == len(set(named)) and set(named) <= set(KINDS[kind])
    return Verification(correct=right, answer=" ".join(sorted(named)))
