"""What every chart is drawn with: its plot area and scales, round ticks, and text that cannot do anything.

Charts are SVG with CSS classes (`charts.css`). Every chart has one natural width (380 px), and the page lays them side by
side or below each other, so that text keeps its size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import markupsafe
from markupsafe import Markup

from divwatch.outputs.numbers import percent
from divwatch.outputs.text import inert

WIDTH = 380
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 26, 34
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4")


def escape(text: str) -> Markup:
    """Text for an element or an attribute, its control characters made visible."""
    return markupsafe.escape(inert(text))


@dataclass(frozen=True)
class Point:
    """One look: place on the pipeline axis, mean and interval. `solid` is False if the look is not comparable."""

    x: float
    y: float
    lo: float = math.nan
    hi: float = math.nan
    solid: bool = True


@dataclass(frozen=True)
class Series:
    """Segments (one per stage) of one lineage. `colour` and `dash` are indices, so that colour is never the only cue."""

    name: str
    segments: Sequence[Sequence[Point]]
    colour: int = 0
    dash: int = 0
    thin: bool = False


@dataclass(frozen=True)
class Area:
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

    def grid_y(self, unit: str = "") -> str:
        """Lines and ticks. unit: what follows ticks that count hundredths; none: ticks are the values."""
        out = []
        for tick in ticks(*self.y_range, 4):
            y = self.y(tick)
            out.append(f'<line class="grid" x1="{self.left}" x2="{self.left + self.width}" y1="{y:.1f}" y2="{y:.1f}"/>')
            text = f"{tick_text(round(100 * tick, 10))}{unit}" if unit else tick_text(tick)
            out.append(f'<text class="a" x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        return "".join(out)

    def grid_x(self, text: Callable[[float], str] | None = None) -> str:
        """Lines and ticks. text: how a tick is written (default: `tick_text`)."""
        out, bottom = [], self.top + self.height
        for tick in ticks(*self.x_range, 4):
            x = self.x(tick)
            out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{bottom}"/>')
            label = (text or tick_text)(tick)
            out.append(f'<text class="a" x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{label}</text>')
        return "".join(out)


def fit(text: str, width: float, per_character: float) -> Markup:
    """The text, cut off with … if it is wider than `width` pixels at about `per_character` each."""
    room = max(3, int(width / per_character))
    return escape(text if len(text) <= room else text[: room - 1] + "…")


def series_name(s: Series) -> Markup:
    return Markup(' data-series="{}"').format(inert(s.name))


def dash_of(s: Series) -> str:
    pattern = DASHES[s.dash % len(DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def limits_of(values: Sequence[float], zero: bool) -> tuple[float, float]:
    """The range of an axis: all values with some room. zero: values that are all positive start at 0."""
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


def tick_text(value: float) -> str:
    """A tick with the digits that it needs.

    >>> tick_text(0.575), tick_text(-0.1), tick_text(20.0)
    ('0.575', '−0.1', '20')
    """
    return f"{value:.12g}".replace("-", "−")


def percent_text(value: float) -> str:
    """A share as a tick.

    >>> percent_text(0.575)
    '57.5 %'
    """
    return f"{tick_text(round(100 * value, 10))} %"


def signed_percent(value: float) -> str:
    return "0" if value == 0 else percent(value)


def wrap(width: int, height: float, label: str, parts: Sequence[str]) -> Markup:
    body = "".join(str(p) for p in parts)
    return Markup(f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(label)}">{body}</svg>')
