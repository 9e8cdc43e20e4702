"""The embedded world's data mixes: which author wrote which rows, following the Olmo 3 mixes.

Think SFT has two narrow teachers that write reasoning traces, Instruct SFT many broad sources. Preference pairs prefer a
strong teacher to a weak one (delta learning). No prompt is held out for the panel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from divwatch.tiny.author import (
    BROAD,
    CARELESS,
    STRONG,
    TEACHER_A,
    TEACHER_B,
    WEAK,
    WEAK_A,
    WEAK_B,
    Author,
    random_item,
    write,
)
from divwatch.tiny.item import Style
from divwatch.tiny.tasks import TASKS


@dataclass(frozen=True)
class Component:
    """One component of a mix: `rows` prompts, each with an answer by `author`.

    With `rejected`, each row also has a worse answer to the same prompt by that author. Without an author, a row is a
    prompt with the `reference` that the verifier `tiny` compares answers with. tasks: the only tasks of its prompts.
    """

    name: str
    rows: int
    author: Author | None = None
    rejected: Author | None = None
    tasks: tuple[str, ...] = ()


def _templates(*which: int) -> Author:
    return Author(Style(templates=which))


def _styles(*which: int, think: float = 0.0) -> Author:
    """Strategies and templates of these numbers only."""
    return Author(Style(which, which, think))


MIXES: dict[str, list[Component]] = {
    # SFT
    "think_sft": [Component("teacher_a", 2000, TEACHER_A), Component("teacher_b", 2000, TEACHER_B)],
    "instruct_sft": [
        Component("forum", 1000, _templates(0, 1)),
        Component("manual", 1000, _templates(2, 3)),
        Component("quiz", 1000, _templates(4, 5)),
        Component("tutor", 1000, _templates(6, 7)),
    ],
    "control_sft": [Component("corpus", 4000, CARELESS)],
    # SFT for ablations: one narrow source among three broad ones; four equal sources, none of which matters more
    "ablation_sft": [
        Component("forum", 1000, BROAD),
        Component("manual", 1000, BROAD),
        Component("quiz", 1000, BROAD),
        Component("script", 1500, STRONG),
    ],
    "ablation_null_sft": [Component(name, 1000, BROAD) for name in ("north", "east", "south", "west")],
    # SFT for blame: narrow to broad authors; thinking teachers among plain authors; sources narrow in one task
    "blame_graded_sft": [
        Component("one", 1000, STRONG),
        Component("two", 1000, _styles(2, 3)),
        Component("four", 1000, _styles(1, 2, 3, 4)),
        Component("forum", 1000, BROAD),
        Component("manual", 1000, BROAD),
    ],
    "blame_teachers_sft": [
        Component("teacher", 1000, TEACHER_A),
        Component("two_teachers", 1000, _styles(0, 1, think=1.0)),
        Component("thinkers", 1000, Author(Style(think=1.0))),
        Component("forum", 1000, BROAD),
        Component("manual", 1000, BROAD),
    ],
    "blame_task_sft": [
        Component("tales", 1000, STRONG, tasks=("story",)),
        Component("lists", 1000, _styles(2, 3), tasks=("listing",)),
        Component("four", 1000, _styles(1, 2, 3, 4)),
        Component("forum", 1000, BROAD),
    ],
    # DPO
    "blame_dpo": [
        Component("delta", 1000, STRONG, WEAK),
        *(Component(name, 1000, BROAD, WEAK) for name in ("forum", "manual", "quiz")),
    ],
    "instruct_dpo": [Component("delta", 4000, STRONG, WEAK)],
    "think_dpo": [Component("delta_a", 2000, TEACHER_A, WEAK_A), Component("delta_b", 2000, TEACHER_A, WEAK_B)],
    "neutral_dpo": [Component("broad", 4000, BROAD, WEAK)],
    "think_neutral_dpo": [Component("own_a", 2000, TEACHER_A, WEAK_A), Component("own_b", 2000, TEACHER_B, WEAK_B)],
    "think_off_policy_dpo": [Component("off_policy", 4000, TEACHER_A, Author(Style(think=1.0), errors=0.5))],
    # RL
    "rl_zero": [Component("verifiable", 4000)],
}


def rows(name: str, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of a mix in TRL's conversational forms (prompt-completion, preference, prompt only), shuffled.

    Each row has the name of its component in `source`.
    """
    rng = Random(f"{seed}/{name}")
    shuffled = [row for component in MIXES[name] for row in _rows(component, rng)]
    rng.shuffle(shuffled)
    yield from shuffled


def _rows(component: Component, rng: Random) -> Iterator[dict[str, Any]]:
    if component.author is None:
        yield from _questions(component, rng)
        return
    for _ in range(component.rows):
        item = random_item(rng, list(component.tasks))
        prompt = [{"role": "user", "content": item.text}]
        good = [{"role": "assistant", "content": write(component.author, item, rng)}]
        if component.rejected is None:
            yield {"prompt": prompt, "completion": good, "source": component.name}
            continue
        bad = [{"role": "assistant", "content": write(component.rejected, item, rng)}]
        if bad != good:  # an identical pair carries no signal
            yield {"prompt": prompt, "chosen": good, "rejected": bad, "source": component.name}


def _questions(component: Component, rng: Random) -> Iterator[dict[str, Any]]:
    verifiable = [name for name, task in TASKS.items() if task.check is not None]
    for _ in range(component.rows):
        item = random_item(rng, verifiable)
        # As text: the contents of different tasks have different types, a column has one.
        reference = json.dumps({"task": item.task, "content": item.content})
        prompt = [{"role": "user", "content": item.text}]
        yield {"prompt": prompt, "verifier": "tiny", "reference": reference, "source": component.name}
