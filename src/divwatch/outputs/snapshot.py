"""A watched run as its directory shows it now, and how it reads: a row of a table, or a line of a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from divwatch.outputs.numbers import change, interval, number, plain, verdict_text

BARS = "▁▂▃▄▅▆▇█"
FALLING = 5  # flagged series that are listed
LEVELS = {"diversity": "diversity", "correct_diversity": "correct", "accuracy": "accuracy"}  # name in lines


@dataclass(frozen=True)
class Snapshot:
    """The state of a run, its last look and what the looks show.

    step: of the last look. state: waiting (no look yet), scoring (looks sampled but not yet scored: `unscored`), training,
    ended, or killed (its process ended before the run did, which only its own machine knows). age: seconds since the last
    look. levels: diversity, correct_diversity and accuracy, each {mean, lo, hi}, and for the first two {change, change_lo,
    change_hi} since the first comparable look. confirmed: whether the loss that the verdict rests on is. falling: flagged
    series, the largest loss first. seconds: median time that training waited for a look. history: diversity by look.
    """

    path: str
    lineage: str
    stage: str
    state: str
    step: int | None
    max_steps: int
    looks: int
    failed: int
    unscored: list[int]
    age: float | None
    levels: dict[str, dict[str, float]] = field(default_factory=dict)
    verdict: dict[str, str] = field(default_factory=dict)
    confirmed: bool = False
    falling: list[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None
    history: list[float] = field(default_factory=list)
    reason: str | None = None

    @property
    def over(self) -> bool:
        """Whether no further look will come."""
        return self.state in ("ended", "killed")


def table(snapshots: Sequence[Snapshot]) -> Any:
    """One row per run: its step, levels, changes and verdict. Below the table, a line for each series that falls."""
    from rich.box import SIMPLE
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE, pad_edge=False)
    shown.add_column("run", overflow="fold")
    for name in ("step", "diversity", "among correct", "accuracy"):
        shown.add_column(name, justify="right")
    shown.add_column("verdict")
    shown.add_column("a look", justify="right")
    names = names_of(snapshots)
    for one, name in zip(snapshots, names, strict=True):
        levels = [_level(one.levels.get(key), key, "\n") for key in LEVELS]
        kind = _verdict(one)
        shown.add_row(
            Text(name, style="bold") + Text("\n" + _state_text(one), style="dim"),
            f"{'–' if one.step is None else one.step}/{one.max_steps}",
            Text(levels[0]) + Text("\n" + sparkline(one.history, 12), style="cyan"),
            *levels[1:],
            Text(kind, style="" if kind in ("", "no alarm") else "bold red"),
            "" if one.seconds is None else f"{one.seconds:.1f} s",
        )
    falling = [(name, row) for one, name in zip(snapshots, names, strict=True) for row in one.falling[:FALLING]]
    lines = [Text(f"{name}: {falling_text(row)}", style="red") for name, row in falling]
    return Group(shown, *lines)


def names_of(snapshots: Sequence[Snapshot]) -> list[str]:
    """Lineage and stage, with the directory if two runs share both."""
    names = [f"{one.lineage} {one.stage}" for one in snapshots]
    return [
        f"{name} ({Path(one.path).name})" if names.count(name) > 1 else name
        for one, name in zip(snapshots, names, strict=True)
    ]


def plain_line(one: Snapshot, name: str) -> str:
    """A run in one line, for logs."""
    parts = [f"{name} step {'–' if one.step is None else one.step}/{one.max_steps}", one.state]
    parts += [f"{text} {_level(one.levels[level], level)}" for level, text in LEVELS.items() if level in one.levels]
    parts += [_verdict(one)] if one.verdict else []
    parts += [falling_text(row) for row in one.falling[:FALLING]]
    return " | ".join(parts)


def _verdict(one: Snapshot) -> str:
    return verdict_text(one.verdict["kind"], one.confirmed) if one.verdict else ""


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The last `width` values as bars from 0 up.

    >>> sparkline([0.4, 0.4, 0.2, 0.1])
    '██▄▂'
    """
    shown = list(values)[-width:]
    top = max(shown, default=0.0) or 1.0
    return "".join(BARS[min(7, max(0, round(8 * value / top) - 1))] for value in shown)


def falling_text(row: dict[str, Any]) -> str:
    """Which diversity falls, by how much and since which step; of a fall that was regained, where it is now."""
    what = "correct answers of " if row["key"].startswith("correct") else ""
    change = f" {_change(row)}" if "change" in row else ""
    since = "" if row["onset_step"] is None else f" since step {row['onset_step']}"
    where = "the whole panel" if row["task"] == "all" else row["task"]
    if row.get("change", -1.0) >= 0:
        return f"{what}{where}: fell{since}, back at{change}"
    return f"{what}{where}{change}{since}"


def _level(level: dict[str, float] | None, name: str, between: str = " ") -> str:
    if level is None:
        return ""
    digits = 2 if name == "accuracy" else 3
    interval_text = plain(interval(level["lo"], level["hi"], "number", digits))
    return f"{plain(number(level['mean'], digits))}{between}{_change(level) if 'change' in level else interval_text}"


def _change(row: dict[str, Any]) -> str:
    return plain(change(row["change"], row["change_lo"], row["change_hi"]))


def _state_text(one: Snapshot) -> str:
    parts = [one.state if one.state != "scoring" else f"scoring {', '.join(map(str, one.unscored[:3]))}"]
    parts += [] if one.age is None or one.over else [f"look {_ago(one.age)} ago"]
    return ", ".join(parts + ([f"{one.failed} failed"] if one.failed else []))


def _ago(seconds: float) -> str:
    """
    >>> _ago(42), _ago(600), _ago(90_000)
    ('42 s', '10 min', '25 h')
    """
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )
