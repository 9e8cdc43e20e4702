"""Curves over a lineage: stages as slots of one width, one panel above the other, with intervals and onsets.

The plot areas carry `data-*` attributes, by which the script of the page finds the values that it reads out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from divwatch.outputs.charts.area import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Area,
    Point,
    Series,
    dash_of,
    escape,
    fit,
    limits_of,
    series_name,
    wrap,
)


@dataclass(frozen=True)
class Onset:
    """Where a fall began: a line at `x` and its interval."""

    x: float
    lo: float
    hi: float
    colour: int = 0


@dataclass(frozen=True)
class Panel:
    """One plot area of a chart; panels of a chart share the x axis. With a `unit`, ticks count hundredths."""

    title: str
    series: Sequence[Series]
    onsets: Sequence[Onset] = ()
    references: Sequence[tuple[float, float, int]] = ()
    failed: Sequence[tuple[float, int]] = ()
    unit: str = ""
    zero: bool = False
    key: str = ""
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Axis:
    """The pipeline axis: one slot per stage, all of the same width, with the stage's name and length below it."""

    names: Sequence[str]
    lengths: Sequence[str] = field(default_factory=tuple)


def pipeline_chart(panels: Sequence[Panel], axis: Axis, label: str, task: str = "", panel_height: int = 190) -> Markup:
    """Curves over the lineage: stage bands, intervals, onsets, one panel above the other.

    The plot areas carry `data-task` and `data-key`: the script of the page looks the values up by them.
    """
    height = len(panels) * panel_height + BOTTOM - 8
    parts = []
    for i, panel in enumerate(panels):
        last = i == len(panels) - 1
        parts.append(_pipeline_panel(panel, axis, task, i * panel_height + TOP, panel_height - TOP - 8, last))
    return wrap(WIDTH, height, label, parts)


def _pipeline_panel(panel: Panel, axis: Axis, task: str, top: float, height: float, last: bool) -> str:
    values = [
        v for s in panel.series for seg in s.segments for p in seg for v in (p.y, p.lo, p.hi) if not math.isnan(v)
    ]
    values += [y for _, y, _ in panel.references]
    y_range = panel.y_range or limits_of(values, zero=panel.zero)
    stages = len(axis.names)
    area = Area(LEFT, top, WIDTH - LEFT - RIGHT, height, (0, stages), y_range)
    out = [f'<text class="t" x="4" y="{top - 9:.1f}">{escape(panel.title)}</text>']
    for i in range(stages):
        x, w = area.x(i), area.width / stages
        out.append(f'<rect class="band{i % 2}" x="{x:.1f}" y="{top}" width="{w:.1f}" height="{height}"/>')
    out += [area.grid_y(panel.unit), area.frame()]
    if y_range[0] < 0 < y_range[1]:
        out.append(f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{area.y(0):.1f}" y2="{area.y(0):.1f}"/>')
    out += [_onset(area, o) for o in panel.onsets]
    out += [_series(area, s) for s in panel.series]
    for x, y, colour in panel.references:
        cx, cy = area.x(x), area.y(y)
        out.append(
            f'<path class="ref s{colour}" d="M{cx - 5:.1f} {cy:.1f}l5 -5 5 5 -5 5z">'
            f"<title>published: {y:.3f}</title></path>"
        )
    for x, colour in panel.failed:
        cx, cy = area.x(x), top + height - 5
        out.append(
            f'<path class="fail s{colour}" d="M{cx - 3:.1f} {cy - 3:.1f}l6 6m0 -6l-6 6">'
            "<title>look failed or not scored</title></path>"
        )
    if last:
        out.append(_stage_names(area, axis))
    out.append(
        f'<rect class="hit" x="{LEFT}" y="{top}" width="{area.width}" height="{height}" data-task="{escape(task)}" '
        f'data-key="{escape(panel.key)}" data-stages="{stages}" data-lo="{y_range[0]:.6g}" data-hi="{y_range[1]:.6g}"/>'
    )
    return "".join(out)


def _stage_names(area: Area, axis: Axis) -> str:
    out, bottom, width = [], area.top + area.height, area.width / len(axis.names)
    for i, name in enumerate(axis.names):
        x = area.x(i + 0.5)
        out.append(f'<text class="b" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{fit(name, width, 7.2)}</text>')
        if i < len(axis.lengths):
            text = fit(axis.lengths[i], width, 6.0)
            out.append(f'<text class="a" x="{x:.1f}" y="{bottom + 28}" text-anchor="middle">{text}</text>')
    return "".join(out)


def _onset(area: Area, onset: Onset) -> str:
    x, lo, hi = area.x(onset.x), area.x(onset.lo), area.x(onset.hi)
    bottom = area.top + area.height
    return (
        f'<g class="onset s{onset.colour}">'
        f'<rect x="{lo:.1f}" y="{area.top}" width="{max(hi - lo, 1):.1f}" height="{area.height}"/>'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{area.top}" y2="{bottom}"/>'
        f'<path d="M{x - 5:.1f} {area.top}h10l-5 7z"/></g>'
    )


def _series(area: Area, s: Series) -> str:
    out = [f'<g class="s s{s.colour}"{series_name(s)}>']
    for segment in s.segments:
        # A line through a value that is missing would claim one: it breaks there.
        for run in _unbroken(segment):
            banded = [p for p in run if not (math.isnan(p.lo) or math.isnan(p.hi))]
            if len(banded) > 1 and not s.thin:
                upper = "L".join(f"{area.x(p.x):.1f} {area.y(p.hi):.1f}" for p in banded)
                lower = "L".join(f"{area.x(p.x):.1f} {area.y(p.lo):.1f}" for p in reversed(banded))
                out.append(f'<path class="ci" d="M{upper}L{lower}Z"/>')
            path = "M" + "L".join(f"{area.x(p.x):.1f} {area.y(p.y):.1f}" for p in run)
            out.append(f'<path class="line{" thin" if s.thin else ""}" d="{path}"{dash_of(s)}/>')
            if len(run) <= 24 and not s.thin:
                out += [_dot(area, p) for p in run]
            else:
                out += [_dot(area, p) for p in run if not p.solid]
    out.append("</g>")
    return "".join(out)


def _dot(area: Area, p: Point) -> str:
    shape, radius = ("dot", 2.4) if p.solid else ("dot open", 3.4)
    return f'<circle class="{shape}" cx="{area.x(p.x):.1f}" cy="{area.y(p.y):.1f}" r="{radius}"/>'


def _unbroken(segment: Sequence[Point]) -> list[list[Point]]:
    runs: list[list[Point]] = [[]]
    for p in segment:
        if math.isnan(p.y):
            runs.append([])
        else:
            runs[-1].append(p)
    return [r for r in runs if r]
