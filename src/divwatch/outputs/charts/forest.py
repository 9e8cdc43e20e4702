"""Forest plots: signed shares with their intervals, a row each, from a common zero line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from divwatch.outputs.charts.area import WIDTH, Area, escape, fit, signed_percent, wrap
from divwatch.outputs.numbers import percent


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
    area = Area(left, top, WIDTH - left - 14, row * rows, x_range, (0, 1))
    parts = [f'<text class="t" x="4" y="15">{escape(title)}</text>', area.grid_x(signed_percent)]
    zero = area.x(0)
    parts.append(f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="{top}" y2="{top + row * rows}"/>')
    parts.append(f'<g class="s s{colour}">')
    at = 0
    for name, bars in groups:
        parts.append(f'<text class="b" x="4" y="{top + row * (at + 0.5) + 5:.1f}">{fit(name, left, 7)}</text>')
        for i, bar in enumerate(bars, 1):
            parts.append(_bar(area, bar, top + row * (at + i + 0.5), left, zero))
        at += len(bars) + 1
    parts.append("</g>")
    return wrap(WIDTH, height, label, parts)


def _bar(area: Area, bar: Bar, y: float, left: float, zero: float) -> str:
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
        f'{name}<g><title>{escape(tip)}</title><rect class="bar{"" if bar.strong else " faint"}" x="{x:.1f}" '
        f'y="{y - thickness / 2:.1f}" width="{max(w, 0.5):.1f}" height="{thickness}"/>{whisker}</g>'
    )
