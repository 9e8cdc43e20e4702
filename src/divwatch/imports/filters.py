"""lm-evaluation-harness writes a row per document and answer filter, each with the same completions: one is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from divwatch.files import BadLine

Row = Mapping[str, Any]


class OneFilter:
    """Which rows of a file are read: those of its first filter. `skipped`: the names of the others.

    Older versions name no filter. If documents then recur, and all of them with the same completions, only the first row
    of each is read.
    """

    def __init__(self, rows: Iterable[Row | BadLine]) -> None:
        self._once = _recur_unchanged(rows)
        self._documents: set[str] = set()
        self.first: str | None = None
        self.skipped: dict[str, None] = {}

    def reads(self, row: Row) -> bool:
        """Whether a row's completions are read. Call it once for each row, in their order."""
        if row.get("filter") is not None:
            name = str(row["filter"])
            self.first = self.first or name
            is_first = name == self.first
        else:
            name, document = "one without a name", str(row.get("doc_id"))
            is_first = not self._once or document not in self._documents
            if self._once:
                self._documents.add(document)
        if not is_first:
            self.skipped[name] = None
        return is_first


def _recur_unchanged(rows: Iterable[Row | BadLine]) -> bool:
    """Whether rows name no filter, and every document that recurs has the completions that it had first."""
    completions: dict[str, int] = {}
    for row in rows:
        if isinstance(row, BadLine):
            continue
        if row.get("filter") is not None or row.get("doc_id") is None:
            return False
        answers = hash(json.dumps(row.get("resps"), default=str))
        if completions.setdefault(str(row["doc_id"]), answers) != answers:
            return False
    return True
