"""The rows of an eval_dataset, read within bounds: a stream may have no end, and a table may have a hundred million rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from divwatch.errors import one_line
from divwatch.panel.rows import COLUMNS
from divwatch.words import counted

MOST_ROWS = 100_000  # of a table, evenly spaced
MOST_STREAMED = 10_000
MOST_STREAM_SECONDS = 30.0
MOST_SECONDS = 120.0  # of a table, whose prompts should not depend on time: resuming needs the same ones


class EvalRows:
    """Iterates over (index, row). The reader of a stream breaks off when it has enough.

    name: how messages call the data set. read: the number of rows so far. failure: why reading failed, or None.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.name, self.read = name, 0
        self.failure: str | None = None
        self._end = "enough for the prompts to choose from"
        self._dataset = _unformatted(dataset)
        self._rows = _length(dataset)

    @property
    def streamed(self) -> bool:
        return self._rows is None

    @property
    def note(self) -> str | None:
        """One line about what was not read; None if a table was read completely."""
        if self.failure is not None:
            read = f"{counted(self.read, 'row')} ({self.failure})"
            return f"reading {self.name} failed after {read}: the prompts are from these rows"
        if self.streamed:
            return f"{self.name} is a stream: read {counted(self.read, 'row')}, {self._end}"
        if self._rows != self.read:
            return f"{self.name} has {counted(self._rows, 'row')}: read {self.read:,} of them, {self._end}"
        return None

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        most = MOST_STREAM_SECONDS if self.streamed else MOST_SECONDS
        until = time.monotonic() + most
        rows = self._source()
        while True:
            try:
                index, row = next(rows)
            except StopIteration:
                self._end = "all that it has" if self.streamed else "evenly spaced"
                return
            except Exception as error:  # of a source that can be anything
                self.failure = one_line(error)
                return
            self.read += 1
            yield index, row
            if self.streamed and self.read >= MOST_STREAMED:
                self._end = "the most that are read"
                return
            if time.monotonic() > until:
                self._end = f"as many as {most:.0f} s allow"
                return

    def _source(self) -> Iterator[tuple[int, Any]]:
        """All rows, or MOST_ROWS of a table at equal distances. It fails where the data set does, when it is read."""
        if self._rows is None:
            yield from enumerate(self._dataset)
            return
        step = max(1, -(-self._rows // MOST_ROWS))
        at = range(0, self._rows, step)
        if hasattr(self._dataset, "select_columns"):  # a datasets.Dataset: faster by iteration, without token ids
            names = [name for name in COLUMNS if name in self._dataset.column_names]
            # A transform of the user's may read any column.
            narrow = (
                self._dataset.select_columns(names) if names and not _is_transformed(self._dataset) else self._dataset
            )
            yield from zip(at, narrow if step == 1 else narrow.select(at), strict=False)
        else:
            yield from ((i, self._dataset[i]) for i in at)


def is_table(dataset: Any) -> bool:
    """Whether rows have numbers. A stream of torch has the method, and it raises."""
    stream = any(c.__name__ == "IterableDataset" for c in type(dataset).__mro__)
    return hasattr(dataset, "__getitem__") and not stream


def _length(dataset: Any) -> int | None:
    """The number of rows of a table; None for a stream."""
    if not is_table(dataset):
        return None
    try:
        return len(dataset)
    except TypeError:
        return None


def _unformatted(dataset: Any) -> Any:
    """A datasets.Dataset or IterableDataset that gives Python values; a transform of the user's stays."""
    if not hasattr(dataset, "with_format") or _is_transformed(dataset):
        return dataset
    return dataset.with_format(None)


def _is_transformed(dataset: Any) -> bool:
    formatted = getattr(dataset, "format", None)
    return isinstance(formatted, dict) and formatted["type"] == "custom"
