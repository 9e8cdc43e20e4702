"""The experiment of docs/lineages.md: over five seeds of real training, is the planted stage the one that is flagged?

    python benchmarks/lineages.py                 # 35 trainings, two at a time, one thread each; about 40 minutes
    python benchmarks/lineages.py --report-only   # tables and figure from what is in runs/lineages

Each seed trains Think SFT, Instruct SFT and control SFT from the embedded base, then the preference stages on them, with
the demo's recipes and configs. The planted stage is used only to build the table. Results are written between the markers
of docs/lineages.md and to docs/lineages.png.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wobble

ROOT = Path(__file__).parent.parent
OUT = ROOT / "runs" / "lineages"
SFT = ("think", "instruct", "control")


class Arm(NamedTuple):
    """A lineage: its SFT, its preference stage, the stage at which a collapse is planted (None: nowhere)."""

    name: str
    sft: str
    dpo_config: str
    planted: str | None


ARMS = [
    Arm("broad SFT, narrow DPO (Instruct)", "instruct", "instruct/dpo", "dpo"),
    Arm("narrow SFT, neutral DPO", "think", "think/dpo_neutral", "sft"),
    Arm("narrow SFT, narrow DPO (Think)", "think", "think/dpo", "sft"),
    Arm("control SFT, neutral DPO", "control", "control/dpo", None),
]


def train(recipe: str, config: str, out: Path, seed: int, model: Path | None = None) -> None:
    """Trains one stage with its recipe unless its report exists. On failure, raises with the log's path."""
    if (out / "done").is_file():
        return
    log = out.parent / f"{out.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        f"recipes/{recipe}.py",
        "--config",
        f"configs/tiny/{config}.yaml",
        "--output_dir",
        str(out),
    ]
    command += ["--seed", str(seed), "--data_seed", str(seed), "--watch_seed", str(seed), "--report_to", "none"]
    command += ["--model_name_or_path", str(model)] if model else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("w") as file:
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=file).returncode
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}: see {log}")
    (out / "done").touch()


def run_all(seeds: list[int], workers: int) -> None:
    """All SFT stages first, because preference stages start from them."""
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    stages = [("sft", f"{name}/sft", f"{name}-sft", None) for name in SFT]
    stages += [("dpo", arm.dpo_config, _dpo_dir(arm), f"{arm.sft}-sft") for arm in ARMS]
    jobs = [(seed, *stage) for stage in stages for seed in seeds]
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("training", total=len(jobs))

        def one(job: tuple[int, str, str, str, str | None]) -> None:
            seed, recipe, config, name, parent = job
            folder = OUT / f"seed-{seed}"
            train(recipe, config, folder / name, seed, folder / parent if parent else None)
            progress.advance(bar)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, jobs))


def _dpo_dir(arm: Arm) -> str:
    return arm.dpo_config.replace("/", "-")


@cache
def chain(arm: Arm, seed: int):
    """The runs of a lineage, as the report reads them."""
    from divwatch.store.tables import lineages, load_runs

    (runs,) = lineages(load_runs([OUT / f"seed-{seed}" / _dpo_dir(arm)]))
    return runs


def planted_table(seeds: list[int]) -> str:
    from divwatch.store.attribution import attribute_stages

    lines = [
        "| lineage | planted at | flagged live, by seed | right | change at SFT, % of base | change at DPO | kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        chains = [chain(arm, seed) for seed in seeds]
        flags = [flagged_stage(c) for c in chains]
        losses = [attribute_stages(c, "diversity/sbert") for c in chains]
        right = sum(flag == arm.planted for flag in flags)
        cells = [_mean_and_range([100 * loss.share[stage] for loss in losses]) for stage in ("sft", "dpo")]
        retained = _mean_and_range([100 * loss.retained for loss in losses])
        flagged = ", ".join(flag or "none" for flag in flags)
        row = [arm.name, arm.planted or "nowhere", flagged, f"{right} of {len(seeds)}", *cells, retained]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def flagged_stage(runs) -> str | None:
    """The first stage in whose run the alarm of the whole panel was raised, as it was raised live. None: no stage."""
    return next((run.stage for run in runs if any(event.get("task") == "all" for event in run.events)), None)


def onset_table(seeds: list[int]) -> str:
    """When the first alarm of the whole panel came at the planted stage, and the onset that it gave, as it was raised live."""
    lines = [
        "| lineage | looks at steps | first alarm of the whole panel at step, by seed | onset, 90 % interval, by seed |",
        "|---|---|---|---|",
    ]
    for arm in (arm for arm in ARMS if arm.planted):
        runs = [next(run for run in chain(arm, seed) if run.stage == arm.planted) for seed in seeds]
        alarms = [next((event for event in run.events if event.get("task") == "all"), None) for run in runs]
        looks = ", ".join(str(step) for step, _ in runs[0].scored_looks())
        when = ", ".join(str(alarm["step"]) if alarm else "none" for alarm in alarms)
        onset = ", ".join("[{}, {}]".format(*alarm["onset_interval"]) if alarm else "-" for alarm in alarms)
        lines.append(f"| {arm.name} | {looks} | {when} | {onset} |")
    return "\n".join(lines)


def _mean_and_range(values: list[float]) -> str:
    return f"{np.mean(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def claim_table(seeds: list[int]) -> str:
    """The paper's claim: each stage's share of a lineage's whole loss, paired by seed, with t intervals."""
    from scipy import stats

    from divwatch.store.attribution import attribute_stages

    think, instruct = ARMS[2], ARMS[0]
    lines = [
        "| quantity | stage | share of the loss in Think | in Instruct | difference, 95 % interval over seeds |",
        "|---|---|---|---|---|",
    ]
    for key, name in (("diversity/sbert", "diversity"), ("correct_diversity/sbert", "correct-answer diversity")):
        shares = {}
        for arm in (think, instruct):
            losses = [attribute_stages(chain(arm, seed), key) for seed in seeds]
            shares[arm] = {
                s: np.array([loss.share[s] / sum(loss.share.values()) for loss in losses]) for s in ("sft", "dpo")
            }
        for stage, first, second in (("sft", think, instruct), ("dpo", instruct, think)):
            difference = shares[first][stage] - shares[second][stage]
            half = stats.t.ppf(0.975, len(seeds) - 1) * difference.std(ddof=1) / len(seeds) ** 0.5
            label = "Think - Instruct" if first is think else "Instruct - Think"
            cells = [f"{100 * shares[arm][stage].mean():.0f} %" for arm in (think, instruct)]
            low, mean, high = (100 * (difference.mean() + side * half) for side in (-1, 0, 1))
            interval = f"{mean:+.0f} points [{low:+.0f}, {high:+.0f}]"
            lines.append(f"| {name} | {stage.upper()} | {cells[0]} | {cells[1]} | {label}: {interval} |")
    return "\n".join(lines)


def wobble_text(seeds: list[int]) -> str:
    """How much the looks of the control runs wobble: the detector's prior is a guess until then."""
    import pandas as pd

    from divwatch.store.tables import load_run

    series = []
    for folder in [OUT / f"seed-{seed}" / name for seed in seeds for name in ("control-sft", _dpo_dir(ARMS[3]))]:
        if (folder / "done").is_file():
            run = load_run(folder / "divwatch")
            looks = [run.values_at(step, "diversity/sbert") for step, comparable in run.scored_looks() if comparable]
            series.append(wobble.relative_series(pd.concat(looks, axis=1).dropna().to_numpy()))
    return f"Wobble of {len(series)} control runs, from {wobble.described(series, largest=0.05)}."


def figure(seeds: list[int], path: Path) -> None:
    """Plots the change of diversity since the base: one line a seed, one panel a lineage."""
    from divwatch.outputs.charts.area import Point, Series
    from divwatch.outputs.charts.export import sheet, write_png
    from divwatch.outputs.charts.pipeline import Axis, Panel, pipeline_chart

    keys = {"diversity/sbert": "all outputs", "correct_diversity/sbert": "correct outputs"}
    drawn = {}
    for arm in ARMS:
        series = []
        for seed in seeds:
            runs = chain(arm, seed)
            for colour, key in enumerate(keys):
                means = [run.means[(run.means["task"] == "all") & (run.means["key"] == key)] for run in runs]
                base = means[0]["mean"].iloc[0]
                points = [
                    Point(n + step / run.max_steps, level / base - 1)
                    for n, (run, rows) in enumerate(zip(runs, means, strict=True))
                    for step, level in zip(rows["step"], rows["mean"], strict=True)
                ]
                series.append(Series(f"seed {seed}, {keys[key]}", [points], colour, thin=True))
        drawn[arm.name] = series
    changes = [point.y for series in drawn.values() for s in series for point in s.segments[0]]
    y_range = (min(changes) - 0.05, max(changes) + 0.05)
    charts = []
    for name, series in drawn.items():
        panel = Panel("Change since the base", series, unit=" %", y_range=y_range)
        charts.append((name, str(pipeline_chart([panel], Axis(["SFT", "DPO"]), name))))
    legend = [(name, colour, 0) for colour, name in enumerate(keys.values())]
    write_png(sheet(charts, columns=len(charts), legend=legend), path)


def write(text: str, path: Path) -> None:
    """Replaces the part between the page's markers and keeps the rest."""
    start, end = "<!-- results -->", "<!-- /results -->"
    page = path.read_text()
    before, _, rest = page.partition(start)
    path.write_text(f"{before}{start}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument(
        "--wobble", action="store_true", help="only print the wobble of the control runs that have ended"
    )
    options = parser.parse_args()
    if options.wobble:
        print(wobble_text(options.seeds))
        return
    started = time.monotonic()
    if not options.report_only:
        run_all(options.seeds, options.workers)
        print(f"trained in {(time.monotonic() - started) / 60:.1f} minutes")
    parts = (planted_table, onset_table, claim_table, wobble_text)
    text = "\n\n".join(part(options.seeds) for part in parts)
    print(text)
    write(text, ROOT / "docs" / "lineages.md")
    figure(options.seeds, ROOT / "docs" / "lineages.png")


if __name__ == "__main__":
    main()
