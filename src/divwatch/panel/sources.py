"""Prompts from a JSONL file or a trainer's eval_dataset, in TRL's data formats: `prompt`, `messages`, or `chosen`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.files import read_jsonl
from divwatch.records import Prompt
from divwatch.verify import get_verifier

Messages = list[dict[str, str]]


def from_file(path: Path) -> list[Prompt]:
    """The prompts of a JSONL file: `prompt` (text or turns) or `messages`, and optionally `id`, `task`, `reference`,
    `verifier`. Raises DivwatchError for a line without a prompt, a repeated id or an unknown verifier."""
    rows = read_jsonl(path)
    prompts = [_from_row(row, f"{path} line {number}", number - 1, path.stem) for number, row in rows]
    _refuse_repeats(prompts, str(path))
    _check_verifiers(prompts, str(path))
    return prompts


def _from_row(row: dict[str, Any], where: str, index: int, task: str) -> Prompt:
    try:
        prompt = _prompt(row, index, task)
    except (KeyError, TypeError, AttributeError):
        raise DivwatchError(f"{where}: each turn needs the texts 'role' and 'content': fix 'messages'") from None
    if prompt is None:
        raise DivwatchError(f"{where} has neither 'prompt' nor 'messages' with a text in it: add one of them")
    return prompt


def from_dataset(dataset: Iterable[dict[str, Any]] | dict[str, Any]) -> list[Prompt]:
    """The distinct prompts of an eval_dataset (or of several, by name: each is a task)."""
    if isinstance(dataset, dict):
        return [p for name, part in dataset.items() for p in _distinct(part, name)]
    return _distinct(dataset, "eval")


def _distinct(rows: Iterable[dict[str, Any]], task: str) -> list[Prompt]:
    distinct: dict[str, Prompt] = {}
    ids: set[str] = set()
    for index, row in enumerate(rows):
        prompt = _prompt(row, index, task)
        if prompt is None:
            raise DivwatchError(
                f"eval_dataset has the columns {', '.join(row)}, none of them prompt, messages or chosen with a text in "
                f"row {index}: add a 'prompt' column, or set watch_panel to quick or to a JSONL file"
            )
        content = json.dumps(prompt.messages or prompt.text)
        if content not in distinct:
            # A data set's ids may repeat: they have another purpose there.
            prompt = prompt if prompt.id not in ids else replace(prompt, id=f"{task}/{index}")
            ids.add(prompt.id)
            distinct[content] = prompt
    return list(distinct.values())


def _prompt(row: dict[str, Any], index: int, task: str) -> Prompt | None:
    content = row.get("prompt") or _until_user(row.get("messages")) or _shared(row.get("chosen"), row.get("rejected"))
    if not content:
        return None
    messages = None if isinstance(content, str) else [{"role": m["role"], "content": m["content"]} for m in content]
    text = content if isinstance(content, str) else content[-1]["content"]
    if not text.strip():
        return None
    return Prompt(
        id=str(_value_or(row, "id", f"{task}/{index}")),
        task=str(_value_or(row, "task", task)),
        text=text,
        messages=messages,
        reference=row.get("reference"),
        verifier=row.get("verifier"),
    )


def _value_or(row: dict[str, Any], name: str, default: str) -> Any:
    value = row.get(name)
    return default if value is None else value


def _until_user(messages: Any) -> Messages | None:
    """A conversation up to its last user turn."""
    if not isinstance(messages, list):
        return None
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    return messages[: last + 1] or None


def _shared(chosen: Any, rejected: Any) -> Messages | None:
    """The turns that a preference pair has in common."""
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
            raise DivwatchError(f"{where} has the id {prompt.id!r} twice: make the ids unique")
        seen.add(prompt.id)


def _check_verifiers(prompts: list[Prompt], where: str) -> None:
    """A verifier that does not exist is an error now, not in the middle of the first look."""
    for prompt in prompts:
        if prompt.verifier is not None and not isinstance(prompt.verifier, str):
            raise DivwatchError(f"{where}, prompt {prompt.id!r}: 'verifier' is not a name: give one, such as gsm8k")
    for name in sorted({p.verifier for p in prompts if p.verifier}):
        try:
            get_verifier(name)
        except DivwatchError as error:
            raise DivwatchError(f"{where}: {error}") from None
