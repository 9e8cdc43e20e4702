"""The chart beside each verdict: the diversity of one lineage, and on the same axis what training itself logged."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from divwatch.outputs.charts.area import Point, Series
from divwatch.outputs.charts.pipeline import Axis, Onset, Panel, pipeline_chart
from divwatch.outputs.report.build import Report, metric_name
from divwatch.outputs.report.charts import curve_points
from divwatch.outputs.report.layout import Lineage, stage_name
from divwatch.outputs.report.narrative import panel_onset

POINTS = 150  # drawn of a stage's losses; more are averaged
LOGGED = {"loss": "Training loss", "reward": "Reward"}


def verdict_charts(report: Report) -> list[Markup]:
    """One drawing a lineage, in their order; empty where diversity was not measured."""
    return [_chart(report, lineage) for lineage in report.lineages]


def _chart(report: Report, lineage: Lineage) -> Markup:
    series = []
    for dash, group in enumerate(("diversity", "correct_diversity")):
        at = (report.curves["key"] == f"{group}/{report.primary}") & (report.curves["task"] == "all")
        frame = report.curves[at & (report.curves["lineage"] == lineage.name)]
        # Only the lineage's own stages are on this axis.
        segments = [
            curve_points(part.assign(x=part["x"] - lineage.slots[number] + number))
            for number, part in frame.groupby("number")
        ]
        if segments:
            series.append(Series(lineage.name, segments, lineage.colour, dash))
    if not series:
        return Markup("")
    title = "Diversity; dashed: of correct answers" if len(series) > 1 else f"Diversity: {metric_name(report.primary)}"
    panels = [Panel(title, series, _onsets(report, lineage), zero=True), *_training(lineage)]
    names = [stage_name(stage) for stage in lineage.stages]
    axis = Axis(names, [f"{run.max_steps:,} steps" for run in lineage.runs])
    label = f"{lineage.name}: {', '.join(panel.title for panel in panels)} over {', '.join(names)}"
    return pipeline_chart(panels, axis, label, "", 190 if len(panels) == 1 else 132)


def _onsets(report: Report, lineage: Lineage) -> list[Onset]:
    onsets = []
    for number in range(len(lineage.runs)):
        if (row := panel_onset(report, lineage.name, number)) is not None:
            x, lo, hi = (row[name] - lineage.slots[number] + number for name in ("x", "x_lo", "x_hi"))
            onsets.append(Onset(x, lo, hi, lineage.colour))
    return onsets


def _training(lineage: Lineage) -> list[Panel]:
    """A panel for the loss and one for the reward, where a stage logged them."""
    logged = [run.training() for run in lineage.runs]
    panels = []
    for name, title in LOGGED.items():
        segments = []
        for number, (run, rows) in enumerate(zip(lineage.runs, logged, strict=True)):
            values = [(number + row["step"] / run.max_steps, row[name]) for row in rows if name in row]
            if values:
                segments.append(_thinned(values))
        if segments:
            panels.append(Panel(title, [Series(lineage.name, segments, lineage.colour, 0, True)]))
    return panels


def _thinned(values: list[tuple[float, float]]) -> list[Point]:
    parts = np.array_split(np.array(values), min(len(values), POINTS))
    return [Point(float(x), float(y)) for x, y in (part.mean(axis=0) for part in parts)]
