"""A real run of the embedded world under `watch_every: auto`: which share of it looks block, and when they come.

    python benchmarks/budget.py --minutes 20          one thread, and the scoring process beside it

Some steps without the monitor tell how many fit into the time. Blocked time is taken twice: from the clock of the schedule,
and from the seconds that each look wrote down.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from measuring import Result, options, publish, seconds, table
from overhead import launch

PROBE = 100  # steps without the monitor
LIMIT = 0.03
LOOKS = ["--watch_every", "auto", "--watch_max_overhead", str(LIMIT), "--watch_looks", "200",
         "--watch_prompts", "32", "--watch_samples", "8"]  # fmt: skip


def steps_in(minutes: float, folder: Path) -> int:
    """How many steps of the embedded Instruct SFT train for so many minutes."""
    few = seconds(lambda: launch(folder / "few", ["--save_strategy", "no"], 10))
    many = seconds(lambda: launch(folder / "many", ["--save_strategy", "no"], 10 + PROBE))
    return round(60 * minutes / ((many - few) / PROBE))


def watched(steps: int, folder: Path, result: Result) -> None:
    from divwatch.store.run_directory import RunDirectory

    launch(folder, LOOKS, steps)
    run = RunDirectory.of(folder)
    looks, schedule = run.looks(), run.schedule() or {}
    taken = [look["step"] for look in looks]
    _, training, blocked, _ = schedule["marks"][-1]
    recorded = sum(look["seconds"]["total"] for look in looks)
    share = blocked / (training + blocked)
    whole = json.loads((folder / "seconds.json").read_text())
    early = [str(sum(0 < step <= part * steps for step in taken)) for part in (0.05, 0.1, 0.5)]
    rows = [
        ["steps", f"{steps:,}"],
        ["minutes of `train()`", f"{whole / 60:.1f}"],
        ["looks, first and last included", len(looks)],
        ["blocked by the clock of the schedule", f"{blocked:.1f} s, {share:.2%} of the run"],
        ["the same by the looks' own seconds", f"{recorded:.1f} s, {recorded / whole:.2%}"],
        [f"share of the budget of {LIMIT:.0%} used", f"{share / LIMIT:.0%}"],
        ["looks in the first 5 %, tenth, half", " / ".join(early)],
        ["steps of the looks", ", ".join(map(str, taken))],
    ]  # fmt: skip
    result.add(*table(["of the run", ""], rows))
    result.bound(f"looks block at most {LIMIT:.0%}", share <= LIMIT)
    result.bound("at least 80 % of the budget is used", share >= 0.8 * LIMIT)
    result.bound("two looks in the first 5 %", sum(0 < step <= 0.05 * steps for step in taken) >= 2)


def main() -> int:
    chosen = options(__doc__, lambda p: p.add_argument("--minutes", type=float, default=20.0, help="of training"))
    result = Result()
    with tempfile.TemporaryDirectory() as name:
        watched(steps_in(chosen.minutes, Path(name)), Path(name) / "watched", result)
    return publish(result, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
