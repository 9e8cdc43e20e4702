"""Charts as inline SVG: drawn once, when the page is written, so that they need no script, print and follow the theme.

Every chart has one natural width (380 px) and the page lays them side by side or below each other, so that text keeps
its size on a phone. Colours are CSS variables (`--c0` ...), set for light and dark in the page. The script of the page
only adds read-outs; what it needs to find a value are the attributes `data-*` of the plot areas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import markupsafe
from markupsafe import Markup

from divwatch.outputs.report.text import inert, percent

WIDTH = 380
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 26, 34
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4")


def escape(text: str) -> Markup:
    """Text for an element or an attribute, its control characters made visible."""
    return markupsafe.escape(inert(text))


@dataclass(frozen=True)
class Point:
    """One look: place on the pipeline axis, mean and interval. `solid` is False where the look is not comparable."""

    x: float
    y: float
    lo: float = math.nan
    hi: float = math.nan
    solid: bool = True


@dataclass(frozen=True)
class Series:
    """Segments (one a stage) of one lineage. `colour` and `dash` are indices, so that colour is never the only cue."""

    name: str
    segments: Sequence[Sequence[Point]]
    colour: int = 0
    dash: int = 0
    thin: bool = False


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
    """The pipeline axis: one slot a stage, all of the same width, with the stage's name and length below it."""

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
    return _svg(WIDTH, height, label, parts)


def scatter_chart(series: Sequence[Series], label: str, x_title: str, y_title: str, height: int = 320) -> Markup:
    """Paths in a plane: each look a dot, the first one hollow, the last one large."""
    points = [p for s in series for segment in s.segments for p in segment]
    x_range, y_range = _range([p.x for p in points], zero=False), _range([p.y for p in points], zero=True)
    area = _Area(LEFT, 30, WIDTH - LEFT - RIGHT, height - 30 - 42, x_range, y_range)
    parts = [area.grid_y(""), area.grid_x(), area.frame()]
    for s in series:
        flat = [p for segment in s.segments for p in segment]
        if not flat:
            continue
        path = "M" + "L".join(f"{area.x(p.x):.1f} {area.y(p.y):.1f}" for p in flat)
        parts.append(f'<g class="s s{s.colour}"{_name(s)}><path class="line thin" d="{path}"{_dash(s)}/>')
        for i, p in enumerate(flat):
            first, last = i == 0, i == len(flat) - 1
            shape = "dot open" if first else "dot"
            radius = 5 if first or last else 2
            tip = f"{s.name}: {x_title} {p.x:.2f}, {y_title} {p.y:.3f}"
            parts.append(
                f'<circle class="{shape}" cx="{area.x(p.x):.1f}" cy="{area.y(p.y):.1f}" r="{radius}">'
                f"<title>{escape(tip)}</title></circle>"
            )
        parts.append("</g>")
    parts.append(f'<text class="t" x="4" y="16">{escape(y_title)}</text>')
    parts.append(f'<text class="a" x="{WIDTH - RIGHT}" y="{height - 4}" text-anchor="end">{escape(x_title)}</text>')
    return _svg(WIDTH, height, label, parts)


@dataclass(frozen=True)
class Bar:
    """One row of a forest plot."""

    name: str
    value: float
    lo: float
    hi: float
    strong: bool = False


def forest_chart(
    groups: Sequence[tuple[str, Sequence[Bar]]], label: str, title: str, x_range: tuple[float, float], colour: int = 0
) -> Markup:
    """Signed values with their intervals, a row each, from a common zero line; groups of rows have a heading."""
    row, left, top = 21, 128, 26
    rows = sum(len(bars) + 1 for _, bars in groups)
    height = top + row * rows + 26
    area = _Area(left, top, WIDTH - left - 14, row * rows, x_range, (0, 1))
    parts = [f'<text class="t" x="4" y="15">{escape(title)}</text>', area.grid_x(signed=True, percent=True)]
    zero = area.x(0)
    parts.append(f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="{top}" y2="{top + row * rows}"/>')
    parts.append(f'<g class="s s{colour}">')
    at = 0
    for name, bars in groups:
        parts.append(f'<text class="b" x="4" y="{top + row * (at + 0.5) + 5:.1f}">{_fit(name, left, 7)}</text>')
        for i, bar in enumerate(bars, 1):
            parts.append(_bar(area, bar, top + row * (at + i + 0.5), left, zero))
        at += len(bars) + 1
    parts.append("</g>")
    return _svg(WIDTH, height, label, parts)


def _bar(area: _Area, bar: Bar, y: float, left: float, zero: float) -> str:
    name = f'<text class="r" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(bar.name)}</text>'
    if math.isnan(bar.value):
        return f'{name}<text class="a" x="{zero - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">not computable</text>'
    x, w = min(zero, area.x(bar.value)), abs(area.x(bar.value) - zero)
    tip = f"{bar.name}: {percent(bar.value)}, 95 % interval {percent(bar.lo)} to {percent(bar.hi)}"
    thickness = 12 if bar.strong else 9
    whisker = ""
    if not (math.isnan(bar.lo) or math.isnan(bar.hi)):
        whisker = f'<path class="whisker" d="M{area.x(bar.lo):.1f} {y:.1f}H{area.x(bar.hi):.1f}"/>'
    return (
        f'{name}<g><title>{escape(tip)}</title><rect class="bar{"" if bar.strong else " soft"}" x="{x:.1f}" '
        f'y="{y - thickness / 2:.1f}" width="{max(w, 0.5):.1f}" height="{thickness}"/>{whisker}</g>'
    )


@dataclass(frozen=True)
class _Area:
    """A plot area: pixel box and data ranges."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        lo, hi = self.x_range
        return self.left + self.width * (min(max(value, lo), hi) - lo) / (hi - lo)

    def y(self, value: float) -> float:
        lo, hi = self.y_range
        return self.top + self.height * (1 - (min(max(value, lo), hi) - lo) / (hi - lo))

    def frame(self) -> str:
        bottom = self.top + self.height
        return f'<line class="axis" x1="{self.left}" x2="{self.left + self.width}" y1="{bottom}" y2="{bottom}"/>'

    def grid_y(self, unit: str) -> str:
        out = []
        for tick in ticks(*self.y_range, 4):
            y = self.y(tick)
            out.append(f'<line class="grid" x1="{self.left}" x2="{self.left + self.width}" y1="{y:.1f}" y2="{y:.1f}"/>')
            text = _plain(tick, self.y_range)
            if unit:
                text = f"{100 * tick:.0f}{unit}".replace("-", "−")
            out.append(f'<text class="a" x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        return "".join(out)

    def grid_x(self, signed: bool = False, percent: bool = False) -> str:
        out, bottom = [], self.top + self.height
        for tick in ticks(*self.x_range, 4):
            x = self.x(tick)
            out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{bottom}"/>')
            text = _signed_percent(tick) if signed and percent else _plain(tick, self.x_range)
            out.append(f'<text class="a" x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{text}</text>')
        return "".join(out)


def _pipeline_panel(panel: Panel, axis: Axis, task: str, top: float, height: float, last: bool) -> str:
    values = [
        v for s in panel.series for seg in s.segments for p in seg for v in (p.y, p.lo, p.hi) if not math.isnan(v)
    ]
    values += [y for _, y, _ in panel.references]
    y_range = panel.y_range or _range(values, zero=panel.zero)
    stages = len(axis.names)
    area = _Area(LEFT, top, WIDTH - LEFT - RIGHT, height, (0, stages), y_range)
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


def _stage_names(area: _Area, axis: Axis) -> str:
    out, bottom, width = [], area.top + area.height, area.width / len(axis.names)
    for i, name in enumerate(axis.names):
        x = area.x(i + 0.5)
        out.append(
            f'<text class="b" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{_fit(name, width, 7.2)}</text>'
        )
        if i < len(axis.lengths):
            text = _fit(axis.lengths[i], width, 6.0)
            out.append(f'<text class="a" x="{x:.1f}" y="{bottom + 28}" text-anchor="middle">{text}</text>')
    return "".join(out)


def _fit(text: str, width: float, per_character: float) -> Markup:
    room = max(3, int(width / per_character))
    return escape(text if len(text) <= room else text[: room - 1] + "…")


def _onset(area: _Area, onset: Onset) -> str:
    x, lo, hi = area.x(onset.x), area.x(onset.lo), area.x(onset.hi)
    bottom = area.top + area.height
    return (
        f'<g class="onset s{onset.colour}">'
        f'<rect x="{lo:.1f}" y="{area.top}" width="{max(hi - lo, 1):.1f}" height="{area.height}"/>'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{area.top}" y2="{bottom}"/>'
        f'<path d="M{x - 5:.1f} {area.top}h10l-5 7z"/></g>'
    )


def _series(area: _Area, s: Series) -> str:
    out = [f'<g class="s s{s.colour}"{_name(s)}>']
    for segment in s.segments:
        # A line through a value that is missing would claim one: it breaks there.
        for run in _unbroken(segment):
            banded = [p for p in run if not (math.isnan(p.lo) or math.isnan(p.hi))]
            if len(banded) > 1 and not s.thin:
                upper = "L".join(f"{area.x(p.x):.1f} {area.y(p.hi):.1f}" for p in banded)
                lower = "L".join(f"{area.x(p.x):.1f} {area.y(p.lo):.1f}" for p in reversed(banded))
                out.append(f'<path class="ci" d="M{upper}L{lower}Z"/>')
            path = "M" + "L".join(f"{area.x(p.x):.1f} {area.y(p.y):.1f}" for p in run)
            out.append(f'<path class="line{" thin" if s.thin else ""}" d="{path}"{_dash(s)}/>')
            if len(run) <= 24 and not s.thin:
                out += [_dot(area, p) for p in run]
            else:
                out += [_dot(area, p) for p in run if not p.solid]
    out.append("</g>")
    return "".join(out)


def _dot(area: _Area, p: Point) -> str:
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


def _name(s: Series) -> Markup:
    return Markup(' data-series="{}"').format(inert(s.name))


def _dash(s: Series) -> str:
    pattern = DASHES[s.dash % len(DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def _range(values: Sequence[float], zero: bool) -> tuple[float, float]:
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return (0.0, 1.0)
    lo, hi = min(finite), max(finite)
    if zero and lo >= 0:
        lo = 0.0
    pad = 0.06 * (hi - lo) or max(abs(hi), 1e-3) * 0.1
    return (lo if lo == 0 else lo - pad, hi + pad)


def ticks(lo: float, hi: float, about: int) -> list[float]:
    """Round numbers in [lo, hi], `about` of them.

    >>> ticks(0, 0.47, 4)
    [0.0, 0.1, 0.2, 0.3, 0.4]
    """
    raw = (hi - lo) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.8)
    first = math.ceil(lo / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(hi / step + 1e-9) + 1)]


def _plain(value: float, limits: tuple[float, float]) -> str:
    span = limits[1] - limits[0]
    digits = max(0, min(4, 1 - math.floor(math.log10(span)))) if span < 10 else 0
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def _signed_percent(value: float) -> str:
    return "0" if value == 0 else percent(value)


def _svg(width: int, height: float, label: str, parts: Sequence[str]) -> Markup:
    body = "".join(str(p) for p in parts)
    return Markup(f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(label)}">{body}</svg>')
