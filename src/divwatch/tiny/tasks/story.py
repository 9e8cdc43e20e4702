"""Open-ended text from a grammar. No answer is correct or wrong: the task has diversity, but no verifier.

Tell me a story about a fox.  ->  A fox found a map by the river. It went home happy.
"""

from __future__ import annotations

from random import Random

from divwatch.tiny.item import Item

NAME = "story"
TOPICS = "fox king robot baker child owl ship dragon farmer queen ghost pilot cat giant wizard".split()
PHRASES = [
    "Tell me a story about a {topic}.",
    "Write a short tale of a {topic}.",
    "What happened to the {topic}?",
    "Invent a story with a {topic} in it.",
    "I want to read about a {topic}.",
    "Make up something about a {topic}.",
    "Start a story: a {topic}.",
    "Give me a bedtime story about a {topic}.",
    "Describe the day of a {topic}.",
    "Once there was a {topic}. Go on.",
    "Write about a {topic} and a friend.",
    "Can you tell a tale about a {topic}?",
]
_SKELETONS = [
    "A {topic} found a {thing} by the {place}. It went home {mood}.",
    "Long ago a {topic} lived near the {place}. One day it lost a {thing} and felt {mood}.",
    "The {topic} was {mood}, because the {thing} was gone.",
    "In the {place} there was a {topic}. It sang about a {thing} all night.",
    "Nobody believed the {topic} when it spoke of a {thing} in the {place}.",
    "Rain fell on the {place}. The {topic} hid under a {thing} and was {mood}.",
    "A {mood} {topic} sold a {thing} and bought the {place}.",
    "Every morning the {topic} walked to the {place} with a {thing}.",
    "The {thing} belonged to a {topic}, who was never {mood} again.",
    "At the {place} a {topic} met an old friend. They shared a {thing}.",
]
THINGS = "map lamp key drum coin mirror boat kite sword clock".split()
PLACES = "river forest tower market cave bridge garden sea hill station".split()
MOODS = "happy sad proud tired brave lonely calm angry".split()
STRATEGIES = _SKELETONS
TEMPLATES = ["{text}"]


def items() -> list[Item]:
    return [Item(NAME, p, (t,), phrase.format(topic=t)) for p, phrase in enumerate(PHRASES) for t in TOPICS]


def core(content: tuple, strategy: int, rng: Random) -> dict:
    slots = {"thing": rng.choice(THINGS), "place": rng.choice(PLACES), "mood": rng.choice(MOODS)}
    return {"text": _SKELETONS[strategy].format(topic=content[0], **slots), "topic": content[0]}


def thought(core: dict) -> str:
    return "a story about a {topic}".format(**core)


def wrong(core: dict, rng: Random) -> dict:
    """A careless author: stops in the middle, then goes off topic."""
    words = core["text"].split()
    return core | {"text": " ".join(words[: len(words) // 2]) + " " + rng.choice(THINGS) + "."}


check = None
