"""One prompt of the embedded world, whether it is held out, and the style in which an answer is written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random
from typing import Any

HELD_OUT_SHARE = 0.25


@dataclass(frozen=True)
class Item:
    """A prompt: the task's `phrase`-th phrasing of `content`. Phrase and content alone decide whether it is held out."""

    task: str
    phrase: int
    content: tuple[Any, ...]
    text: str

    @property
    def id(self) -> str:
        return f"{self.task}/{self.phrase}/{'-'.join(map(str, self.content))}"

    @property
    def held_out(self) -> bool:
        return unit_hash(self.id) < HELD_OUT_SHARE


@dataclass(frozen=True)
class Style:
    """Which strategies and templates an author uses (None: all), and the share of answers with a `<think>` trace."""

    strategies: tuple[int, ...] | None = None
    templates: tuple[int, ...] | None = None
    think: float = 0.0

    def strategy(self, available: int, rng: Random) -> int:
        return _pick(self.strategies, available, rng)

    def template(self, available: int, rng: Random) -> int:
        return _pick(self.templates, available, rng)


def _pick(allowed: tuple[int, ...] | None, available: int, rng: Random) -> int:
    return rng.randrange(available) if allowed is None else rng.choice(allowed) % available


def unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone: the same on every machine and Python version.

    >>> 0 <= unit_hash("pair/0/14") < 1
    True
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
