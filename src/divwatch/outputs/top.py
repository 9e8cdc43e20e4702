"""`divwatch top`: watched runs followed from their directories, by anyone who can read them, while they train.

Nothing is asked of the training: what is shown is what its run directory holds. The verdict and the changes are computed
from the stored scores by the code that computed them live (`store.scored.assess_looks`), and only when a look was added.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from divwatch.config import WatchConfig, count_looks
from divwatch.errors import DivwatchError
from divwatch.files import without_nan
from divwatch.store.run_directory import RunDirectory, find_runs

NAN = float("nan")

BARS = "▁▂▃▄▅▆▇█"
FALLING = 5  # flagged series that are named


@dataclass(frozen=True)
class Snapshot:
    """A run as its directory shows it now.

    step: of the last look. state: waiting (no look yet), scoring (looks sampled and not scored: `unscored`), training,
    or ended. age: seconds since the last look. levels: by diversity, correct_diversity and accuracy: {mean, lo, hi}, and
    for the first two {change, change_lo, change_hi} against the first comparable look. falling: flagged series, the
    largest loss first. seconds: median time that a look held training up. history: diversity look by look.
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
    falling: list[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None
    history: list[float] = field(default_factory=list)
    reason: str | None = None


class Follower:
    """Snapshots of the runs under `paths`; a run that has not changed is not read again, new runs are found."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._known: dict[Path, tuple[Any, dict[str, Any]]] = {}

    def snapshots(self) -> list[Snapshot]:
        """The runs in the order in which they were begun. Raises DivwatchError where there is none."""
        runs = [RunDirectory(path) for path in find_runs(self._paths)]
        infos = [(run, run.info()) for run in runs]
        infos.sort(key=lambda pair: str(pair[1].get("created", "")))
        return [self._snapshot(run, info) for run, info in infos]

    def _snapshot(self, run: RunDirectory, info: dict[str, Any]) -> Snapshot:
        looks, unscored = run.looks(), run.unscored()
        mark = [(look["step"], look["status"]) for look in looks]
        if self._known.get(run.path, (None,))[0] != mark:
            self._known[run.path] = (mark, _said(run, info, looks))
        last = looks[-1] if looks else None
        return Snapshot(
            path=str(run.path.parent),
            lineage=info["lineage"],
            stage=info["stage"],
            state=_state(info, looks, unscored),
            step=last["step"] if last else None,
            max_steps=info["max_steps"],
            looks=len(looks),
            failed=sum(look["status"] == "failed" for look in looks),
            unscored=unscored,
            age=round(time.time() - last["time"], 1) if last else None,
            reason=last.get("reason") if last else None,
            **self._known[run.path][1],
        )


def _state(info: dict[str, Any], looks: list[dict[str, Any]], unscored: list[int]) -> str:
    if info.get("ended") or (looks and not unscored and looks[-1]["step"] >= info["max_steps"]):
        return "ended"
    if unscored:
        return "scoring"
    return "training" if looks else "waiting"


def _said(run: RunDirectory, info: dict[str, Any], looks: list[dict[str, Any]]) -> dict[str, Any]:
    """What the looks of a run say; nothing where none was scored."""
    from statistics import median

    from divwatch.store.scored import assess_looks, read_scored_looks

    scored = [look for look in looks if look["status"] in ("ok", "not_comparable")]
    blocked = [look["seconds"]["total"] for look in scored if "total" in look["seconds"]]
    found: dict[str, Any] = {"seconds": round(median(blocked), 2) if blocked else None}
    if not scored:
        return found
    config = WatchConfig(**info["settings"])
    most = max(count_looks(config.every, info["max_steps"]), len(scored))
    assessment = assess_looks(read_scored_looks(run), config, most)
    levels, primary = {}, assessment.primary
    for name, key in (
        ("diversity", f"diversity/{primary}"),
        ("correct_diversity", f"correct_diversity/{primary}"),
        ("accuracy", "quality/accuracy"),
    ):
        if key in scored[-1]["tasks"]["all"]:
            now = scored[-1]["tasks"]["all"][key]
            levels[name] = {part: NAN if now[part] is None else now[part] for part in ("mean", "lo", "hi")}
            levels[name] |= _change(assessment.statuses.get(("all", key)), scored[-1]["step"], assessment.baseline_step)
    means = [look["tasks"]["all"].get(f"diversity/{primary}", {}).get("mean") for look in scored]
    return found | {
        "levels": levels,
        "verdict": {"kind": assessment.verdict.kind, "sentence": assessment.verdict.sentence},
        "falling": _falling(assessment.alarms),
        "history": [mean for mean in means if mean is not None and mean == mean],
    }


def _change(status: Any, step: int, baseline: int | None) -> dict[str, float]:
    if status is None or step == baseline or status.change != status.change:
        return {}
    lo, hi = status.change_interval
    return {"change": status.change, "change_lo": lo, "change_hi": hi}


def _falling(alarms: Sequence[Any]) -> list[dict[str, Any]]:
    rows = []
    for task, key, status in alarms:
        row = {"task": task, "key": key, **_change(status, 1, None), "confirmed": status.confirmed}
        rows.append(row | {"onset_step": status.onset_step, "onset_interval": list(status.onset_interval or ())})
    return sorted(rows, key=lambda row: (row["task"] != "all", row.get("change", 0.0)))


# on a screen


def follow(paths: Sequence[Path], every: float, once: bool = False, as_json: bool = False) -> None:
    """Shows the runs until all have ended: a table that renews itself on a terminal, lines where there is none.

    once: what is there now, and no more. as_json: a JSON array a time it changed, one line each.
    """
    from rich.console import Console

    if not every > 0:
        raise DivwatchError(f"--every is {every:g}: give seconds above 0 (2 is the default)")
    follower, console = Follower(paths), Console()
    if as_json:
        import json

        for shown in _changes(follower, every, once):
            print(json.dumps(without_nan([asdict(one) for one in shown])), flush=True)
    elif once:
        console.print(table(follower.snapshots()))
    elif console.is_terminal:
        _live(follower, every, console)
    else:
        said: set[str] = set()
        for shown in _changes(follower, every, once):
            for line in map(plain_line, shown, names_of(shown)):
                if line not in said:
                    said.add(line)
                    print(line, flush=True)


def _changes(follower: Follower, every: float, once: bool) -> Iterator[list[Snapshot]]:
    """The snapshots, each time that something but their age has changed, until all runs have ended."""
    before = None
    while True:
        shown = follower.snapshots()
        now = [asdict(one) | {"age": None} for one in shown]
        if now != before:
            before = now
            yield shown
        if once or all(one.state == "ended" for one in shown):
            return
        time.sleep(every)


def _live(follower: Follower, every: float, console: Any) -> None:
    from rich.live import Live

    with Live(table(follower.snapshots()), console=console, auto_refresh=False) as live:
        while True:
            shown = follower.snapshots()
            live.update(table(shown), refresh=True)
            if all(one.state == "ended" for one in shown):
                return
            time.sleep(every)


def table(snapshots: Sequence[Snapshot]) -> Any:
    """A row a run: where it is, its levels and changes, its verdict; below, what falls in which run, task by task."""
    from rich.box import SIMPLE
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE, pad_edge=False)
    made.add_column("run", overflow="fold")
    for name in ("step", "diversity", "among correct", "accuracy"):
        made.add_column(name, justify="right")
    made.add_column("verdict")
    made.add_column("a look", justify="right")
    names = names_of(snapshots)
    for one, name in zip(snapshots, names, strict=True):
        levels = [_level(one.levels.get(key), "\n") for key in ("diversity", "correct_diversity", "accuracy")]
        kind = one.verdict.get("kind", "")
        made.add_row(
            Text(name, style="bold") + Text("\n" + _state_text(one), style="dim"),
            f"{'–' if one.step is None else one.step}/{one.max_steps}",
            Text(levels[0]) + Text("\n" + sparkline(one.history, 12), style="cyan"),
            *levels[1:],
            Text(kind, style="" if kind in ("", "none") else "bold red"),
            "" if one.seconds is None else f"{one.seconds:.1f} s",
        )
    told = [(name, row) for one, name in zip(snapshots, names, strict=True) for row in one.falling[:FALLING]]
    lines = [Text(f"{name}: {falling_text(row)}", style="red") for name, row in told]
    return Group(made, *lines)


def names_of(snapshots: Sequence[Snapshot]) -> list[str]:
    """Lineage and stage; the directory too where that does not tell two runs apart."""
    names = [f"{one.lineage} {one.stage}" for one in snapshots]
    return [
        f"{name} ({Path(one.path).name})" if names.count(name) > 1 else name
        for one, name in zip(snapshots, names, strict=True)
    ]


def plain_line(one: Snapshot, name: str) -> str:
    """A run in one line, for logs."""
    levels = {"diversity": "diversity", "correct_diversity": "correct", "accuracy": "accuracy"}
    parts = [f"{name} step {'–' if one.step is None else one.step}/{one.max_steps}", one.state]
    parts += [f"{text} {_level(one.levels[level])}" for level, text in levels.items() if level in one.levels]
    parts += [one.verdict["kind"]] if one.verdict else []
    parts += [falling_text(row) for row in one.falling[:FALLING]]
    return " | ".join(parts)


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The course of a number from 0 up, the last `width` values.

    >>> sparkline([0.4, 0.4, 0.2, 0.1])
    '██▄▂'
    """
    shown = list(values)[-width:]
    top = max(shown, default=0.0) or 1.0
    return "".join(BARS[min(7, max(0, round(8 * value / top) - 1))] for value in shown)


def falling_text(row: dict[str, Any]) -> str:
    """What fell, by how much, since when."""
    what = "correct answers of " if row["key"].startswith("correct") else ""
    change = ""
    if "change" in row:
        change = f" {100 * row['change']:+.0f} % [{100 * row['change_lo']:+.0f}, {100 * row['change_hi']:+.0f}]"
    since = "" if row["onset_step"] is None else f" since step {row['onset_step']}"
    where = "the whole panel" if row["task"] == "all" else row["task"]
    return f"{what}{where}{change}{since}"


def _level(level: dict[str, float] | None, between: str = " ") -> str:
    if level is None:
        return ""
    if "change" in level:
        lo, hi = 100 * level["change_lo"], 100 * level["change_hi"]
        return f"{level['mean']:.3f}{between}{100 * level['change']:+.0f} % [{lo:+.0f}, {hi:+.0f}]"
    return f"{level['mean']:.3f}{between}[{level['lo']:.2f}, {level['hi']:.2f}]"


def _state_text(one: Snapshot) -> str:
    parts = [one.state if one.state != "scoring" else f"scoring {', '.join(map(str, one.unscored[:3]))}"]
    parts += [] if one.age is None or one.state == "ended" else [f"look {_ago(one.age)} ago"]
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
