"""What a task is, and how its prompts are loaded from the hub.

A `Task` is data and small functions: wording, source, verifier, published numbers. `load_task` makes prompts of it. Every
failure of the hub (unreachable, a renamed column, an empty split) is one line that names the task and the fix.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.records import Prompt

Row = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """Diversity of Olmo 3 7B on one task, as published: mean pairwise cosine distance (see `tasks/published.py`).

    base: of the base model. instruct, think: after SFT, DPO and RL of that line.
    """

    base: float
    instruct: tuple[float, float, float]
    think: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Task:
    """One task: all that divwatch knows about it.

    name, about: name in panels, W&B and reports; a few words for `divwatch panel list`.
    aliases:     names under which the paper's tables list it, where they differ by more than case and punctuation.
    path, config, split, revision: the hub set. revision None: no commit was found in public sources; main is used, and
        `divwatch panel check` prints the commit that it resolved to.
    columns:     the columns that are read; a missing one is an error.
    ask:         the wording: the prompt of a row, as in the paper's code.
    question:    the row's own text, without the task's wording: what must not be in the training data.
    reference:   what the verifier compares with (None: nothing).
    verifier:    name of a verifier in `divwatch.verify` (None: no answer is correct or wrong).
    max_new_tokens: room for an answer with its end, which a verifier needs. None: no verifier, so a window is enough.
    stop, paper_max_new_tokens: of the paper's protocol; stop strings apply in plain form only.
    key:         column with a row's id (None: its index in the split).
    limit:       maximum number of rows, chosen by a hash of their ids: 500 in the paper's protocol (None: all).
    keep:        whether a row is used.
    published:   the paper's numbers (None: the task is not in the paper).
    example:     a row written for divwatch in the set's schema, for documentation and tests.
    """

    name: str
    about: str
    path: str
    config: str | None
    split: str
    revision: str | None
    columns: tuple[str, ...]
    ask: Callable[[Row], str]
    question: Callable[[Row], str]
    example: Row
    reference: Callable[[Row], Any] | None = None
    verifier: str | None = None
    stop: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    paper_max_new_tokens: int = 32768
    key: str | None = None
    limit: int | None = 500
    keep: Callable[[Row], bool] = lambda row: True
    published: Published | None = None
    aliases: tuple[str, ...] = ()

    @property
    def hub(self) -> str:
        """The set in one word: path, config, split and the first digits of the revision."""
        config = f"/{self.config}" if self.config else ""
        return f"{self.path}{config}[{self.split}]@{self.revision[:7] if self.revision else 'main'}"

    def prompt(self, row: Row, id: str) -> Prompt:
        """The prompt of one row, in both forms: as plain text and as one user turn."""
        text = self.ask(row)
        return Prompt(
            id=id,
            task=self.name,
            text=text,
            messages=[{"role": "user", "content": text}],
            reference=self.reference(row) if self.reference else None,
            verifier=self.verifier,
            question=self.question(row),
            stop=self.stop,
            max_new_tokens=self.max_new_tokens,
        )


def load_task(task: Task) -> list[Prompt]:
    """The prompts of a task, at most `task.limit`, in the order of the split. Raises DivwatchError, one line."""
    return prompts_of(task, hub_rows(task))


def hub_rows(task: Task) -> Any:
    """The task's split as a `datasets.Dataset`, its columns checked."""
    from datasets import load_dataset

    try:
        rows = load_dataset(task.path, task.config, split=task.split, revision=task.revision)
    except ConnectionError as error:
        raise DivwatchError(
            f"task {task.name}: the hub cannot be reached for {task.hub} ({_short(error)}): load it once where there is "
            "a network (the cache then works offline), or use watch_panel: quick or a JSONL file"
        ) from None
    except Exception as error:  # whatever a loader raises: the set is not what the task expects
        raise DivwatchError(
            f"task {task.name}: {task.hub} cannot be loaded ({_short(error)}): check its name, config and split"
        ) from None
    missing = [c for c in task.columns if c not in rows.column_names]
    if missing:
        raise DivwatchError(
            f"task {task.name}: {task.hub} has no column {', '.join(missing)}; it has {', '.join(rows.column_names)}: "
            "the set has changed, pin the revision that has it"
        )
    return rows


def prompts_of(task: Task, rows: Any) -> list[Prompt]:
    """Prompts of the rows that the task keeps, at most `task.limit`, chosen by a hash of their ids."""
    keys = rows[task.key] if task.key else range(len(rows))
    ids = [f"{task.name}/{key}" for key in keys]
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    chosen: dict[str, tuple[int, Prompt]] = {}
    for index in order:
        if task.limit is not None and len(chosen) >= task.limit:
            break
        row = rows[index]
        if ids[index] not in chosen and task.keep(row) and task.question(row).strip():
            chosen[ids[index]] = (index, task.prompt(row, ids[index]))
    if not chosen:
        raise DivwatchError(
            f"task {task.name}: no row of {task.hub} can be used: the set has changed, pin its revision"
        )
    return [prompt for _, prompt in sorted(chosen.values(), key=lambda pair: pair[0])]


def resolved_revision(rows: Any) -> str | None:
    """The commit that the rows were read at, from the path of the `datasets` cache; None if the path does not have it."""
    names = [*(rows.info.download_checksums or {}), *(file["filename"] for file in rows.cache_files)]
    commits = [m.group(1) for m in (re.search(r"[@/]([0-9a-f]{40})/", name) for name in names) if m]
    return commits[0] if commits else None


def column(name: str) -> Callable[[Row], str]:
    """A function that reads one column of a row as text; None becomes the empty text.

    >>> column("question")({"question": "Why?"}), column("question")({"question": None})
    ('Why?', '')
    """
    return lambda row: str(row[name] or "")


def _short(error: Exception) -> str:
    cause = f": {error.__cause__}" if error.__cause__ else ""
    return " ".join(f"{error}{cause}".split())[:200] or type(error).__name__
