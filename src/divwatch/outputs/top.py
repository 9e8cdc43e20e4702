"""`divwatch top`: follows watched runs while they train, for anyone who can read their directories.

The training process is not involved: everything comes from the run directory. The verdict and the changes are computed
from the stored scores by the code that computed them live (`store.scored.assess_looks`), and only when a look was added.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.files import without_nan
from divwatch.outputs.snapshot import Snapshot, names_of, plain_line, table
from divwatch.schedule import count_looks
from divwatch.store.run_directory import RunDirectory
from divwatch.store.search import find_runs

NAN = float("nan")


class Follower:
    """Takes snapshots of the runs under `paths`. Reads a run again only if it has changed, and finds new runs."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._known: dict[Path, tuple[Any, dict[str, Any]]] = {}

    def snapshots(self) -> list[Snapshot]:
        """The runs in the order in which they started. Raises DivwatchError if there is none."""
        runs = [RunDirectory(path) for path in find_runs(self._paths)]
        infos = [(run, run.info()) for run in runs]
        infos.sort(key=lambda pair: str(pair[1].get("created", "")))
        return [self._snapshot(run, info) for run, info in infos]

    def _snapshot(self, run: RunDirectory, info: dict[str, Any]) -> Snapshot:
        looks, unscored = run.looks(), run.unscored()
        mark = [(look["step"], look["status"]) for look in looks]
        if self._known.get(run.path, (None,))[0] != mark:
            self._known[run.path] = (mark, _summary(run, info, looks))
        last = looks[-1] if looks else None
        return Snapshot(
            path=str(run.path.parent),
            lineage=info["lineage"],
            stage=info["stage"],
            state=_state(run, info, looks, unscored),
            step=last["step"] if last else None,
            max_steps=info["max_steps"],
            looks=len(looks),
            failed=sum(look["status"] == "failed" for look in looks),
            unscored=unscored,
            age=round(time.time() - last["time"], 1) if last else None,
            reason=last.get("reason") if last else None,
            **self._known[run.path][1],
        )


def _state(run: RunDirectory, info: dict[str, Any], looks: list[dict[str, Any]], unscored: list[int]) -> str:
    if info.get("ended") or (looks and not unscored and looks[-1]["step"] >= info["max_steps"]):
        return "ended"
    if run.is_abandoned():
        return "killed"
    if unscored:
        return "scoring"
    return "training" if looks else "waiting"


def _summary(run: RunDirectory, info: dict[str, Any], looks: list[dict[str, Any]]) -> dict[str, Any]:
    """What the looks of a run show; empty if none was scored."""
    from statistics import median

    from divwatch.store.scored import assess_looks, most_looks, read_scored_looks

    scored = [look for look in looks if look["status"] in ("ok", "not_comparable")]
    blocked = [look["seconds"]["total"] for look in scored if "total" in look["seconds"]]
    summary: dict[str, Any] = {"seconds": round(median(blocked), 2) if blocked else None}
    if not scored:
        return summary
    config = WatchConfig.of_record(info["settings"])
    most = max(most_looks(run, count_looks(config.every, info["max_steps"], config.looks)), len(scored))
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
            if scored[-1]["step"] == assessment.last_step != assessment.baseline_step:
                levels[name] |= _change(assessment.statuses.get(("all", key)))
    means = [look["tasks"]["all"].get(f"diversity/{primary}", {}).get("mean") for look in scored]
    return summary | {
        "levels": levels,
        "verdict": {"kind": assessment.verdict.kind, "sentence": assessment.verdict.sentence},
        "confirmed": assessment.verdict.confirmed,
        "falling": _falling(assessment.alarms, one_task=len(scored[-1]["tasks"]) == 2),  # with "all"
        "history": [mean for mean in means if mean is not None and mean == mean],
    }


def _change(status: Any) -> dict[str, float]:
    if status is None or status.change != status.change:
        return {}
    lo, hi = status.change_interval
    return {"change": status.change, "change_lo": lo, "change_hi": hi}


def _falling(alarms: Sequence[Any], one_task: bool) -> list[dict[str, Any]]:
    """A row for each alarm. one_task: the panel has one task, so that its alarm and the panel's are the same."""
    rows = []
    for task, key, status in alarms:
        if one_task and task != "all":
            continue
        row = {"task": task, "key": key, **_change(status), "confirmed": status.confirmed}
        rows.append(row | {"onset_step": status.onset_step, "onset_interval": list(status.onset_interval or ())})
    return sorted(rows, key=lambda row: (row["task"] != "all", row.get("change", 0.0)))


def follow(paths: Sequence[Path], every: float, once: bool = False, as_json: bool = False) -> None:
    """Shows the runs until all have ended, or were killed: a live table on a terminal, lines elsewhere.

    every: seconds between readings. once: shows the runs as they are now and returns. as_json: prints a JSON array, one
    line, each time that something has changed.
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
        printed: set[str] = set()
        for shown in _changes(follower, every, once):
            for line in map(plain_line, shown, names_of(shown)):
                if line not in printed:
                    printed.add(line)
                    print(line, flush=True)


def _changes(follower: Follower, every: float, once: bool) -> Iterator[list[Snapshot]]:
    """Yields the snapshots each time that anything but their age has changed, until all runs are over."""
    before = None
    while True:
        shown = follower.snapshots()
        now = [asdict(one) | {"age": None} for one in shown]
        if now != before:
            before = now
            yield shown
        if once or all(one.over for one in shown):
            return
        time.sleep(every)


def _live(follower: Follower, every: float, console: Any) -> None:
    from rich.live import Live

    with Live(table(follower.snapshots()), console=console, auto_refresh=False) as live:
        while True:
            shown = follower.snapshots()
            live.update(table(shown), refresh=True)
            if all(one.over for one in shown):
                return
            time.sleep(every)
