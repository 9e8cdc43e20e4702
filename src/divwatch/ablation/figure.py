"""The ranking as a figure: one chart per measure, one row per source or arm, with its simultaneous interval and its tasks."""

from __future__ import annotations

from pathlib import Path

from divwatch.ablation.read import QUALITY, ArmValues
from divwatch.ablation.table import title
from divwatch.analysis.compare import Comparison
from divwatch.outputs.charts.export import sheet, write_png
from divwatch.outputs.charts.intervals import Estimate, interval_chart
from divwatch.words import counted


def write_figure(arms: ArmValues, comparison: Comparison, path: Path) -> None:
    """Rows in the order of the first measure's effects, lowest on top. Orange: the interval excludes 0."""
    measures = list(arms.values)
    first = sorted((e for e in comparison.effects if e.measure == measures[0]), key=lambda e: e.value)
    order = {e.name: place for place, e in enumerate(first)}
    charts = []
    for measure in measures:
        effects = sorted(
            (e for e in comparison.effects if e.measure == measure and e.name in order), key=lambda e: order[e.name]
        )
        tasks = [(e.name, e.value) for e in comparison.by_task if e.measure == measure]
        rows = [Estimate(e.name, e.value, e.lo, e.hi, [v for name, v in tasks if name == e.name]) for e in effects]
        unit = "share of right answers" if measure == QUALITY else "difference"
        charts.append(("", str(interval_chart(rows, title(measure), title(measure), unit))))
    write_png(sheet(charts, columns=len(charts), note=_note(arms, comparison)), path)


def _note(arms: ArmValues, comparison: Comparison) -> str:
    what = f"{arms.names[0]} - without the source" if arms.sources else f"arm - {arms.names[0]}"
    size = f"{counted(len(arms.seeds), 'seed')}, {counted(len(arms.tasks), 'prompt')}"
    marks = "; grey: single tasks" if comparison.by_task else ""
    return f"{what}; simultaneous {comparison.level:.0%} intervals, {size}{marks}"
