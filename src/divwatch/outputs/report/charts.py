"""The charts of a report, each drawn once from the tidy tables of `build.Report`: the page and the figures share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from divwatch.outputs.charts.area import Point, Series
from divwatch.outputs.charts.forest import Bar, forest_chart
from divwatch.outputs.charts.pipeline import Axis, Onset, Panel, pipeline_chart
from divwatch.outputs.charts.scatter import scatter_chart
from divwatch.outputs.numbers import change, percent
from divwatch.outputs.report.build import Report, metric_name
from divwatch.outputs.report.findings import LineageFindings
from divwatch.outputs.report.layout import Lineage, stage_name
from divwatch.store.reader import SCORED
from divwatch.words import counted


@dataclass(frozen=True)
class Chart:
    """One drawing with its caption. `metric`: the measure it shows, if the page offers a choice."""

    svg: Markup
    caption: str = ""
    title: str = ""
    metric: str = ""


@dataclass(frozen=True)
class Charts:
    """Every chart of a report, by section of the page."""

    whole: list[Chart]
    splits: list[Chart]
    tasks: list[Chart]
    quality: list[Chart]
    cost: list[Chart]


def draw_charts(report: Report) -> Charts:
    draw = _Drawer(report)
    return Charts(draw.whole(), draw.splits(), draw.tasks(), draw.quality(), draw.cost())


class _Drawer:
    """Groups the curves of a report once and draws all charts from them."""

    def __init__(self, report: Report):
        self.report = report
        self.axis = Axis(report.slot_names, report.lengths)
        self.groups: dict[Any, pd.DataFrame] = dict(
            tuple(report.curves.groupby(["lineage", "task", "key"], sort=False))
        )

    def series(self, task: str, key: str) -> list[Series]:
        series = []
        for v in self.report.lineages:
            frame = self.groups.get((v.name, task, key))
            if frame is None:
                continue
            segments = [curve_points(part) for _, part in frame.groupby("number")]
            series.append(Series(v.name, segments, v.colour, v.dash, v.thin))
        return series

    def panel(self, title: str, task: str, key: str, **options: Any) -> Panel:
        onsets = [
            Onset(r["x"], r["x_lo"], r["x_hi"], r["colour"])
            for r in self.report.tables["onsets"].to_dict("records")
            if r["task"] == task and r["key"] == key
        ]
        failed = [(x, v.colour) for v in self.report.lineages for x in self._failed(v)]
        return Panel(title, self.series(task, key), onsets, failed=failed, key=key, zero=True, **options)

    def _failed(self, lineage: Lineage) -> list[float]:
        looks = self.report.looks
        return list(looks.loc[(looks["lineage"] == lineage.name) & ~looks["status"].isin(SCORED), "x"])

    def whole(self) -> list[Chart]:
        """Diversity, correct-answer diversity and accuracy of all tasks together."""
        charts = []
        for metric in self.report.metrics:
            for key, title in (
                (f"diversity/{metric}", "Diversity"),
                (f"correct_diversity/{metric}", "Correct-answer diversity"),
            ):
                panel = self.panel(f"{title}: {metric_name(metric)}", "all", key)
                caption = (
                    "All outputs."
                    if key.startswith("diversity")
                    else "Correct outputs only, on the same prompts from look to look."
                )
                charts.append(self._chart([panel], "all", caption, metric=metric, height=250))
        accuracy = self.panel("Accuracy", "all", "quality/accuracy", unit=" %", y_range=(0.0, 1.05))
        charts.append(self._chart([accuracy], "all", "Share of outputs that are correct.", height=250))
        return [c for c in charts if c.svg]

    def splits(self) -> list[Chart]:
        """A forest plot a lineage: the change and its parts, from the base to the end and within each stage."""
        table = self.report.tables["split"]
        table = table[table["task"] == "all"].dropna(subset=["value"])
        if table.empty:
            return []
        limits = table[["value", "lo", "hi"]].to_numpy(dtype=float)
        x_range = (min(float(np.nanmin(limits)), -0.05) * 1.05, max(float(np.nanmax(limits)), 0.02) * 1.05)
        charts = []
        for f in self.report.findings:
            mine = table[table["lineage"] == f.lineage.name]
            groups = [
                (
                    stage_name(str(stage)),
                    [Bar(r.name, r.value, r.lo, r.hi, r.part == "total") for r in part.itertuples(index=False)],
                )
                for stage, part in mine.groupby("stage", sort=False)
            ]
            if groups:
                label = f"{f.lineage.name}, {groups[0][0]}: " + ", ".join(
                    f"{b.name} {percent(b.value)}" for b in groups[0][1]
                )
                chart = forest_chart(groups, label, f.lineage.name, x_range, f.lineage.colour)
                charts.append(Chart(chart, _share_caption(f)))
        return charts

    def tasks(self) -> list[Chart]:
        """Per task: diversity, correct-answer diversity and accuracy, one above the other."""
        charts = []
        references = self.report.tables["references"]
        for task in self.report.tasks:
            for metric in self.report.metrics:
                panels = []
                for key, title in (
                    (f"diversity/{metric}", "Diversity"),
                    (f"correct_diversity/{metric}", "Correct-answer diversity"),
                ):
                    known = references[(references["task"] == task) & (references["key"] == key)]
                    marks = list(zip(known["x"], known["value"], known["colour"], strict=True))
                    panels.append(self.panel(f"{title}: {metric_name(metric)}", task, key, references=marks))
                panels.append(self.panel("Accuracy", task, "quality/accuracy", unit=" %", y_range=(0.0, 1.05)))
                charts.append(self._chart(panels, task, title=task, metric=metric, height=128))
        return [c for c in charts if c.svg]

    def quality(self) -> list[Chart]:
        """Paths in the plane of accuracy and diversity, then what more samples add."""
        charts = []
        for metric in self.report.metrics:
            for group, title in (("diversity", "Diversity"), ("correct_diversity", "Correct-answer diversity")):
                series = [s for v in self.report.lineages if (s := self._path(v, f"{group}/{metric}"))]
                if series:
                    name = f"{title}: {metric_name(metric)}"
                    label = (
                        f"{name} against accuracy: a path a lineage, from the hollow dot (start) to the large one (end)"
                    )
                    chart = scatter_chart(series, label, "accuracy", name)
                    charts.append(Chart(chart, "From the hollow dot (start) to the large dot (end).", metric=metric))
        for key, title, caption in (
            ("gain/majority", "Majority gain", "Accuracy of the majority answer minus accuracy of one sample."),
            ("gain/pass", "pass@k gain", "Share of prompts with a correct sample minus accuracy of one sample."),
        ):
            charts.append(
                self._chart(
                    [self.panel(f"{title}, percentage points", "all", key, unit=" ")], "all", caption, height=250
                )
            )
        return [c for c in charts if c.svg]

    def cost(self) -> list[Chart]:
        panel = self.panel("Seconds that training waited for a look", "all", "watch/seconds")
        return [c for c in [self._chart([panel], "all", "One point per look.", height=220)] if c.svg]

    def _path(self, lineage: Lineage, key: str) -> Series | None:
        d, a = self.groups.get((lineage.name, "all", key)), self.groups.get((lineage.name, "all", "quality/accuracy"))
        if d is None or a is None:
            return None
        both = a.merge(d, on=["number", "step"], suffixes=("_a", "_d")).dropna(subset=["mean_a", "mean_d"])
        points = [Point(x, y) for x, y in zip(both["mean_a"], both["mean_d"], strict=True)]
        return Series(lineage.name, [points], lineage.colour, lineage.dash, lineage.thin)

    def _chart(
        self,
        panels: Sequence[Panel],
        task: str,
        caption: str = "",
        title: str = "",
        metric: str = "",
        height: int = 190,
    ) -> Chart:
        shown = [p for p in panels if p.series]
        if not shown:
            return Chart(Markup(""))
        titles, stages = ", ".join(p.title for p in shown), ", ".join(self.report.slot_names)
        label = f"{'All tasks' if task == 'all' else task}: {titles} over {stages}"
        return Chart(pipeline_chart(shown, self.axis, label, task, height), caption, title, metric)


def curve_points(frame: pd.DataFrame) -> list[Point]:
    columns = zip(frame["x"], frame["mean"], frame["lo"], frame["hi"], frame["status"], strict=True)
    return [Point(x, y, lo, hi, status == "ok") for x, y, lo, hi, status in columns]


def _share_caption(f: LineageFindings) -> str:
    """The paper's share: how much of the loss persists among correct answers."""
    split = f.whole.split if f.whole else None
    if split is None:
        return ""
    share = split.common.share
    size = f"{counted(split.n_prompts, 'prompt')}."
    if not share.hi - share.lo < 1:  # also if the interval is not computable
        return f"{size} The change is too small to say which share of the loss persists among correct answers."
    persists = change(share.mean, share.lo, share.hi, signed=False)
    paired = f"{counted(share.n, 'prompt')} with two on both sides"
    return f"{size} {persists} of the loss persists among correct answers ({paired})."
