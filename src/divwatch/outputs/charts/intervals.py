"""Estimates with their intervals, a dot and a line each, from a common zero line: which differences are there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from divwatch.outputs.charts.area import WIDTH, Area, escape, fit, limits_of, wrap

CLEAR, UNCLEAR = 1, 0  # colours: the interval excludes 0, or holds it
ROW, LEFT, TOP = 21, 128, 26


@dataclass(frozen=True)
class Estimate:
    """One row. `parts`: values behind it, such as one per task, drawn as small ticks."""

    name: str
    value: float
    lo: float
    hi: float
    parts: Sequence[float] = ()


def interval_chart(rows: Sequence[Estimate], label: str, title: str, x_title: str) -> Markup:
    """One row per estimate, first row on top; orange if the interval excludes 0, else blue."""
    values = [-0.001, 0.001, *(v for row in rows for v in (row.value, row.lo, row.hi, *row.parts))]
    bottom = TOP + ROW * len(rows)
    area = Area(LEFT, TOP, WIDTH - LEFT - 14, ROW * len(rows), limits_of(values, zero=False), (0, 1))
    zero = area.x(0)
    parts = [
        f'<text class="t" x="4" y="15">{escape(title)}</text>',
        area.grid_x(),
        f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="{TOP}" y2="{bottom}"/>',
        *(_row(area, row, TOP + ROW * (i + 0.5)) for i, row in enumerate(rows)),
        f'<text class="a" x="{WIDTH - 14}" y="{bottom + 32}" text-anchor="end">{escape(x_title)}</text>',
    ]
    return wrap(WIDTH, bottom + 40, label, parts)


def _row(area: Area, row: Estimate, y: float) -> str:
    ticks = "".join(f'<path class="part" d="M{area.x(v):.1f} {y - 4:.1f}v8"/>' for v in row.parts if not math.isnan(v))
    colour = CLEAR if row.lo > 0 or row.hi < 0 else UNCLEAR
    name = f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{fit(row.name, LEFT - 8, 6.2)}</text>'
    span = "" if math.isnan(row.lo) or math.isnan(row.hi) else f"M{area.x(row.lo):.1f} {y:.1f}H{area.x(row.hi):.1f}"
    line = f'<path class="line" d="{span}"/>' if span else ""
    dot = "" if math.isnan(row.value) else f'<circle class="dot" cx="{area.x(row.value):.1f}" cy="{y:.1f}" r="4.5"/>'
    return f'{name}{ticks}<g class="s{colour}">{line}{dot}</g>'
