"""Reading a run directory, also while it is being written, after a crash, or on another machine."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

from divwatch.errors import DivwatchError
from divwatch.files import BadLine, read_json_object, try_jsonl
from divwatch.records import Completion, PromptScores
from divwatch.store.parquet import read_parquet

FORMAT = 1
NAME = "divwatch"  # of the run directory inside an output directory
TRAINING = "training.json"
WRITER = ".writer"  # which process writes the record
SCORED = ("ok", "not_comparable")  # statuses of looks that have scores


class RunReader:
    """Reads one `<output_dir>/divwatch/`.

    notes: None: damaged lines raise DivwatchError. A list: they are left out, and a note for each file is added to it.
    """

    def __init__(self, path: Path, notes: list[str] | None = None) -> None:
        self.path = Path(path)
        self.notes = notes

    @classmethod
    def of(cls, output_dir: str | Path) -> Self:
        """The run directory inside an output directory; `output_dir` may also be the run directory itself."""
        path = Path(output_dir)
        return cls(path if (path / "run.json").is_file() else path / NAME)

    @property
    def exists(self) -> bool:
        return (self.path / "run.json").is_file()

    def info(self) -> dict[str, Any]:
        """What run.json holds. Raises DivwatchError if it cannot be read."""
        try:
            info = read_json_object(self.path / "run.json")
        except FileNotFoundError:
            raise DivwatchError(f"{self.path} is no run directory: give one that holds run.json") from None
        except OSError as error:
            raise DivwatchError(f"cannot read {self.path / 'run.json'} ({error.strerror}): make it readable") from None
        if info.get("format") != FORMAT:
            self._report(f"{self.path} has format {info.get('format')}: this divwatch reads format {FORMAT}")
        return info

    def schedule(self) -> dict[str, Any] | None:
        """What schedule.json holds; None if it is not there or cannot be read."""
        try:
            return read_json_object(self.path / "schedule.json")
        except (OSError, DivwatchError):
            return None

    def planned_looks(self) -> int | None:
        """How many looks the first plan of `watch_every: auto` had; None before it, and with other values."""
        planned = (self.schedule() or {}).get("planned")
        return planned if isinstance(planned, int) else None

    def training(self) -> list[dict[str, float]]:
        """`step` and `loss`, `reward` or both, as the trainer logged them; of a run of an older version from the state of
        its last checkpoint. Empty where neither can be read."""
        states = sorted(self.path.parent.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
        for path in (self.path / TRAINING, *reversed(states)):
            with suppress(OSError, ValueError, AttributeError):
                content = json.loads(path.read_text(encoding="utf-8"))
                return training_rows(content["log_history"] if isinstance(content, dict) else content)
        return []

    def looks(self) -> list[dict[str, Any]]:
        """The lines of looks.jsonl by step. A look that a resumed run repeated counts once: its last line."""
        by_step = {look["step"]: look for look in self._lines("looks.jsonl")}
        return [by_step[step] for step in sorted(by_step)]

    def events(self) -> list[dict[str, Any]]:
        """The lines of events.jsonl: alarms in the order in which they were raised."""
        return self._lines("events.jsonl")

    def blames(self) -> list[dict[str, Any]]:
        """The lines of blame.jsonl by step, if the run was watched with `watch_blame`."""
        by_step = {line["step"]: line for line in self._lines("blame.jsonl")}
        return [by_step[step] for step in sorted(by_step)]

    def blame_arrays(self, step: int) -> dict[str, Any] | None:
        """What `RunDirectory.write_blame` stored for a look; None if it cannot be read."""
        import numpy as np

        try:
            with np.load(self._blame(step), allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, KeyError, BadZipFile):
            return None

    def _blame(self, step: int) -> Path:
        return self.path / "scores" / f"blame-{step:08d}.npz"

    def max_steps(self) -> int:
        """Length of the stage in optimizer steps: as planned, or up to the last look if no length is recorded."""
        return length_of(self.info(), self.looks())

    def comparable_steps(self) -> list[int]:
        """Steps of the looks that can be compared with others."""
        return [look["step"] for look in self.looks() if look["status"] == "ok"]

    def scores(self, step: int) -> PromptScores:
        """Per-prompt values of a look. Raises DivwatchError if they cannot be read."""
        import numpy as np

        columns = self.score_table(step).to_pydict()
        ids, tasks = columns.pop("id"), columns.pop("task")
        try:
            return PromptScores(ids, tasks, {key: np.asarray(values, dtype=float) for key, values in columns.items()})
        except (TypeError, ValueError) as error:
            raise self._damaged(step, str(error)) from None

    def score_table(self, step: int) -> Any:
        """The same as a pyarrow table: one row per prompt, with `id`, `task` and one column per key."""
        table = read_parquet(self._file("scores", step))
        if not {"id", "task"} <= set(table.column_names):
            raise self._damaged(step, "it has no columns 'id' and 'task'")
        return table

    def completions(self, step: int) -> list[dict[str, Any]]:
        """One row per completion of a look. Raises DivwatchError if they cannot be read."""
        return self.completion_table(step).to_pylist()

    def completion_table(self, step: int) -> Any:
        """The same as a pyarrow table."""
        return read_parquet(self._file("completions", step))

    def read_completions(self, step: int) -> list[Completion]:
        """The completions of a look as they were sampled."""
        names = [f.name for f in fields(Completion)]
        return [Completion(**{name: row[name] for name in names if name in row}) for row in self.completions(step)]

    def completion_steps(self) -> list[int]:
        """Steps whose completions are stored."""
        return self._steps("completions")

    def unscored(self) -> list[int]:
        """Steps whose completions are stored and not scored: a crash or the end of training came first."""
        known = {look["step"] for look in self.looks() if look["status"] != "unscored"}
        return [step for step in self.completion_steps() if step not in known]

    def is_abandoned(self) -> bool:
        """Whether the process that writes the record has ended. False where this machine cannot know: it runs elsewhere."""
        import psutil

        try:
            writer = read_json_object(self.path / WRITER)
            started = psutil.Process(writer["pid"]).create_time() if writer["host"] == platform.node() else None
        except psutil.NoSuchProcess:
            return True
        except (OSError, DivwatchError, KeyError, TypeError, ValueError, psutil.Error):
            return False  # a record of an older version, or one that is just being claimed
        return started is not None and abs(started - writer["started"]) > 1  # the number belongs to another process now

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """A last line that is damaged was torn by a crash before its look was reported: it never counts as an error."""
        path = self.path / name
        rows: list[dict[str, Any]] = []
        damaged: list[int] = []
        number = 0
        for number, row in try_jsonl(path) if path.is_file() else ():
            if isinstance(row, BadLine) or not is_step(row.get("step")):
                damaged.append(number)
            else:
                rows.append(row)
        if self.notes is None and damaged and damaged[0] != number:
            raise DivwatchError(f"{path} line {damaged[0]} is damaged: remove that line")
        if self.notes is not None and damaged:
            lines, were = ("line", "was") if len(damaged) == 1 else ("lines", "were")
            self.notes.append(f"{name}: {len(damaged)} {lines} could not be read and {were} left out")
        return rows

    def _report(self, problem: str) -> None:
        if self.notes is None:
            raise DivwatchError(problem)
        self.notes.append(problem)

    def _damaged(self, step: int, problem: str) -> DivwatchError:
        path = self._file("scores", step)
        return DivwatchError(f"{path} is damaged ({problem}): remove it and resume, and it is computed again")

    def _steps(self, folder: str) -> list[int]:
        names = [path.stem.removeprefix("step-") for path in (self.path / folder).glob("step-*.parquet")]
        return sorted(int(name) for name in names if name.isdecimal() and len(name) <= 12)

    def _file(self, folder: str, step: int) -> Path:
        return self.path / folder / f"step-{step:08d}.parquet"


def training_rows(history: Iterable[Any]) -> list[dict[str, float]]:
    """The step, loss and reward of the entries of a trainer's log history that have one of the two.

    >>> training_rows([{"step": 1, "loss": 0.5, "lr": 1e-3}, {"step": 2, "diversity/all/sbert": 0.4}])
    [{'step': 1, 'loss': 0.5}]
    """
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        if isinstance(entry, dict) and is_step(entry.get("step")):
            found = {k: float(v) for k in ("loss", "reward") if isinstance(v := entry.get(k), int | float)}
            if found:
                rows.setdefault(entry["step"], {"step": entry["step"]}).update(found)
    return [rows[step] for step in sorted(rows)]


def is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


def length_of(info: dict[str, Any], looks: list[dict[str, Any]]) -> int:
    """Optimizer steps of a stage, at least 1. Trainers write -1 if the length follows from the epochs."""
    planned = info.get("max_steps")
    last: int = looks[-1]["step"] if looks else 1
    return max(planned if isinstance(planned, int) and is_step(planned) else 0, last, 1)
