"""Prompts from a JSONL file or a trainer's eval_dataset. Rows that give no prompt are left out and counted in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.files import read_jsonl
from divwatch.panel.eval_rows import EvalRows
from divwatch.panel.problems import unknown_roles, unread_fields
from divwatch.panel.rows import PROMPT_COLUMNS, Unaskable, rendered_prompt, to_prompt, with_known_roles
from divwatch.panel.training_texts import TOKEN_COLUMNS
from divwatch.records import Prompt
from divwatch.verify import get_verifier

Note = Callable[[str], object]
_OTHER_PANEL = "set watch_panel to quick or to a JSONL file"


def quiet(line: str) -> None:
    """Drops a line."""


def from_file(path: Path, note: Note = quiet, opening: str | None = None) -> list[Prompt]:
    """The prompts of a JSONL file: `prompt` (text or turns), `messages` or another of TRL's formats, and optionally `id`,
    `task`, `reference`, `verifier`, `tools`, `chat_template_kwargs`. note: gets a line about lines that are left
    out, fields that nothing reads and roles that no template knows.

    A text is asked as a user's turn, so a chat model gets it through its template; a text that was rendered by the
    template, which holds its `opening` of an answer, stays as it is. Raises DivwatchError if no line gives a prompt, for a
    repeated id and for an unknown verifier.
    """
    prompts, odd, rows, lines = [], _LeftOut("line"), [], 0
    for number, row in read_jsonl(path):
        lines += 1
        try:
            prompt = to_prompt(row, number - 1, path.stem, template=lambda text: not _is_rendered(text, opening))
            prompts.append(with_known_roles(prompt))
            rows.append(row)
        except Unaskable as error:
            odd.add(error, number)
    if odd and not prompts:
        raise DivwatchError(f"{path} line {odd.first} has {odd.error}")
    if odd:
        note(odd.note(lines, str(path)))
    for problem in (unread_fields(rows, "line"), unknown_roles(prompts)):
        if problem is not None:
            note(f"{path}: {problem}")
    _refuse_repeats(prompts, str(path))
    _check_verifiers(prompts, str(path))
    return prompts


def _is_rendered(text: str, opening: str | None) -> bool:
    return opening is not None and opening.strip() in text


def from_dataset(
    dataset: Any, enough: int | None = None, note: Note = quiet, opening: str | None = None
) -> list[Prompt]:
    """The distinct prompts of an eval_dataset (or of several, by name: each is a task).

    enough: distinct prompts after which no more rows of a stream are read. note: gets one line about rows that were left
    out or not read. opening: see `to_prompt`. Raises DivwatchError if nothing can be asked.
    """
    if not isinstance(dataset, dict):
        return _distinct(EvalRows(dataset, "eval_dataset"), "eval", enough, note, opening)
    prompts: list[Prompt] = []
    problems: list[DivwatchError] = []
    for name, part in dataset.items():
        taken = {prompt.id for prompt in prompts}
        try:
            prompts += _distinct(EvalRows(part, f"eval_dataset[{name!r}]"), name, enough, note, opening, taken=taken)
        except DivwatchError as error:
            problems.append(error)
    if problems and not prompts:
        raise problems[0]
    for problem in problems:
        note(f"{problem}; the other data sets of eval_dataset are watched")
    return prompts


def from_rows(rows: Any, enough: int | None = None, note: Note = quiet, opening: str | None = None) -> list[Prompt]:
    """The distinct prompts of a panel that is given as a Dataset or a list of rows; see `from_dataset`.

    A text is asked as a user's turn, as that of a panel file is.
    """
    prompts = _distinct(EvalRows(rows, "panel"), "panel", enough, note, opening, lambda t: not _is_rendered(t, opening))
    _check_verifiers(prompts, "panel")
    return prompts


def _distinct(
    rows: EvalRows,
    task: str,
    enough: int | None,
    note: Note,
    opening: str | None,
    template: Callable[[str], bool] = lambda text: False,
    taken: Iterable[str] = (),
) -> list[Prompt]:
    """taken: ids of the prompts of other data sets."""
    distinct: dict[str, Prompt] = {}
    ids = set(taken)
    odd = _LeftOut("row")
    for index, row in rows:
        if rows.read == 1:
            _require_prompts(row, rows.name, opening)
            if (problem := unread_fields([row], "row", close_only=True)) is not None:
                note(f"{rows.name}: {problem}")
        try:
            prompt = to_prompt(row, index, task, opening, template)
        except Unaskable as error:
            odd.add(error, index)
            continue
        content = json.dumps([prompt.messages or prompt.text, prompt.tools, prompt.template_kwargs], default=str)
        if content not in distinct:
            # A data set's ids may repeat: they have another purpose there.
            prompt = prompt if prompt.id not in ids else replace(prompt, id=f"{task}/{index}")
            ids.add(prompt.id)
            distinct[content] = prompt
        if rows.streamed and len(distinct) == enough:
            break
    if not distinct:
        raise DivwatchError(_why_none(rows, odd))
    if odd:
        note(odd.note(rows.read, rows.name))
    if rows.note is not None:
        note(rows.note)
    return list(distinct.values())


def _require_prompts(row: Any, name: str, opening: str | None) -> None:
    """Raises DivwatchError, with the fix, for a first row that has no column with prompts."""
    if not isinstance(row, Mapping):
        raise DivwatchError(f"the rows of {name} are of type {type(row).__name__}, not dicts: {_OTHER_PANEL}")
    if any(column in row for column in PROMPT_COLUMNS) or rendered_prompt(row, opening):
        return
    columns = f"{name} has the columns {', '.join(map(str, row))}, none of them {', '.join(PROMPT_COLUMNS)}"
    if "text" in row:
        raise DivwatchError(
            f"{columns}: a text does not show where its prompt ends; split it into 'prompt' and 'completion', or "
            f"{_OTHER_PANEL}"
        )
    if any(column in row for column in TOKEN_COLUMNS):
        raise DivwatchError(
            f"{columns}: token ids do not show where a prompt ends; set eval_packing=False if TRL has packed the rows, give "
            f"texts if they were tokenized before, or {_OTHER_PANEL}"
        )
    raise DivwatchError(f"{columns}: rename the column that holds the prompts to 'prompt', or {_OTHER_PANEL}")


def _why_none(rows: EvalRows, odd: _LeftOut) -> str:
    if rows.failure is not None:
        return f"{rows.name} cannot be read ({rows.failure}): correct it, or {_OTHER_PANEL}"
    if not rows.read:
        return f"{rows.name} has no rows: give it some, or {_OTHER_PANEL}"
    return (
        f"none of the {rows.read:,} rows of {rows.name} gives a prompt ({odd.reasons}): correct them, or {_OTHER_PANEL}"
    )


class _LeftOut:
    """Rows that give no prompt: how many, where and why. unit: what a place is, a row or a line."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._reasons: dict[str, list[int]] = {}  # reason -> [count, first place]
        self.first, self.error = 0, ""

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def add(self, error: Unaskable, place: int) -> None:
        if not self:
            self.first, self.error = place, str(error)
        self._reasons.setdefault(error.reason, [0, place])[0] += 1

    @property
    def reasons(self) -> str:
        return ", ".join(f"{n:,} with {reason}, first {self.unit} {at}" for reason, (n, at) in self._reasons.items())

    def note(self, total: int, name: str) -> str:
        count = sum(n for n, _ in self._reasons.values())
        return f"{count:,} of {total:,} {self.unit}s of {name} give no prompt and are left out: {self.reasons}"


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
