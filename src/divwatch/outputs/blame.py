"""Blame of a running training in words and scalars: from a line of blame.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ["step", "source", "task", "effect", "low", "high", "instead", "instead_low", "instead_high", "blamed"]
SHOWN = 3  # sources in the terminal


def blame_scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """`blame/<source>/<task>`: predicted change of diversity over the run so far, in units of diversity.

    >>> blame_scalars({"sources": {"quiz": {"all": {"effect": -0.02}}}})
    {'blame/quiz/all': -0.02}
    """
    return {
        f"blame/{source}/{task}": float(values["effect"])
        for source, tasks in line["sources"].items()
        for task, values in tasks.items()
    }


def blame_rows(line: Mapping[str, Any]) -> list[list[Any]]:
    """Rows of `COLUMNS`, the narrowest source first."""
    return [
        [
            line["step"], source, task, v["effect"], *v["ci95"], v["instead"], *v["instead_ci95"],
            task == "all" and source in line["blamed"],
        ]
        for source in by_effect(line)
        for task, v in line["sources"][source].items()
    ]  # fmt: skip


def by_effect(line: Mapping[str, Any]) -> list[str]:
    """The sources, that with the most negative effect first."""
    return sorted(line["sources"], key=lambda source: line["sources"][source]["all"]["effect"])


def points(value: float | None) -> str:
    """A change of diversity in points, hundredths of its unit.

    >>> points(-0.0123), points(0.0), points(None)
    ('-1.2', '0.0', '-')
    """
    if value is None:
        return "-"
    text = f"{100 * value:+.1f}"
    return text[1:] if text in ("+0.0", "-0.0") else text


def with_interval(value: float, ci95: Sequence[float | None]) -> str:
    """A change and its interval, in points.

    >>> with_interval(-0.012, [-0.02, 0.0])
    '-1.2 [-2.0, 0.0]'
    """
    return f"{points(value)} [{points(ci95[0])}, {points(ci95[1])}]"


def blame_line(line: Mapping[str, Any]) -> str:
    """The sources that narrow most, in one line."""
    parts = []
    for source in by_effect(line)[:SHOWN]:
        values = line["sources"][source]["all"]
        mark = ", narrows" if source in line["blamed"] else ""
        parts.append(f"{source} {with_interval(values['effect'], values['ci95'])}{mark}")
    return (
        f"divwatch blame, steps 1 to {line['step']}, points of diversity: {' | '.join(parts)} | {line['seconds']:.1f} s"
    )
