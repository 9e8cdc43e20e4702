"""Authors write answers, each with a style (strategies and templates), an error rate, and a rate of <think> traces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from divwatch.tiny.item import Item, Style, unit_hash
from divwatch.tiny.tasks import TASKS


@dataclass(frozen=True)
class Author:
    """Writes the answers of a data set: `errors` is the share of wrong answers, in [0, 1]."""

    style: Style = Style()
    errors: float = 0.0


BROAD = Author()  # every strategy and template, no errors, no trace
CARELESS = Author(Style(think=0.3), errors=0.1)  # the base's own corpus
WEAK = Author(errors=0.5)
TEACHER_A = Author(Style((0,), (0,), think=1.0))
TEACHER_B = Author(Style((1,), (1,), think=1.0))
WEAK_A = Author(TEACHER_A.style, errors=0.5)
WEAK_B = Author(TEACHER_B.style, errors=0.5)
STRONG = Author(Style((2,), (2,)))  # one strategy, one template, no trace


def write(author: Author, item: Item, rng: Random) -> str:
    """One answer to `item`.

    >>> from divwatch.tiny.tasks import pair
    >>> write(TEACHER_A, pair.items()[9], Random(0))
    '<think>7 + 7 = 14</think>7 and 7.'
    """
    task = TASKS[item.task]
    core = task.core(item.content, author.style.strategy(len(task.STRATEGIES), rng), rng)
    if rng.random() < author.errors:
        core = task.wrong(core, rng)
    answer = task.TEMPLATES[author.style.template(len(task.TEMPLATES), rng)].format(**core)
    return f"<think>{task.thought(core)}</think>{answer}" if rng.random() < author.style.think else answer


@cache
def training_items() -> dict[str, list[Item]]:
    """The prompts that a data set may use, by task: all that are not held out."""
    return {name: [item for item in task.items() if not item.held_out] for name, task in TASKS.items()}


@cache
def held_out_items(per_task: int = 48) -> list[Item]:
    """The panel: the first `per_task` held-out prompts of each task, in an order fixed by their ids."""
    chosen = []
    for task in TASKS.values():
        held_out = sorted((i for i in task.items() if i.held_out), key=lambda i: unit_hash("order/" + i.id))
        chosen += held_out[:per_task]
    return chosen


def random_item(rng: Random, tasks: list[str] | None = None) -> Item:
    return rng.choice(training_items()[rng.choice(tasks or list(TASKS))])
