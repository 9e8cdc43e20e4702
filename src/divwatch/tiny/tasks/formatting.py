"""A format instruction: a sentence about a topic that follows it. Correct if the instruction holds and the topic is named.

Write about a fox in capital letters.  ->  THE FOX SLEEPS.   right
Write about a fox and end with a !     ->  The fox runs!     right
"""

from __future__ import annotations

from random import Random

from divwatch.records import Verification
from divwatch.tiny.item import Item

NAME = "formatting"
TOPICS = "fox king robot baker child owl ship dragon farmer queen".split()
RULES = {
    "capitals": ("in capital letters", str.upper, str.isupper),
    "exclaim": ("and end with !", lambda s: s.rstrip(".") + "!", lambda s: s.endswith("!")),
    "quotes": ("in quotes", lambda s: f'"{s}"', lambda s: len(s) > 2 and s[0] == s[-1] == '"'),
    "question": ("as a question", lambda s: s.rstrip(".") + ", right?", lambda s: s.endswith("?")),
}
PHRASES = [
    "Write about a {topic} {rule}.",
    "One sentence on a {topic} {rule}, please.",
    "Say something of a {topic} {rule}.",
    "Describe a {topic} {rule}.",
    "Give me a {topic} sentence {rule}.",
]
_VERBS = "sleeps runs sings waits reads hides laughs travels".split()
_ADVERBS = ["today", "alone", "again", "slowly", "at night", "in the rain", "at home", "with a friend"]
STRATEGIES = [
    lambda topic, rng: f"The {topic} {rng.choice(_VERBS)}.",
    lambda topic, rng: f"A {topic} {rng.choice(_VERBS)} {rng.choice(_ADVERBS)}.",
    lambda topic, rng: f"I saw a {topic} that {rng.choice(_VERBS)}.",
    lambda topic, rng: f"My {topic} {rng.choice(_VERBS)} {rng.choice(_ADVERBS)}.",
    lambda topic, rng: f"{rng.choice(_ADVERBS).capitalize()} the {topic} {rng.choice(_VERBS)}.",
    lambda topic, rng: f"Look, a {topic} {rng.choice(_VERBS)}.",
    lambda topic, rng: f"Every {topic} {rng.choice(_VERBS)} {rng.choice(_ADVERBS)}.",
    lambda topic, rng: f"This {topic} never {rng.choice(_VERBS)}.",
]
TEMPLATES = ["{text}"]


def items() -> list[Item]:
    return [
        Item(NAME, p, (topic, rule), phrase.format(topic=topic, rule=RULES[rule][0]))
        for p, phrase in enumerate(PHRASES)
        for topic in TOPICS
        for rule in RULES
    ]


def core(content: tuple, strategy: int, rng: Random) -> dict:
    topic, rule = content
    plain = STRATEGIES[strategy](topic, rng)
    return {"text": RULES[rule][1](plain), "plain": plain, "rule": rule}


def thought(core: dict) -> str:
    return RULES[core["rule"]][0]


def wrong(core: dict, rng: Random) -> dict:
    return core | {"text": core["plain"]}


def check(answer: str, content: tuple) -> Verification:
    topic, rule = content
    return Verification(correct=bool(RULES[rule][2](answer)) and topic in answer.lower().split("?")[0], answer=None)
