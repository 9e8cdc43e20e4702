"""Paths in a plane, such as accuracy against diversity: one dot per look."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from divwatch.outputs.charts.area import (
    LEFT,
    RIGHT,
    WIDTH,
    Area,
    Series,
    dash_of,
    escape,
    limits_of,
    percent_text,
    series_name,
    wrap,
)
from divwatch.outputs.numbers import percent


def scatter_chart(series: Sequence[Series], label: str, x_title: str, y_title: str, height: int = 320) -> Markup:
    """Paths in a plane: each look a dot, the first one hollow, the last one large. x: a share, shown in per cent."""
    points = [p for s in series for segment in s.segments for p in segment]
    x_range, y_range = limits_of([p.x for p in points], zero=False), limits_of([p.y for p in points], zero=True)
    area = Area(LEFT, 30, WIDTH - LEFT - RIGHT, height - 30 - 42, x_range, y_range)
    parts = [area.grid_y(), area.grid_x(percent_text), area.frame()]
    for s in series:
        flat = [p for segment in s.segments for p in segment]
        if not flat:
            continue
        path = "M" + "L".join(f"{area.x(p.x):.1f} {area.y(p.y):.1f}" for p in flat)
        parts.append(f'<g class="s s{s.colour}"{series_name(s)}><path class="line thin" d="{path}"{dash_of(s)}/>')
        for i, p in enumerate(flat):
            first, last = i == 0, i == len(flat) - 1
            shape = "dot open" if first else "dot"
            radius = 5 if first or last else 2
            tip = f"{s.name}: {x_title} {percent(p.x, signed=False)}, {y_title} {p.y:.3f}"
            parts.append(
                f'<circle class="{shape}" cx="{area.x(p.x):.1f}" cy="{area.y(p.y):.1f}" r="{radius}">'
                f"<title>{escape(tip)}</title></circle>"
            )
        parts.append("</g>")
    parts.append(f'<text class="t" x="4" y="16">{escape(y_title)}</text>')
    parts.append(f'<text class="a" x="{WIDTH - RIGHT}" y="{height - 4}" text-anchor="end">{escape(x_title)}</text>')
    return wrap(WIDTH, height, label, parts)
