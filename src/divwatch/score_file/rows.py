"""The lines of a file of outputs, checked one by one: a mistake is one line that names the place and the fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.files import read_jsonl

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Row:
    """A line that was checked. `where` names it in messages."""

    where: str
    id: str
    task: str
    outputs: list[str]
    prompt: str
    reference: Any
    has_reference: bool
    is_correct: list[bool] | None


def read_rows(path: Path, advance: Advance | None = None) -> Iterator[Row]:
    """The lines of the file, checked one by one; blank ones are passed over. `advance` gets the bytes read."""
    try:
        for number, row in read_jsonl(path, advance):
            yield _checked(row, f"{path} line {number}")
    except OSError as error:
        raise DivwatchError(f"cannot read {path} ({error.strerror}): give a JSONL file") from None


def _checked(row: dict[str, Any], where: str) -> Row:
    name, outputs, flags = row.get("id"), row.get("outputs"), row.get("is_correct")
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise DivwatchError(f'{where} has no usable "id": give a string or a whole number')
    if not isinstance(outputs, list):
        raise DivwatchError(f'{where} has no list "outputs": give the K texts sampled for its prompt')
    odd = next((i for i, output in enumerate(outputs) if not isinstance(output, str)), None)
    if odd is not None:
        raise DivwatchError(f"{where} has a {type(outputs[odd]).__name__} as output {odd}: give texts only")
    try:
        "".join(outputs).encode()
    except UnicodeEncodeError:
        raise DivwatchError(f"{where} has an output with half a surrogate pair: write the file as UTF-8") from None
    if len(outputs) < 2:
        raise DivwatchError(f"{where} has {len(outputs)} output(s): diversity needs at least 2 for each prompt")
    if flags is not None and not (
        isinstance(flags, list) and len(flags) == len(outputs) and all(flag in (True, False) for flag in flags)
    ):
        raise DivwatchError(f'{where} has "is_correct" that does not fit: give {len(outputs)} times true or false')
    task = row.get("task")
    return Row(
        where,
        str(name),
        "" if task is None else str(task),
        outputs,
        str(row.get("prompt") or ""),
        row.get("reference"),
        "reference" in row,
        None if flags is None else [bool(flag) for flag in flags],
    )


@dataclass(frozen=True)
class FileSummary:
    """n: prompts. k: outputs of each. tasks: how many different ones. repeats: prompts that another line asks too."""

    n: int
    k: int
    tasks: int
    repeats: int = 0


def check_file(path: Path, verifier: str | None, advance: Advance) -> FileSummary:
    """Reads the whole file once. Raises DivwatchError for the first line that cannot be scored."""
    seen: set[str] = set()
    tasks: set[str] = set()
    asked: set[int] = set()
    k = repeats = 0
    for row in read_rows(path, advance):
        if row.id in seen:
            raise DivwatchError(f"{row.where} repeats the id {row.id!r}: give every prompt its own")
        if seen and len(row.outputs) != k:
            raise DivwatchError(
                f"{row.where} has {len(row.outputs)} outputs, lines before it {k}: give every prompt the same number"
            )
        if verifier is not None and not row.has_reference:
            raise DivwatchError(f'{row.where} has no "reference": verifier {verifier!r} needs one')
        k = len(row.outputs)
        seen.add(row.id)
        tasks.add(row.task)
        if row.prompt.strip():
            text = hash(" ".join(row.prompt.split()))
            repeats += text in asked
            asked.add(text)
    if not seen:
        raise DivwatchError(f"{path} holds no prompt: give a line for each")
    return FileSummary(len(seen), k, len(tasks), repeats)
