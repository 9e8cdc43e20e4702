"""The embedded world's held-out prompts and their verifier."""

from __future__ import annotations

import json
from typing import Any

from divwatch.records import Prompt, Verification
from divwatch.tiny.author import held_out_items
from divwatch.tiny.tasks import TASKS


def panel() -> list[Prompt]:
    """48 held-out prompts of each of the six tasks. Stories have no verifier: no story is correct or wrong."""
    return [
        Prompt(
            id=item.id,
            task=item.task,
            text=item.text,
            messages=[{"role": "user", "content": item.text}],
            reference={"task": item.task, "content": list(item.content)},
            verifier="tiny" if TASKS[item.task].check else None,
        )
        for item in held_out_items()
    ]


def verify(answer: str, reference: dict[str, Any] | str) -> Verification:
    """Whether `answer` is correct for the prompt that `reference` (or its JSON) describes.

    >>> verify("5 and 9.", {"task": "pair", "content": [14]})[:2]
    (True, '5+9')
    """
    item = json.loads(reference) if isinstance(reference, str) else reference
    return TASKS[item["task"]].check(answer, tuple(item["content"]))
