"""Held-out prompts: where they come from, and which of them a run samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.panel import quick
from divwatch.panel.length import token_limit
from divwatch.panel.problems import unjudged_prompts, without_repeats
from divwatch.panel.sources import Note, from_dataset, from_file, from_rows, quiet
from divwatch.records import Prompt
from divwatch.tasks import PANELS, TASKS
from divwatch.tasks.task import load_task
from divwatch.tiny import panel as tiny

EVAL_DATASET = "eval_dataset"  # the panel's name where its prompts are those of the trainer's eval_dataset
ROWS = "rows"  # where the prompts were given in Python
# Panels whose prompts come with divwatch: no hub, no data set.
SHIPPED = {"quick": quick.panel, "tiny": tiny.panel}


def load_panel(
    spec: Any,
    eval_dataset: Any = None,
    enough: int | None = None,
    note: Note = quiet,
    opening: str | None = None,
) -> tuple[str, list[Prompt]]:
    """(name, prompts) for `spec`: a panel, a task, several of them separated by commas, a JSONL file, or rows themselves.

    None: the prompts of the trainer's eval_dataset, which `eval_dataset` names too, or the panel `quick` if there is none.
    Of a stream no more is read when it has given `enough` prompts. A prompt that repeats another is left out. note: gets
    one line about each problem. opening: what the chat template writes before an answer. Raises DivwatchError if `spec` is
    unknown or has no prompts, or if a verifier can judge none of its own (of an eval_dataset that is one line).
    """
    if spec is not None and not isinstance(spec, str):
        name, prompts = ROWS, from_rows(spec, enough, note, opening)
    elif spec in (None, EVAL_DATASET) and eval_dataset is not None:
        name, prompts = EVAL_DATASET, from_dataset(eval_dataset, enough, note, opening)
    elif spec is None or not Path(spec).is_file():
        name = spec or "quick"
        prompts = _named(name, _of_tasks)
    else:
        name, prompts = Path(spec).stem, from_file(Path(spec), note, opening)
    if not prompts:
        raise DivwatchError(f"panel {name!r} has no prompts: give at least one line with 'prompt' or 'messages'")
    prompts, repeats = without_repeats(prompts)
    for line in (repeats, unjudged_prompts(prompts, None if name == EVAL_DATASET else name)):
        if line is not None:
            note(line)
    return name, prompts


def names() -> list[str]:
    """Every panel and every task that can be named."""
    return [*SHIPPED, *PANELS, *TASKS]


def _named(spec: str, of_tasks: Callable[[str], list[Prompt]]) -> list[Prompt]:
    """The prompts of the panels and tasks in `spec`; a task that is named twice is taken once."""
    parts = [part.strip() for part in spec.split(",")]
    unknown = [part for part in parts if part not in names()]
    if unknown:
        raise DivwatchError(
            f"watch_panel {spec!r} is neither a panel nor a file: give a JSONL file or one of {', '.join(names())}"
        )
    by_id: dict[str, Prompt] = {}
    for part in parts:
        for prompt in SHIPPED[part]() if part in SHIPPED else of_tasks(part):
            by_id.setdefault(prompt.id, prompt)
    return list(by_id.values())


def _of_tasks(name: str) -> list[Prompt]:
    return [prompt for task in PANELS.get(name) or (TASKS[name],) for prompt in load_task(task)]


def _examples_of(name: str) -> list[Prompt]:
    return [task.prompt(task.example, task.name) for task in PANELS.get(name) or (TASKS[name],)]


def token_limits(spec: str | None, most: int | None) -> dict[str, int]:
    """Task -> most new tokens of its answers, for a panel as in `load_panel`; no data set of the hub is loaded.

    most: `watch_max_new_tokens`. An eval_dataset is not known here: its prompts count as open ones.

    >>> token_limits("gsm8k,tldr,quick", None)
    {'gsm8k': 512, 'tldr': 384, 'stories': 384, 'ideas': 384, 'opinions': 384, 'sums': 256}
    """
    if spec is None:
        prompts = [Prompt("eval", "eval", "")]
    else:
        prompts = from_file(Path(spec)) if Path(spec).is_file() else _named(spec, _examples_of)
    limits: dict[str, int] = {}
    for prompt in prompts:
        limits[prompt.task] = max(limits.get(prompt.task, 0), token_limit(prompt, most))
    return limits


def choose(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """`count` prompts, spread evenly over the tasks and chosen by `seed`, in the panel's order.

    Choices are nested: a smaller one is part of a larger one. A task with too few prompts gives all that it has.
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
    """Sixteen hex digits that depend on every prompt's texts, tools, reference, verifier, limits and thinking."""
    rows = [asdict(p) for p in prompts]
    for row in rows:  # fingerprints in run directories stay comparable
        del row["variant_of"]  # the id says it already
        row["messages"] = row["messages"] and [
            {name: value for name, value in turn.items() if value is not None} for turn in row["messages"]
        ]
        for name in ("tools", "template_kwargs", "templated"):
            if not row[name] and row[name] != {}:
                del row[name]
    text = json.dumps(rows, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
