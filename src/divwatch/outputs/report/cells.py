"""Tables of the page: rows of cells, each a text with its interval below it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from divwatch.outputs.numbers import interval, number, percent
from divwatch.outputs.report.build import Report
from divwatch.store.reader import SCORED


@dataclass
class Cell:
    """Text of a table cell, a second line below it (its interval), and a class that marks it."""

    text: str
    more: str = ""
    mark: str = ""


@dataclass
class Row:
    cells: list[Cell]
    head: bool = False


@dataclass
class Table:
    """`words`: cells hold text rather than numbers, so they are set from the left."""

    caption: str
    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    words: bool = False


def stage_ends(report: Report) -> list[dict[Any, Any]]:
    """The first look of each lineage and the last of each stage, of those with scores. `where`: base or the stage."""
    out: list[dict[Any, Any]] = []
    worked = report.looks[report.looks["status"].isin(SCORED)]
    for _, looks in worked.groupby("lineage", sort=False):
        out.append(looks.iloc[0].to_dict() | {"where": "base"})
        out += [part.iloc[-1].to_dict() | {"where": part.iloc[-1]["stage"]} for _, part in looks.groupby("number")]
    return out


def level_cell(row: dict[Any, Any] | None, form: str = "number") -> Cell:
    """A level with its interval. form: number, percent (a share) or gain (a signed difference of shares)."""
    if row is None or math.isnan(row["mean"]):
        return Cell("–")
    mean, lo, hi = row["mean"], row["lo"], row["hi"]
    if form == "number":
        return Cell(number(mean), interval(lo, hi, "number"))
    if form == "gain":
        return Cell(percent(mean).replace("%", "points"), interval(lo, hi))
    return Cell(percent(mean, signed=False), interval(lo, hi, signed=False))
