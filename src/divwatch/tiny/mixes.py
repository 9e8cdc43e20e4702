"""The embedded world's data mixes: who wrote what, mirroring the Olmo 3 variants.

Think SFT has two narrow teachers that write traces; Instruct SFT many broad sources; preference pairs set a strong
teacher over a weak one (delta learning). Prompts are never held-out ones.
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
class Source:
    """`rows` answers by `author`; with `rejected`, each beside a worse answer to the same prompt by that author.

    Without an author: prompts alone, each with the `reference` that the verifier `tiny` judges answers by.
    """

    name: str
    rows: int
    author: Author | None = None
    rejected: Author | None = None


def _templates(*which: int) -> Author:
    return Author(Style(templates=which))


MIXES: dict[str, list[Source]] = {
    # SFT
    "think_sft": [Source("teacher_a", 2000, TEACHER_A), Source("teacher_b", 2000, TEACHER_B)],
    "instruct_sft": [
        Source("forum", 1000, _templates(0, 1)),
        Source("manual", 1000, _templates(2, 3)),
        Source("quiz", 1000, _templates(4, 5)),
        Source("tutor", 1000, _templates(6, 7)),
    ],
    "control_sft": [Source("corpus", 4000, CARELESS)],
    # SFT for leaving sources out: one narrow among three broad ones; four that are alike, so that none matters more
    "ablation_sft": [
        Source("forum", 1000, BROAD),
        Source("manual", 1000, BROAD),
        Source("quiz", 1000, BROAD),
        Source("script", 1500, STRONG),
    ],
    "ablation_null_sft": [Source(name, 1000, BROAD) for name in ("north", "east", "south", "west")],
    # DPO
    "instruct_dpo": [Source("delta", 4000, STRONG, WEAK)],
    "think_dpo": [Source("delta_a", 2000, TEACHER_A, WEAK_A), Source("delta_b", 2000, TEACHER_A, WEAK_B)],
    "neutral_dpo": [Source("broad", 4000, BROAD, WEAK)],
    "think_neutral_dpo": [Source("own_a", 2000, TEACHER_A, WEAK_A), Source("own_b", 2000, TEACHER_B, WEAK_B)],
    "think_off_policy_dpo": [Source("off_policy", 4000, TEACHER_A, Author(Style(think=1.0), errors=0.5))],
    # RL
    "rl_zero": [Source("verifiable", 4000)],
}


def rows(name: str, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of a mix in TRL's conversational forms (prompt-completion, preference, prompt only), shuffled.

    `source` stands beside them.
    """
    rng = Random(f"{seed}/{name}")
    made = [row for source in MIXES[name] for row in _of(source, rng)]
    rng.shuffle(made)
    yield from made


def _of(source: Source, rng: Random) -> Iterator[dict[str, Any]]:
    if source.author is None:
        yield from _questions(source, rng)
        return
    for _ in range(source.rows):
        item = random_item(rng)
        prompt = [{"role": "user", "content": item.text}]
        good = [{"role": "assistant", "content": write(source.author, item, rng)}]
        if source.rejected is None:
            yield {"prompt": prompt, "completion": good, "source": source.name}
            continue
        bad = [{"role": "assistant", "content": write(source.rejected, item, rng)}]
        if bad != good:  # an identical pair carries no signal
            yield {"prompt": prompt, "chosen": good, "rejected": bad, "source": source.name}


def _questions(source: Source, rng: Random) -> Iterator[dict[str, Any]]:
    verifiable = [name for name, task in TASKS.items() if task.judge is not None]
    for _ in range(source.rows):
        item = random_item(rng, verifiable)
        # As text: the contents of different tasks have different types, a column has one.
        reference = json.dumps({"task": item.task, "content": item.content})
        prompt = [{"role": "user", "content": item.text}]
        yield {"prompt": prompt, "verifier": "tiny", "reference": reference, "source": source.name}
