"""The files of a dump, read a row at a time: which there are, the step of each, and rows that cannot be read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.files import BadLine, try_jsonl
from divwatch.imports.formats import FORMATS, Output, Unreadable, format_of, read_row, reward_names

SUFFIXES = (".jsonl", ".json", ".parquet")
# A number behind one of these words, anywhere in the path, or the whole name of the file, is the step.
_STEP = re.compile(r"(?:step|checkpoint|iter|completions)[-_]?0*(\d+)|^0*(\d+)$")


class Dump:
    """Completions of the files under `paths`. `left_out` counts rows that hold none, by reason; `not_dumps` the files of a
    folder in no known format. `rewards`: the columns of TRL's rewards, of which the first is the score.

    form: a name of FORMATS, or auto: by the first row of each file. score: the column with the scores, if not the usual
    one. Raises DivwatchError for a path without files, and for a file in no known format.
    """

    def __init__(self, paths: Sequence[Path], form: str = "auto", score: str | None = None) -> None:
        if form != "auto" and form not in FORMATS:
            raise DivwatchError(f"unknown format {form!r}: choose from auto, {', '.join(FORMATS)}")
        named = {path.resolve() for path in paths}
        self.files = list({file.resolve(): file for path in paths for file in _files(path)}.values())
        beside = [file for file in self.files if file.resolve() not in named]  # in a folder, maybe no dump
        others = {file for file in beside if _is_other(file)}
        if len(others) < len(self.files):
            self.files = [file for file in self.files if file not in others]
        self.not_dumps = len(beside) - sum(file in self.files for file in beside)
        self._form, self._score = form, score
        self._steps = _steps(self.files, paths)
        self.left_out: Counter[str] = Counter()
        self.rewards: list[str] = []
        self.formats: dict[str, None] = {}

    def outputs(self) -> Iterator[tuple[int, Output]]:
        """(step, completion) of every row that holds one. The step is the row's own, else the file's."""
        self.left_out.clear()
        for file in self.files:
            form = None if self._form == "auto" else self._form
            for row in _rows(file):
                if isinstance(row, BadLine):
                    self.left_out[row.problem] += 1
                    continue
                form = form or format_of(row)
                if form is None:
                    columns = ", ".join(str(name)[:40] for name in list(row)[:8]) or "no columns"
                    raise DivwatchError(
                        f"{file} is in no known format (its first row has {columns}): rename the columns to prompt, "
                        f"completion, score and step, or give --format ({', '.join(FORMATS)})"
                    )
                self.formats[form] = None
                if form == "trl" and not self._score and not self.rewards and "completion" in row:
                    self.rewards = reward_names(row)
                try:
                    for output in read_row(row, form, self._score):
                        step = self._steps[file] if output.step is None else output.step
                        yield step, output if output.task or form != "lm-eval" else replace(output, task=_task_in(file))
                except Unreadable as error:
                    self.left_out[str(error)] += 1

    def reasons(self) -> str:
        """Why rows were left out, the commonest reasons first."""
        return "; ".join(f"{n:,}: {reason[:100]}" for reason, n in self.left_out.most_common(3)) or "no rows"


def _is_other(file: Path) -> bool:
    """Whether the file's first row is in no known format, as that of a results_*.json beside samples."""
    first = next((row for row in _rows(file) if not isinstance(row, BadLine)), None)
    return first is not None and format_of(first) is None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise DivwatchError(f"no such file or directory: {path}")
    found = sorted(f for f in path.rglob("*") if f.suffix in SUFFIXES and f.is_file() and "divwatch" not in f.parts)
    if not found:
        raise DivwatchError(f"{path} holds no {', '.join(SUFFIXES)} file: give the folder of a dump, or its files")
    return found


def _steps(files: Sequence[Path], paths: Sequence[Path]) -> dict[Path, int]:
    """The number in each path; if one has none, the place among the paths that were given, or among the files of one."""
    named = {file: _step_in(file) for file in files}
    if all(step is not None for step in named.values()):
        return {file: step or 0 for file, step in named.items()}
    if len(paths) == 1:
        return {file: place for place, file in enumerate(files)}
    return {file: place for file in files for place, path in enumerate(paths) if file.is_relative_to(path)}


def _step_in(file: Path) -> int | None:
    """The step that a path names, the file's own name first.

    >>> _step_in(Path("out/checkpoint-500/generations.jsonl")), _step_in(Path("dump/12.jsonl")), _step_in(Path("a.jsonl"))
    (500, 12, None)
    """
    for part in (file.stem, *reversed(file.parent.parts)):
        if match := _STEP.search(part):
            return int(match[1] or match[2])
    return None


def _task_in(file: Path) -> str | None:
    """The task that a file of lm-evaluation-harness names.

    >>> _task_in(Path("samples_gsm8k_cot_2026-09-01T10-00-00.1.jsonl"))
    'gsm8k_cot'
    """
    match = re.match(r"samples_(.+?)_\d{4}-\d\d", file.name)
    return match[1] if match else None


def _rows(file: Path) -> Iterator[Mapping[str, Any] | BadLine]:
    try:
        if file.suffix == ".parquet":
            yield from _parquet_rows(file)
        elif file.suffix == ".json":
            yield from _json_rows(file)
        else:
            for _, row in try_jsonl(file):
                if isinstance(row, BadLine) and _ == 1 and "file" in row.problem:
                    raise row
                yield row
    except OSError as error:
        raise DivwatchError(
            f"cannot read {file} ({error.strerror or one_line(error)}): give a file that can be read"
        ) from None


def _parquet_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise DivwatchError(f"{file} is no parquet file that can be read ({one_line(error, kind=False)})") from None


def _json_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """A table of W&B (`{"columns": [...], "data": [[...], ...]}`), or an array of rows."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DivwatchError(f"{file} is not JSON ({one_line(error, kind=False)}): give JSON lines") from None
    if isinstance(content, Mapping) and {"columns", "data"} <= set(content):
        content = _table_rows(content, file)
    rows = content if isinstance(content, list) else [content]
    for row in rows:
        if not isinstance(row, Mapping):
            raise DivwatchError(f"{file} holds no rows: give an array of objects, or a W&B table")
        yield row


def _table_rows(table: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    """The rows of a W&B table as objects."""
    columns, data = table["columns"], table["data"]
    lists = isinstance(columns, list) and isinstance(data, list) and all(isinstance(values, list) for values in data)
    if not lists or not all(isinstance(name, str | int) for name in columns):
        raise DivwatchError(f"{file} is no W&B table: columns must be a list of names, data a list of rows")
    return [dict(zip(map(str, columns), values, strict=False)) for values in data]
