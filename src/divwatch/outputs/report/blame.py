"""The section on blame: sources by their effect over the looks of a run, and the rows at both ends side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from divwatch.outputs.blame import by_effect, points, with_interval
from divwatch.outputs.charts.area import Point, Series
from divwatch.outputs.charts.pipeline import Axis, Panel, pipeline_chart
from divwatch.outputs.numbers import typeset
from divwatch.outputs.report.cells import Cell, Row, Table
from divwatch.outputs.report.layout import Lineage, stage_name
from divwatch.outputs.text import shortened
from divwatch.store.tables import RunTables

SOURCES = 6  # curves of a chart: the sources with the largest effects
ROWS, LENGTH = 5, 220  # rows at either end, and characters of one


@dataclass(frozen=True)
class BlameSection:
    """Blame of one run. legend: name, colour and dash of each curve. most, least: rows (source, text)."""

    title: str
    summary: str
    chart: Markup
    legend: list[tuple[str, int, int]]
    table: Table
    by_task: Table | None
    most: list[tuple[str, str]]
    least: list[tuple[str, str]]


def blame_sections(lineages: Sequence[Lineage]) -> list[BlameSection]:
    """One for each run that was watched with `watch_blame`; a run that lineages share once."""
    runs = {run.directory: (v, n) for v in lineages for n, run in enumerate(v.runs)}
    return [_section(v, n, lines) for v, n in runs.values() if (lines := v.runs[n].blames())]


def _section(lineage: Lineage, number: int, lines: Sequence[dict[str, Any]]) -> BlameSection:
    last, run = lines[-1], lineage.runs[number]
    stage = stage_name(lineage.stages[number])
    shown = sorted(by_effect(last), key=lambda s: -abs(last["sources"][s]["all"]["effect"]))[:SOURCES]
    curves = [s for s in by_effect(last) if s in shown]
    series = [Series(s, [_points(run, s, lines)], i, i) for i, s in enumerate(curves)]
    panel = Panel("Predicted change of diversity so far, points", series, unit=" ")
    label = f"{lineage.name} {stage}: predicted change of diversity by source over the steps"
    half = (len(last["rows"]) + 1) // 2
    return BlameSection(
        title=f"{lineage.name} {stage}",
        summary=_summary(run, last),
        chart=pipeline_chart([panel], Axis([stage], [f"{run.max_steps:,} steps"]), label, panel_height=250),
        legend=[(s.name, s.colour, s.dash) for s in series],
        table=_effects(last),
        by_task=_by_task(last),
        most=_rows(last["rows"][:half]),
        least=_rows(last["rows"][half:][::-1]),
    )


def _points(run: RunTables, source: str, lines: Sequence[dict[str, Any]]) -> list[Point]:
    """Without bands, which would cover each other: the table has the intervals."""
    found = [(line["step"], line["sources"].get(source, {}).get("all")) for line in lines]
    return [Point(0, 0)] + [Point(min(step / run.max_steps, 1.0), e["effect"]) for step, e in found if e is not None]


def _summary(run: RunTables, line: dict[str, Any]) -> str:
    """Who narrows the model, and the check on itself: predicted for the whole mix against what the curve did."""
    blamed = [s for s in by_effect(line) if s in line["blamed"]]
    who = (
        f"{' and '.join(blamed)} narrow{'s' * (len(blamed) == 1)} the model more than the other sources do. "
        if blamed
        else "No source narrows the model more than the others do, as far as the intervals tell. "
    )
    whole = line["explained"]
    check = (
        f"Of the whole mix, steps 1 to {line['step']:,}: predicted {with_interval(whole['predicted'], whole['ci95'])}"
    )
    observed = _observed(run.means, line["step"])
    return typeset(who + check + (f", observed {points(observed)}" if observed is not None else "") + " points.")


def _observed(means: pd.DataFrame, step: int) -> float | None:
    curve = means[(means["task"] == "all") & (means["key"] == "diversity/sbert")].set_index("step")["mean"].dropna()
    return float(curve[step] - curve.iloc[0]) if step in curve.index and len(curve) > 1 else None


def _effects(line: dict[str, Any]) -> Table:
    rows = []
    for source in by_effect(line):
        e = line["sources"][source]["all"]
        mark = Cell("narrows", mark="down") if source in line["blamed"] else Cell("")
        left_out = [None if x is None else -x for x in e["instead_ci95"][::-1]]
        rows.append(Row([Cell(source), _cell(e["effect"], e["ci95"]), _cell(-e["instead"], left_out), mark]))
    caption = (
        "Predicted change of diversity by source over the run so far, and what leaving the source out would change, in points "
        "(hundredths), with 95 % intervals that hold for all sources at once"
    )
    return Table(caption, ["Source", "Effect", "If left out", ""], rows)


def _by_task(line: dict[str, Any]) -> Table | None:
    order = by_effect(line)
    tasks = [task for task in line["sources"][order[0]] if task != "all"]
    if len(tasks) < 2:
        return None
    rows = []
    for source in order:
        of_source = line["sources"][source]
        cells = [_cell(of_source[t]["effect"], of_source[t]["ci95"]) if t in of_source else Cell("–") for t in tasks]
        rows.append(Row([Cell(source), *cells]))
    return Table("Effects by task, in points", ["Source", *tasks], rows)


def _rows(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    shown = []
    for row in rows[:ROWS]:
        text, more = shortened(" ".join(row["text"].split()), LENGTH)
        shown.append((row["source"], text + (" …" if more else "")))
    return shown


def _cell(value: float, ci: Sequence[float | None]) -> Cell:
    return Cell(typeset(points(value)), typeset(f"[{points(ci[0])}, {points(ci[1])}]"))
