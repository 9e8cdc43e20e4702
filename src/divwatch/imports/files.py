"""The files of a dump, read a row at a time: which there are, and rows that cannot be read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.files import BadLine, try_jsonl
from divwatch.imports.filters import OneFilter
from divwatch.imports.formats import FORMATS, Output, Unreadable, format_of, read_row, reward_names, score_columns
from divwatch.imports.steps import place_of, steps_of

SUFFIXES = (".jsonl", ".json", ".parquet")


class Dump:
    """Completions of the files under `paths`. `not_dumps`: files of a folder in no known format; `damaged`: those of them
    that cannot be read.

    Reading fills in: `left_out`, rows that hold no completion, by reason. `scored`: whether any completion has a score.
    `rewards`: the columns of TRL's rewards, of which the first is the score. `filters`: of lm-eval, as `OneFilter`:
    the name that is read -> the names that are skipped. `shared`: steps that several of `paths` hold.

    form: a name of FORMATS, or auto: by the first row of each file. score: the column with the scores, if not the usual
    one. Raises DivwatchError for a path without files, and for a file in no known format.
    """

    def __init__(self, paths: Sequence[Path], form: str = "auto", score: str | None = None) -> None:
        if form != "auto" and form not in FORMATS:
            raise DivwatchError(f"unknown format {form!r}: choose from auto, {', '.join(FORMATS)}")
        self.paths = list(dict.fromkeys(paths))
        named = {path.resolve() for path in paths}
        self.files = list({file.resolve(): file for path in self.paths for file in _files(path)}.values())
        problems = {file: problem for file in self.files if file.resolve() not in named if (problem := _problem(file))}
        if len(problems) == len(self.files):  # reading says what is wrong
            problems = {}
        self.files = [file for file in self.files if file not in problems]
        self.not_dumps = len(problems)
        self.damaged = [problem for problem in problems.values() if problem is not NOT_A_DUMP]
        self._form, self._score = form, score
        self._steps = steps_of(self.files, self.paths)
        self.left_out: Counter[str] = Counter()
        self.formats: dict[str, None] = {}
        self.rewards: list[str] = []
        self.filters: dict[str, dict[str, None]] = {}
        self.shared: dict[int, set[int]] = {}
        self.scored = False

    def outputs(self) -> Iterator[tuple[int, Output]]:
        """(step, completion) of every row that holds one. The step is the row's own, else the file's.

        Raises DivwatchError at the end if no row has a number in the column `score`.
        """
        self.left_out.clear()
        columns: dict[str, bool] = {}  # name -> whether any row has a number there
        for file in self.files:
            place = place_of(file, self.paths)
            for row, form in self._rows_of(file):
                try:
                    outputs = read_row(row, form, self._score)
                    if self._score:
                        columns |= {n: held or columns.get(n, False) for n, held in score_columns(row, form).items()}
                except Unreadable as error:
                    self.left_out[str(error)] += 1
                    continue
                for output in outputs:
                    step = self._steps[file] if output.step is None else output.step
                    self.scored |= output.score is not None
                    self.shared.setdefault(step, set()).add(place)
                    yield step, output if output.task or form != "lm-eval" else replace(output, task=_task_in(file))
        if self._score and columns and not columns.get(self._score):
            raise _no_score(self._score, columns)

    def _rows_of(self, file: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
        """The rows of a file that may hold completions, and their format."""
        form = None if self._form == "auto" else self._form
        one_filter: OneFilter | None = None
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
            if form == "lm-eval":
                one_filter = one_filter or OneFilter(_rows(file))
                if not one_filter.reads(row):
                    continue
            yield row, form
        if one_filter is not None and one_filter.skipped:
            self.filters.setdefault(one_filter.first or "the first", {}).update(one_filter.skipped)

    def reasons(self) -> str:
        """Why rows were left out, the commonest reasons first."""
        return "; ".join(f"{n:,}: {reason[:100]}" for reason, n in self.left_out.most_common(3)) or "no rows"


NOT_A_DUMP = "no completions"


def _problem(file: Path) -> str | None:
    """Why a file of a folder is no part of the dump: NOT_A_DUMP, as a results_*.json beside samples, or the error."""
    try:
        first = next((row for row in _rows(file) if not isinstance(row, BadLine)), None)
    except DivwatchError as error:
        return str(error)
    return NOT_A_DUMP if first is None or format_of(first) is None else None


def _no_score(name: str, columns: Mapping[str, bool]) -> DivwatchError:
    numbers = [column for column, holds_number in columns.items() if holds_number]
    close = get_close_matches(name, numbers, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    problem = f"the column {name!r} holds no number in any row" if name in columns else f"no row has a column {name!r}"
    have = ", ".join(column[:40] for column in numbers[:12]) or "none"
    return DivwatchError(f"--score: {problem}{hint}: the columns with numbers are {have}")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise DivwatchError(f"no such file or directory: {path}")
    inside = (file for file in path.rglob("*") if "divwatch" not in file.relative_to(path).parts)
    found = sorted(file for file in inside if file.suffix in SUFFIXES and file.is_file())
    if not found:
        raise DivwatchError(f"{path} holds no {', '.join(SUFFIXES)} file: give the folder of a dump, or its files")
    return found


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


def _json_rows(file: Path) -> Iterator[Mapping[str, Any] | BadLine]:
    """A table of W&B (`{"columns": [...], "data": [[...], ...]}`), an array of rows, or JSON lines."""
    first = [row for _, row in islice(try_jsonl(file), 2)]
    if len(first) == 2 and not isinstance(first[0], BadLine):  # JSON lines, which need not fit into memory
        yield from (row for _, row in try_jsonl(file))
        return
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if all(isinstance(row, BadLine) for _, row in try_jsonl(file)):
            raise DivwatchError(
                f"{file} is not JSON ({one_line(error, kind=False)}): give an array of objects, a W&B table or JSON lines"
            ) from None
        yield from (row for _, row in try_jsonl(file))
        return
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
