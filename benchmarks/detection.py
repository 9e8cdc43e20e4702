"""False alarms, delay and onset of `CollapseDetector` on simulated runs with known truth, beside other detectors.

    python benchmarks/detection.py --runs 1000 --write docs/detection.md

Needs the extra `bench` (river, ruptures). Seeds start at --seed: choose rules on some seeds, report them on others.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Result, options, place, publish
from rich.progress import track
from scipy.stats import ttest_1samp

from divwatch.analysis.detector import CollapseDetector
from divwatch.analysis.simulate import SimulatedRun, simulate

ALPHA, MIN_DROP = 0.05, 0.05
OTHER_RUNS = 300  # PELT takes longer than all the rest
EARLIEST, LATEST = 3, 12  # looks at which a fall may begin, of 30


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    unit: float = 1.0

    def run(self, seed: int) -> SimulatedRun:
        onset = int(np.random.default_rng([seed, 1]).integers(EARLIEST, LATEST + 1))
        run = simulate(self.kind, seed=seed, **{"onset": onset} | self.settings)
        return replace(run, values=self.unit * run.values)


QUIET = [
    Case("null", "null"),
    Case("null, 16 prompts", "null", {"prompts": 16}),
    Case("null, 500 prompts", "null", {"prompts": 500}),
    Case("null, wobble 3 %", "null", {"wobble": 0.03}),
    Case("null, wobble 3 %, 500 prompts", "null", {"wobble": 0.03, "prompts": 500}),
    Case("null, heavy tails", "null", {"heavy_tails": True}),
    Case("null, a quarter missing", "null", {"missing": 0.25}),
    Case("null, 6 looks, wobble 3 %", "null", {"wobble": 0.03, "looks": 6}),
    Case("null, 200 looks, wobble 3 %", "null", {"wobble": 0.03, "looks": 200}),
    Case("null, wobble 5 %, 500 prompts", "null", {"wobble": 0.05, "prompts": 500}),
    Case("null, wobble 3 %, correlation 0.5", "null", {"wobble": 0.03, "persistence": 0.5}),
    Case("null, wobble 3 %, correlation 0.8", "null", {"wobble": 0.03, "persistence": 0.8}),
    Case("null, values times 10", "null", unit=10.0),
    Case("drift of 2 %", "drift"),
    Case("step of 2 %", "step", {"drop": 0.02}),
    Case("one-look dip of 20 %", "dip"),
]
FEW = {"looks": 6, "onset": 0, "drop": 0.4}
EXACT = [
    Case("lasting drop of exactly 5 %", "step", {"drop": 0.05}),
    Case("the same, 100 looks", "step", {"drop": 0.05, "looks": 100}),
]
FALLS = [
    Case("step of 15 %", "step"),
    Case("ramp of 35 % over 8", "ramp"),
    Case("ramp, heavy tails", "ramp", {"heavy_tails": True}),
    Case("ramp, a quarter missing", "ramp", {"missing": 0.25}),
    Case("slide of 20 % over 16", "slide"),
    Case("recovery after 35 %", "recovery"),
    Case("few looks: 40 % over 2 of 6, 48 prompts", "ramp", FEW | {"width": 2, "prompts": 48}),
    Case("few looks: 40 % over 3 of 6, wobble 3 %", "ramp", FEW | {"width": 3, "wobble": 0.03}),
]

# The cases that the other detectors run on too.
BESIDE = (
    "null",
    "null, wobble 3 %",
    "null, wobble 5 %, 500 prompts",
    "null, wobble 3 %, correlation 0.8",
    "null, values times 10",
    "one-look dip of 20 %",
    "step of 15 %",
    "ramp of 35 % over 8",
    "slide of 20 % over 16",
    "few looks: 40 % over 2 of 6, 48 prompts",
)


@dataclass
class Tally:
    """What a detector did on the runs of one case. Delays and errors are in looks."""

    runs: int = 0
    alarms: int = 0
    delays: list[float] = field(default_factory=list)
    onset_errors: list[float] = field(default_factory=list)
    onset_covered: list[bool] = field(default_factory=list)
    onset_widths: list[float] = field(default_factory=list)
    change_covered: list[bool] = field(default_factory=list)
    change_widths: list[float] = field(default_factory=list)
    confirmed: int = 0

    def count(self, run: SimulatedRun, alarm: int | None) -> None:
        self.runs += 1
        passed = run.first_beyond(MIN_DROP)
        if alarm is not None:
            self.alarms += 1
            if passed is not None:
                self.delays.append(alarm - passed)

    @property
    def share(self) -> float:
        return self.alarms / self.runs

    @property
    def monte_carlo(self) -> float:
        """Standard error of the share, at least 1 / runs (if no run or every run alarmed)."""
        return max(float(np.sqrt(self.share * (1 - self.share) / self.runs)), 1 / self.runs)


def watch(case: Case, seeds: Iterable[int], every_look: bool = False) -> Tally:
    """Runs divwatch's detector. `every_look`: count `confirmed` if it was true at any look, not only at the last."""
    tally = Tally()
    for seed in seeds:
        run = case.run(seed)
        detector = CollapseDetector(len(run.steps), ALPHA, MIN_DROP)
        confirmed = False
        if every_look:
            for step, values in zip(run.steps, run.values, strict=True):
                status = detector.update(step, values)
                confirmed |= status.confirmed
        else:
            status = detector.replay(run.steps, run.values)
            confirmed = status.confirmed
        tally.count(run, None if status.alarm_step is None else run.steps.index(status.alarm_step))
        tally.confirmed += confirmed
        lo, hi = status.change_interval
        tally.change_covered.append(bool(lo <= run.change[-1] <= hi))
        tally.change_widths.append(hi - lo)
        if run.onset_step is not None and status.onset_step is not None and status.onset_interval is not None:
            every = run.steps[1]
            first, last = status.onset_interval
            tally.onset_errors.append(abs(status.onset_step - run.onset_step) / every)
            tally.onset_covered.append(first <= run.onset_step <= last)
            tally.onset_widths.append((last - first) / every)
    return tally


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


def compare(case: Case, seeds: Iterable[int]) -> dict[str, Tally]:
    tallies = {name: Tally() for name in OTHERS}
    for seed in seeds:
        run = case.run(seed)
        for name, detect in OTHERS.items():
            tallies[name].count(run, detect(run.values))
    return tallies


# Tables


def own_table(found: dict[str, tuple[Case, Tally]]) -> list[str]:
    lines = [
        "| case | alarm share | median delay (90 %) | onset error | onset interval: covers, width | confirmed "
        "| change interval: covers, width |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, tally in found.values():
        delay = onset = covers = "-"
        if tally.delays:
            delay = f"{np.median(tally.delays):g} ({np.quantile(tally.delays, 0.9):g})"
        if tally.onset_errors and case in FALLS:
            onset = f"{np.median(tally.onset_errors):g}"
            covers = f"{np.mean(tally.onset_covered):.2f}, {np.median(tally.onset_widths):g}"
        change = f"{np.mean(tally.change_covered):.3f}, {np.median(tally.change_widths):.3f}"
        share = f"{tally.share:.3f} ± {tally.monte_carlo:.3f}"
        cells = [case.name, share, delay, onset, covers, f"{tally.confirmed / tally.runs:.3f}", change]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def other_table(own: dict[str, tuple[Case, Tally]], others: dict[str, dict[str, Tally]]) -> list[str]:
    lines = [f"| case | divwatch | {' | '.join(OTHERS)} |", "|---" * (len(OTHERS) + 2) + "|"]
    for name, tallies in others.items():
        cells = [name]
        for tally in [own[name][1], *tallies.values()]:
            delay = f", delay {np.median(tally.delays):g}" if tally.delays else ""
            cells.append(f"{tally.share:.2f}{delay}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def timing() -> str:
    """CPU time of one update including all results, median of nine."""
    run = simulate("ramp", prompts=500, looks=209, seed=1)
    detector = CollapseDetector(209, ALPHA, MIN_DROP)
    detector.replay(run.steps[:200], run.values[:200])
    spent = []
    for step, values in zip(run.steps[200:], run.values[200:], strict=True):
        start = time.process_time()
        detector.update(step, values).as_dict()
        spent.append(time.process_time() - start)
    return f"{1e3 * np.median(spent):.0f} ms"


def main() -> int:
    def more(parser: Any) -> None:
        parser.add_argument("--runs", type=int, default=1000, help="runs per case")
        parser.add_argument("--seed", type=int, default=1_000_000, help="seed of the first run of every case")
        parser.add_argument("--only", default="", help="only cases whose name contains this")
        parser.add_argument("--own", action="store_true", help="leave the other detectors out")
        parser.add_argument("--beside", action="store_true", help="print only the table with the other detectors")
        parser.add_argument("--write", type=Path, help="a Markdown file: replace the part between its two marks")

    chosen = options(__doc__, more)
    result = measure(chosen)
    if chosen.write:
        place(chosen.write, "table", result.lines)
    return publish(result, chosen.json)


def measure(chosen: Any) -> Result:
    started = time.process_time()
    seeds = range(chosen.seed, chosen.seed + chosen.runs)
    cases = [case for case in [*QUIET, *EXACT, *FALLS] if chosen.only in case.name]
    own, others = {}, {}
    for case in track(cases, "divwatch", transient=True):
        own[case.name] = case, watch(case, seeds, every_look=case in EXACT)
    if not chosen.own:
        for case in track([case for case in cases if case.name in BESIDE], "others", transient=True):
            others[case.name] = compare(case, seeds[:OTHER_RUNS])
    result = Result()
    if not chosen.beside:
        result.add(*own_table(own), "")
    if others:
        result.add(*other_table(own, others), "")
    minutes = (time.process_time() - started) / 60
    result.add(
        f"`python benchmarks/detection.py --runs {chosen.runs}`, seeds from {chosen.seed}, {minutes:.1f} minutes of one core. "
        f"One update with 500 prompts and 200 looks, interval and onset read: {timing()}. "
        f"Other detectors: the first {min(chosen.runs, OTHER_RUNS)} runs of each case.",
    )
    for name, group, kept in (("quiet runs without an alarm", QUIET, 0.0), ("falls with one", FALLS, 1.0)):
        shares = [abs(1 - kept - own[case.name][1].share) for case in group if case.name in own]
        if shares:
            result.ratios[f"detection, share of {name}"] = float(np.mean(shares))
    return result


if __name__ == "__main__":
    sys.exit(main())
