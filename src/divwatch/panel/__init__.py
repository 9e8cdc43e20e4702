"""Held-out prompts: where they come from, and which of them a run looks at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.records import Prompt


def load_panel(spec: str | None, eval_dataset: Any = None) -> tuple[str, list[Prompt]]:
    """(name, prompts) of what `spec` names: a panel, a task, several of them with commas between, or a JSONL file.

    Where it is None: the prompts of the trainer's eval_dataset, and without one the panel `quick`.
    """
    from divwatch.panel.sources import from_dataset, from_file

    if spec is None and eval_dataset is not None:
        name, prompts = "eval_dataset", from_dataset(eval_dataset)
    elif spec is None or not Path(spec).is_file():
        name = spec or "quick"
        prompts = _named(name)
    else:
        name, prompts = Path(spec).stem, from_file(Path(spec))
    if not prompts:
        raise DivwatchError(f"panel {name!r} has no prompts: give at least one line with 'prompt' or 'messages'")
    return name, prompts


def names() -> list[str]:
    """Every panel and every task that can be named."""
    from divwatch.tasks import PANELS, TASKS

    return ["quick", "tiny", *PANELS, *TASKS]


def _named(spec: str) -> list[Prompt]:
    """The prompts of the panels and tasks in `spec`, a task that is named twice taken once."""
    from divwatch.tasks import PANELS, TASKS
    from divwatch.tasks.task import load_task

    parts = [part.strip() for part in spec.split(",")]
    unknown = [part for part in parts if part not in names()]
    if unknown:
        raise DivwatchError(
            f"watch_panel {spec!r} is neither a panel nor a file: give a JSONL file or one of {', '.join(names())}"
        )
    found: dict[str, Prompt] = {}
    for part in parts:
        tasks = PANELS.get(part) or ((TASKS[part],) if part in TASKS else ())
        for prompt in [p for task in tasks for p in load_task(task)] or _own(part):
            found.setdefault(prompt.id, prompt)
    return list(found.values())


def _own(name: str) -> list[Prompt]:
    """The panels that ship with divwatch."""
    if name == "tiny":
        from divwatch.tiny.panel import panel
    else:
        from divwatch.panel.quick import panel
    return panel()


def choose(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """`count` prompts, the tasks evenly, chosen by seed and nested: a smaller choice is a part of a larger one.

    A task with too few prompts gives all it has. The order is that of the panel.
    """
    by_task: dict[str, list[Prompt]] = {}
    for prompt in sorted(prompts, key=lambda p: hashlib.sha256(f"{seed}/{p.id}".encode()).digest()):
        by_task.setdefault(prompt.task, []).append(prompt)
    tasks = list(dict.fromkeys(p.task for p in prompts))
    chosen: set[str] = set()
    for rank in range(max(map(len, by_task.values()), default=0)):
        for task in tasks:
            if rank < len(by_task[task]) and len(chosen) < count:
                chosen.add(by_task[task][rank].id)
    return [p for p in prompts if p.id in chosen]


def fingerprint(prompts: Sequence[Prompt]) -> str:
    """Sixteen hex digits fixed by all that a prompt is: its texts, reference, verifier and limits."""
    text = json.dumps([asdict(p) for p in prompts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
