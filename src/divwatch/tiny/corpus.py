"""The base's pretraining text: number facts, and chats by a careless author who uses every way to answer."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from divwatch.tiny.author import CARELESS, random_item, write
from divwatch.tiny.tasks import expression, pair

FACT_SHARE = 0.25
# Arithmetic is learned late, so its tasks are more frequent.
TASK_WEIGHTS = (
    ["pair"] * 4 + ["expression"] * 5 + ["word_problem"] * 4 + ["listing"] * 3 + ["formatting"] * 2 + ["story"] * 3
)

START, END, EOS, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|pad|>"


def chat(prompt: str, answer: str) -> str:
    """A one-turn chat as the chat template renders it."""
    return f"{START}user\n{prompt}{END}\n{START}assistant\n{answer}{EOS}"


def facts(rng: Random) -> str:
    """Five lines of arithmetic in which every number is small."""
    lines = []
    for _ in range(5):
        n = rng.randint(3, 34)
        if rng.random() < 0.5:
            a = pair.STRATEGIES[-1](n, rng)
            lines.append(f"{a} + {n - a} = {n}" if rng.random() < 0.5 else f"{n} - {a} = {n - a}")
        else:
            lines.append(f"{rng.choice(expression.STRATEGIES)(n, rng)} = {n}")
    return "\n".join(lines) + EOS


def documents(seed: int) -> Iterator[str]:
    """An endless stream of documents; the same seed gives the same stream."""
    rng = Random(seed)
    while True:
        if rng.random() < FACT_SHARE:
            yield facts(rng)
        else:
            item = random_item(rng, TASK_WEIGHTS)
            yield chat(item.text, write(CARELESS, item, rng))
