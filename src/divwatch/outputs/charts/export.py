"""Charts as figures: several drawings on one sheet, written as PNG and PDF without a browser or a network.

vl-convert (resvg) renders them. It brings its own font, Liberation Sans, so text also renders in a container without fonts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from divwatch.outputs.charts.area import DASHES, WIDTH, escape, fit

GAP = 16
FONT = '"Liberation Sans", Arial, Helvetica, sans-serif'
SCALE = 2.0  # pixels of the PNG a unit of the drawing: a chart is 760 pixels wide


def sheet(
    charts: Sequence[tuple[str, str]],
    columns: int,
    legend: Sequence[tuple[str, int, int]] = (),
    crowded: bool = False,
    note: str = "",
) -> str:
    """One SVG of several charts in rows of `columns`, with the light colours of the page.

    charts: (title above it or an empty text, SVG of `WIDTH`). legend: (name, colour, dash), above all charts.
    crowded: many lineages, so bands are drawn fainter. note: a line below all charts.
    """
    columns = min(columns, len(charts))
    width = columns * (WIDTH + GAP) + GAP
    parts, top = _legend(legend, width)
    for start in range(0, len(charts), columns):
        row = charts[start : start + columns]
        head = 20 if any(title for title, _ in row) else 0
        for i, (title, svg) in enumerate(row):
            left = GAP + i * (WIDTH + GAP)
            parts.append(f'<text class="t" x="{left + 4}" y="{top + 14}">{fit(title, WIDTH, 7.5)}</text>')
            parts.append(svg.replace("<svg ", f'<svg x="{left}" y="{top + head}" {_size(svg)} ', 1))
        top += head + max(_height(svg) for _, svg in row) + GAP
    if note:
        parts.append(f'<text class="a" x="{width / 2}" y="{top + 4}" text-anchor="middle">{escape(note)}</text>')
        top += GAP
    mark = ' class="crowded"' if crowded else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}"'
        f"{mark}><style>{_light()} svg {{ font-family: {FONT}; }}</style>"
        f'<rect width="{width}" height="{top}" fill="#ffffff"/>{"".join(parts)}</svg>'
    )


def write_png(svg: str, path: Path) -> Path:
    import vl_convert

    path.write_bytes(vl_convert.svg_to_png(svg, scale=SCALE))
    return path


def write_pdf(svg: str, path: Path) -> Path:
    import vl_convert

    path.write_bytes(vl_convert.svg_to_pdf(svg))
    return path


def _legend(entries: Sequence[tuple[str, int, int]], width: int) -> tuple[list[str], int]:
    """The parts of the legend and the height that it takes, in as many rows as it needs."""
    parts, left, top = [], GAP, GAP
    for name, colour, dash in entries:
        needed = 52 + 7 * len(name)
        if left > GAP and left + needed > width:
            left, top = GAP, top + 20
        pattern = DASHES[dash % len(DASHES)]
        dashes = f' stroke-dasharray="{pattern}"' if pattern else ""
        parts.append(f'<g class="s{colour}"><path class="line" d="M{left + 4} {top}h28"{dashes}/></g>')
        parts.append(f'<text x="{left + 38}" y="{top + 4}">{escape(name)}</text>')
        left += needed
    return parts, top + 14 if entries else GAP


def _size(svg: str) -> str:
    return f'width="{WIDTH}" height="{_height(svg)}"'


def _height(svg: str) -> int:
    box = re.match(rf'<svg viewBox="0 0 {WIDTH} (\d+)"', svg)
    assert box is not None, "charts are made by `area.wrap`"
    return int(box.group(1))


@lru_cache(maxsize=1)
def _light() -> str:
    """The style sheet of charts with its variables resolved: resvg knows `currentColor` and no variables."""
    css = (files("divwatch.outputs.charts") / "charts.css").read_text(encoding="utf-8")
    root, rules = css.split("}\n", 1)
    light = dict(re.findall(r"--([\w-]+): light-dark\((#\w+),", root))
    return re.sub(r"var\(--([\w-]+)\)", lambda name: light[name.group(1)], rules)
