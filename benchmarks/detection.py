"""False alarms, delay, onset and change of the detectors on runs whose completions are really drawn.

    python benchmarks/detection.py --runs 1000 --write docs/detection.md

Each run goes through `analysis.assess`: the series of all and of correct answers, over the panel and task by task.
Needs the extra `bench` (river, ruptures). Seeds start at --seed: choose rules on some seeds, report them on others.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from drawn_runs import World, draw
from measuring import Result, options, place, publish
from rich.progress import track
from scipy.stats import ttest_1samp

from divwatch.analysis.assess import Assessor
from divwatch.analysis.detector import CollapseDetector
from divwatch.analysis.history import History
from divwatch.analysis.simulate import simulate

ALPHA, MIN_DROP, LOOKS = 0.05, 0.05, 21
OTHER_RUNS = 300  # PELT takes longer than all the rest
KIND_RUNS = 200  # runs whose verdict is read at every second look


def fall(drop: float, first: int = 1, width: int = 1) -> tuple[float, ...]:
    """[LOOKS] a loss of `drop` from look `first` on, reached over `width` looks."""
    return tuple(-drop * np.clip((np.arange(LOOKS) - first + 1) / width, 0, 1))


def dip(lasting: int, drop: float = 0.15, first: int = 8) -> tuple[float, ...]:
    return tuple(np.where((np.arange(LOOKS) >= first) & (np.arange(LOOKS) < first + lasting), -drop, 0.0))


SMALL, FULL = {"tasks": 15, "prompts": 64}, {"tasks": 15, "prompts": 480}
QUIET = {
    "one task of 64 prompts, wobble 1 %, rho 0.5": World(),
    "64 prompts over 15 tasks, wobble 2 %, rho 0.7": World(**SMALL, wobble=0.02, rho=0.7),
    "the same, K = 4, wobble 1 %, rho 0.5": World(**SMALL, samples=4),
    "the same, coupled, wobble 1 %": World(**SMALL, coupled=True),
    "480 x 15, wobble 0.4 %, rho 0.5": World(**FULL, wobble=0.004),
    "480 x 15, K = 4, wobble 1 %, rho 0.9": World(**FULL, samples=4, rho=0.9),
    "480 x 15, wobble 2 %, rho 0": World(**FULL, wobble=0.02, rho=0.0),
    "480 x 15, wobble 2 %, rho 0.9": World(**FULL, wobble=0.02, rho=0.9),
    "480 x 15, wobble 2 % by task, rho 0.9": World(**FULL, wobble=0.02, rho=0.9, by_task=True),
    "480 x 15, wobble 3 %, rho 0": World(**FULL, wobble=0.03, rho=0.0),
    "one task of 64, Gini": World(measure="gini"),
    "one task of 64, distinct answers, wobble of 1 % in them": World(measure="distinct", wobble=0.01 / 3.8),
    "one task of 64, accuracy drifts by 0.4": World(accuracy_shift=2.2),
    "one task of 64, accuracy wobbles by 0.15 in logit, rho 0.7": World(accuracy_wobble=0.15),
    "480 x 15, wobble cools from 5 to 0.5 %": World(**FULL, wobble=(0.05, 0.005)),
}
BEYOND = {
    "480 x 15, wobble 3 %, rho 0.5": World(**FULL, wobble=0.03),
    "480 x 15, wobble 3 %, rho 0.9": World(**FULL, wobble=0.03, rho=0.9),
    "480 x 15, wobble 5 %, rho 0.7": World(**FULL, wobble=0.05, rho=0.7),
    "one task of 64, distinct answers, wobble of 3.8 % in them": World(measure="distinct"),
    "480 x 15, slow wave of 4 %": World(**FULL, wobble=0.005, wave=0.04),
}
DIPS = {f"dip of {n}, 15 %": World(fall=dip(n)) for n in (1, 2, 3)}
FALLS = {
    "10 % before the second look": World(fall=fall(0.10)),
    "10 % before the second look, coupled": World(fall=fall(0.10), coupled=True),
    "15 % before the second look": World(fall=fall(0.15)),
    "20 % over 4 looks from the start": World(fall=fall(0.20, width=4)),
    "15 % mid-run": World(fall=fall(0.15, first=8)),
    "20 % over 4 mid-run": World(fall=fall(0.20, first=8, width=4)),
    "slide to 20 % over 16": World(fall=fall(0.20, first=2, width=16)),
    "one task of 15 by 30 %, 480 prompts": World(**FULL, fall=fall(0.30, first=8), fallen_tasks=1),
    "correct answers alone by 15 %": World(fall=fall(0.15), only_correct=True),
}
CASES = QUIET | BEYOND | DIPS | FALLS
BESIDE = (*list(QUIET)[:2], "480 x 15, wobble 5 %, rho 0.7", *DIPS, *list(FALLS)[:7])


VERDICTS = [QUIET[name] for name in QUIET if name.startswith(("one task of 64 prompts", "one task of 64, accuracy"))]


@dataclass
class Tally:
    """What a detector did on the runs of one case. Delays and widths of onsets are in looks."""

    runs: int = 0
    alarms: int = 0
    delays: list[float] = field(default_factory=list)
    onset_covered: list[bool] = field(default_factory=list)
    onset_widths: list[float] = field(default_factory=list)
    change_covered: list[bool] = field(default_factory=list)
    change_widths: list[float] = field(default_factory=list)
    biases: list[tuple[float, float]] = field(default_factory=list)
    kinds: list[bool] = field(default_factory=list)

    def count(self, world: World, alarm: int | None) -> None:
        self.runs += 1
        if alarm is not None:
            self.alarms += 1
            if world.fall is not None:
                self.delays.append(alarm - np.flatnonzero(np.array(world.fall) < -MIN_DROP - 1e-12)[0])

    @property
    def share(self) -> float:
        return self.alarms / self.runs

    @property
    def monte_carlo(self) -> float:
        """Standard error of the share, at least 1 / runs (if no run or every run alarmed)."""
        return max(float(np.sqrt(self.share * (1 - self.share) / self.runs)), 1 / self.runs)


def watch(world: World, seeds: Sequence[int]) -> Tally:
    """Runs the assessment to the end of each run; for the first seeds look by look, to read every verdict."""
    tally = Tally()
    for seed in seeds:
        history, truth = draw(world, seed)
        assessor = Assessor(LOOKS, ALPHA, MIN_DROP)
        if world in VERDICTS and seed % 1000 < KIND_RUNS:
            kinds = [assessor.assess(first_looks(history, look)).verdict.kind for look in range(3, LOOKS + 1, 2)]
            tally.kinds.append(any(kind not in ("none", *ALARMED) for kind in kinds))
        assessment = assessor.assess(history)
        alarms = [(history.steps.index(status.alarm_step), key) for _, key, status in assessment.alarms]
        tally.count(world, min(alarms)[0] if alarms else None)
        key = "correct_diversity/sbert" if world.only_correct else "diversity/sbert"
        task = "t00" if world.fallen_tasks else "all"
        _measure(tally, world, truth, assessment.statuses[task, key], history.series(key, task))
    return tally


def first_looks(history: History, looks: int) -> History:
    values = {key: table[:looks] for key, table in history.values.items()}
    return replace(history, steps=history.steps[:looks], values=values, comparable=history.comparable[:looks])


ALARMED = ("aggregate collapse", "narrowing among correct answers", "quality control only")


def _measure(tally: Tally, world: World, truth: np.ndarray, status: Any, series: np.ndarray) -> None:
    """Intervals of the change and of the onset at the end, and the error of change and estimate at the alarm."""
    change = truth[:, 0] if world.fallen_tasks else truth.mean(axis=1)
    lo, hi = status.change_interval
    tally.change_covered.append(bool(lo <= change[-1] <= hi))
    tally.change_widths.append(hi - lo)
    if not status.collapsed or world.fall is None or change[-1] == 0:
        return
    onset = 50 * int(np.flatnonzero(change < 0)[0] - 1)
    first, last = status.onset_interval
    tally.onset_covered.append(first <= onset <= last)
    tally.onset_widths.append((last - first) / 50)
    at = status.alarm_step // 50
    then = CollapseDetector(LOOKS, ALPHA, MIN_DROP).replay([50 * i for i in range(at + 1)], series[: at + 1])
    tally.biases.append((then.change - change[at], then.estimate - change[at]))


# Other detectors: values [looks, prompts] in, the index of the look of the first alarm out.


def fixed_threshold(values: np.ndarray) -> int | None:
    """A drop of 10 % of the mean below the baseline's."""
    return _first(np.nanmean(values, axis=1) < 0.9 * np.nanmean(values[0]))


def paired_t(values: np.ndarray) -> int | None:
    """Paired t test against the baseline at every look, p < 0.05, no correction."""
    tests = ttest_1samp(values[1:] - values[0], 0, axis=1, nan_policy="omit", alternative="less")
    return _first(np.append(False, tests.pvalue < 0.05))


def page_hinkley(values: np.ndarray) -> int | None:
    """river's PageHinkley on look means, set for few looks (at its defaults it never alarms here)."""
    from river import drift

    detector = drift.PageHinkley(min_instances=5, delta=0.005, threshold=0.1, mode="down")
    return _stream(detector, np.nanmean(values, axis=1))


def adwin(values: np.ndarray) -> int | None:
    """river's ADWIN on look means, tested at every look."""
    from river import drift

    return _stream(drift.ADWIN(delta=0.05, clock=1, grace_period=5), np.nanmean(values, axis=1))


def pelt(values: np.ndarray) -> int | None:
    """ruptures' PELT on the whole series, BIC penalty with a robust variance: the first break downwards."""
    import ruptures

    means = np.nanmean(values, axis=1)
    deviation = 1.4826 * np.median(np.abs(np.diff(means) - np.median(np.diff(means)))) / np.sqrt(2)
    breaks = ruptures.Pelt(model="l2", min_size=2, jump=1).fit(means).predict(pen=3 * np.log(len(means)) * deviation**2)
    edges = [0, *breaks]
    parts = [means[a:b].mean() for a, b in zip(edges, breaks, strict=False)]
    return next((edges[i + 1] for i in range(len(parts) - 1) if parts[i + 1] < parts[i]), None)


def _stream(detector: Any, series: np.ndarray) -> int | None:
    for look, value in enumerate(series):
        detector.update(float(value))
        if detector.drift_detected:
            return look
    return None


def _first(flags: np.ndarray) -> int | None:
    return int(np.argmax(flags)) if flags.any() else None


OTHERS: dict[str, Callable[[np.ndarray], int | None]] = {
    "PageHinkley": page_hinkley,
    "ADWIN": adwin,
    "PELT, afterwards": pelt,
    "10 % threshold": fixed_threshold,
    "paired t": paired_t,
}


def compare(world: World, seeds: Sequence[int]) -> dict[str, Tally]:
    tallies = {name: Tally() for name in OTHERS}
    for seed in seeds:
        values = draw(world, seed)[0].series("diversity/sbert")
        for name, detect in OTHERS.items():
            tallies[name].count(world, detect(values))
    return tallies


# Tables


def own_table(tallies: dict[str, Tally]) -> list[str]:
    lines = [
        "| case | runs | alarm share | median delay (90 %) | onset interval: covers, width | change interval: covers, width "
        "| error at the alarm: change, estimate | other verdict at some look |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, tally in tallies.items():
        delay = onset = bias = kinds = "-"
        if tally.delays and name not in DIPS:
            delay = f"{np.median(tally.delays):g} ({np.quantile(tally.delays, 0.9):g})"
        if tally.onset_covered:
            onset = f"{np.mean(tally.onset_covered):.2f}, {np.median(tally.onset_widths):g}"
            bias = ", ".join(f"{100 * error:+.1f} %" for error in np.mean(tally.biases, axis=0))
        if tally.kinds:
            kinds = f"{np.mean(tally.kinds):.3f}"
        change = f"{np.mean(tally.change_covered):.2f}, {np.median(tally.change_widths):.3f}"
        share = f"{tally.share:.3f} ± {tally.monte_carlo:.3f}"
        lines.append(f"| {' | '.join([name, str(tally.runs), share, delay, onset, change, bias, kinds])} |")
    return lines


def other_table(own: dict[str, Tally], others: dict[str, dict[str, Tally]]) -> list[str]:
    lines = [f"| case | divwatch | {' | '.join(OTHERS)} |", "|---" * (len(OTHERS) + 2) + "|"]
    for name, tallies in others.items():
        cells = [name]
        for tally in [own[name], *tallies.values()]:
            delay = f", delay {np.median(tally.delays):g}" if tally.delays and name not in DIPS else ""
            cells.append(f"{tally.share:.2f}{delay}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def timing() -> str:
    """CPU time of one look of 30 series, intervals read, median of five."""
    run = simulate("slide", prompts=500, looks=206, drop=0.08, width=150, wobble=0.005, seed=1)
    detectors = [CollapseDetector(206, ALPHA / 60, MIN_DROP) for _ in range(30)]
    for detector in detectors:
        detector.replay(run.steps[:200], run.values[:200])
    spent = []
    for step, values in zip(run.steps[200:205], run.values[200:205], strict=True):
        start = time.process_time()
        for detector in detectors:
            detector.update(step, values).as_dict()
        spent.append(time.process_time() - start)
    return f"{np.median(spent):.2f} s"


def main() -> int:
    def more(parser: Any) -> None:
        parser.add_argument("--runs", type=int, default=1000, help="runs per case")
        parser.add_argument("--seed", type=int, default=1_000_000, help="seed of the first run of every case")
        parser.add_argument("--only", default="", help="only cases whose name contains this")
        parser.add_argument("--own", action="store_true", help="leave the other detectors out")
        parser.add_argument("--beside", action="store_true", help="print only the table with the other detectors")
        parser.add_argument("--rows", type=Path, help="a file that keeps finished cases: run again to go on from there")
        parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
        parser.add_argument("--write", type=Path, help="a Markdown file: replace the part between its two marks")

    chosen = options(__doc__, more)
    if not chosen.own:  # before minutes of work, not after
        import river  # noqa: F401
        import ruptures  # noqa: F401
    result = measure(chosen)
    if chosen.write:
        place(chosen.write, "table", result.lines)
    return publish(result, chosen.json)


def finished(rows: Path | None) -> dict[str, Tally]:
    """The cases in the file of `--rows`."""
    if rows is None or not rows.exists():
        return {}
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    return {row["name"]: Tally(**row["tally"]) for row in kept}


def measure(chosen: Any) -> Result:
    started = time.perf_counter()
    names = [name for name in CASES if chosen.only in name and (not chosen.beside or name in BESIDE)]
    seeds = range(chosen.seed, chosen.seed + chosen.runs)
    own = finished(chosen.rows)
    missing = [name for name in names if name not in own]
    others: dict[str, dict[str, Tally]] = {}
    with ProcessPoolExecutor(chosen.workers) as pool:
        tallies = pool.map(partial(watch, seeds=seeds), [CASES[name] for name in missing])
        for name, tally in zip(missing, track(tallies, "divwatch", total=len(missing), transient=True), strict=True):
            own[name] = tally
            if chosen.rows:
                with chosen.rows.open("a") as file:
                    file.write(json.dumps({"name": name, "tally": asdict(tally)}, default=float) + "\n")
        own = {name: own[name] for name in names}
        if not chosen.own:
            beside = [name for name in names if name in BESIDE]
            few = partial(compare, seeds=range(chosen.seed, chosen.seed + min(chosen.runs, OTHER_RUNS)))
            tables = pool.map(few, [CASES[name] for name in beside])
            others = dict(zip(beside, track(tables, "others", total=len(beside), transient=True), strict=True))
    result = Result()
    if not chosen.beside:
        result.add(*own_table(own), "")
    if others:
        result.add(*other_table(own, others), "")
    minutes = (time.perf_counter() - started) / 60
    command = f"python benchmarks/detection.py --runs {chosen.runs} --seed {chosen.seed}"
    command += (" --own" if chosen.own else "") + (" --beside" if chosen.beside else "")
    result.add(
        f"`{command}`, {minutes:.0f} minutes with {chosen.workers} processes. "
        f"30 series of 500 prompts at a look after 200, intervals read: {timing()} of one core."
        + (f" Other detectors: the first {min(chosen.runs, OTHER_RUNS)} runs of each case." if others else ""),
    )
    for name, group, kept in (("quiet runs without an alarm", QUIET, 0.0), ("falls with one", FALLS, 1.0)):
        shares = [abs(1 - kept - own[case].share) for case in group if case in own]
        if shares:
            result.ratios[f"detection, share of {name}"] = float(np.mean(shares))
    return result


if __name__ == "__main__":
    sys.exit(main())
