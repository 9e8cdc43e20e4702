"""Prompts out of a JSONL file or a trainer's eval_dataset, in the forms TRL knows: `prompt`, `messages`, or `chosen`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.records import Prompt

Messages = list[dict[str, str]]


def from_file(path: Path) -> list[Prompt]:
    """A line: `prompt` (text) or `messages`, and optionally `id`, `task`, `reference`, `verifier`."""
    prompts = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DivwatchError(f"{path} line {number} is not JSON ({error}): mend or remove it") from None
            if not isinstance(row, dict):
                raise DivwatchError(f'{path} line {number} is not an object: write {{"prompt": ...}}')
            prompt = _prompt(row, number - 1, path.stem)
            if prompt is None:
                raise DivwatchError(f"{path} line {number} has neither 'prompt' nor 'messages': add one of them")
            prompts.append(prompt)
    _refuse_repeats(prompts, str(path))
    return prompts


def from_dataset(dataset: Iterable[dict[str, Any]] | dict[str, Any]) -> list[Prompt]:
    """The distinct prompts of an eval_dataset (or of several, by name: each is a task)."""
    if isinstance(dataset, dict):
        return [p for name, part in dataset.items() for p in _distinct(part, name)]
    return _distinct(dataset, "eval")


def _distinct(rows: Iterable[dict[str, Any]], task: str) -> list[Prompt]:
    found: dict[str, Prompt] = {}
    for index, row in enumerate(rows):
        prompt = _prompt(row, index, task)
        if prompt is None:
            raise DivwatchError(
                f"eval_dataset has the columns {', '.join(row)}, none of them prompt, messages or chosen: "
                "add a 'prompt' column or set watch_panel to a JSONL file"
            )
        found.setdefault(json.dumps(prompt.messages or prompt.text), prompt)
    return list(found.values())


def _prompt(row: dict[str, Any], index: int, task: str) -> Prompt | None:
    asked = row.get("prompt") or _asked(row.get("messages")) or _shared(row.get("chosen"), row.get("rejected"))
    if not asked:
        return None
    messages = None if isinstance(asked, str) else [{"role": m["role"], "content": m["content"]} for m in asked]
    return Prompt(
        id=str(row.get("id", f"{task}/{index}")),
        task=str(row.get("task", task)),
        text=asked if isinstance(asked, str) else str(asked[-1]["content"]),
        messages=messages,
        reference=row.get("reference"),
        verifier=row.get("verifier"),
    )


def _asked(messages: Any) -> Messages | None:
    """A conversation up to its last user turn."""
    if not isinstance(messages, list):
        return None
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    return messages[: last + 1] or None


def _shared(chosen: Any, rejected: Any) -> Messages | None:
    """The turns a preference pair has in common."""
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        return None
    shared: Messages = []
    for one, other in zip(chosen, rejected, strict=False):
        if one != other or (one["role"] == "assistant" and len(shared) + 1 == len(chosen)):
            break
        shared.append(one)
    return shared or None


def _refuse_repeats(prompts: list[Prompt], where: str) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DivwatchError(f"{where} has the id {prompt.id!r} twice: give every line an id of its own")
        seen.add(prompt.id)
