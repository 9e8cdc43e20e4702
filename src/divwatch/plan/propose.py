"""The smallest panel that sees what is asked, within the budget of the run: prompts, samples and tokens of its looks.

Samples are taken to be independent from look to look: what common random numbers take away depends on how far the model
has moved, and a panel that relies on it may see less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from divwatch.plan.cost import Cost, Look
from divwatch.plan.sees import Watch, delays, relative_noise

# What is asked: a fall of this size right after the first look is flagged within so many looks in this share of runs, and
# the run has so many looks, first and last included.
FALL, WITHIN, SHARE, LOOKS = 0.10, 2, 0.95, 14
PROMPTS = (32, 48, 64, 80, 96, 120, 144, 176, 208, 256, 320, 400, 480)
SAMPLES = (8, 16, 32)
REFERENCE = 16  # samples at which the number of prompts is searched; noise scales it to others
TOKENS = (1.0, 0.75, 0.5)  # of the planned limit, tried in this order


@dataclass(frozen=True)
class Proposal:
    """prompts, samples, new_tokens: of a look. looks: of the run. seconds: of a look. share: of falls by FALL at the start
    that are flagged within WITHIN looks; below SHARE where the budget allows no panel that reaches it."""

    prompts: int
    samples: int
    new_tokens: int
    looks: int
    seconds: float
    share: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def propose(
    look: Look, watch: Watch, cost_of_look: Callable[[Look], Cost], looks_of: Callable[[Cost], int]
) -> Proposal | None:
    """The cheapest panel that is seen to reach what is asked; else the one that comes closest within the budget.

    look, watch: as planned; their tokens and tasks are kept, or fewer tokens taken where nothing fits. cost_of_look: the
    cost of a look. looks_of: how many looks of that cost the run has. None: not even the smallest panel has LOOKS looks.
    """
    closest: Proposal | None = None
    for part in TOKENS:
        tried = [_with(look, prompts, samples, part) for samples in SAMPLES for prompts in PROMPTS]
        priced = [(panel, cost_of_look(panel)) for panel in tried]
        fitting = [(panel, cost) for panel, cost in priced if looks_of(cost) >= LOOKS]
        if not fitting:
            continue
        most = _most_noise(watch)
        good = [(panel, cost) for panel, cost in fitting if relative_noise(panel.samples) / panel.prompts <= most]
        if good:
            return _proposal(*min(good, key=lambda pair: pair[1].seconds), watch, looks_of)
        best = min(fitting, key=lambda pair: relative_noise(pair[0].samples) / pair[0].prompts)
        closest = closest or _proposal(*best, watch, looks_of)
    return closest


def _with(look: Look, prompts: int, samples: int, part: float) -> Look:
    new = max(1, round(look.new_tokens * part))
    mean = None if look.mean_tokens is None else min(look.mean_tokens, new)
    return replace(look, prompts=prompts, samples=samples, new_tokens=new, mean_tokens=mean)


def _most_noise(watch: Watch) -> float:
    """The variance of the panel's mean up to which SHARE is reached, from REFERENCE samples by bisection; 0 if never."""
    low, high = 0, len(PROMPTS)
    while low < high:
        at = (low + high) // 2
        if _share(replace(watch, prompts=PROMPTS[at], samples=REFERENCE)) >= SHARE:
            high = at
        else:
            low = at + 1
    return relative_noise(REFERENCE) / PROMPTS[low] if low < len(PROMPTS) else 0.0


def _share(watch: Watch) -> float:
    return float((delays(watch, WITHIN + 2, 1, FALL) <= WITHIN).mean())


def _proposal(look: Look, cost: Cost, watch: Watch, looks_of: Callable[[Cost], int]) -> Proposal:
    share = _share(replace(watch, prompts=look.prompts, samples=look.samples))
    return Proposal(look.prompts, look.samples, look.new_tokens, looks_of(cost), cost.seconds, share)
