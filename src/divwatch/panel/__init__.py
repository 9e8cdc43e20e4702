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
    """(name, prompts) of a named panel, a JSONL file, or, where `spec` is None, the trainer's eval_dataset."""
    from divwatch.panel.sources import from_dataset, from_file

    if spec == "tiny":
        from divwatch.tiny.panel import panel

        return "tiny", panel()
    if spec is not None:
        if not Path(spec).is_file():
            raise DivwatchError(f"watch_panel {spec!r} is neither a panel (tiny) nor a file: give one of them")
        prompts = from_file(Path(spec))
        name = Path(spec).stem
    elif eval_dataset is not None:
        name, prompts = "eval_dataset", from_dataset(eval_dataset)
    else:
        raise DivwatchError("no prompts to watch: give the trainer an eval_dataset, or set watch_panel to a JSONL file")
    if not prompts:
        raise DivwatchError(f"panel {name!r} has no prompts: give at least one line with 'prompt' or 'messages'")
    return name, prompts


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
    """Sixteen hex digits fixed by the prompts, their references and verifiers: equal panels have equal ones."""
    text = json.dumps([asdict(p) for p in prompts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
