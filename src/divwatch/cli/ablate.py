"""`divwatch ablate PLAN` and `divwatch compare RUN...`: which source of a mix does what to diversity?"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from divwatch.errors import DivwatchError


def ablate(
    plan: Annotated[Path, typer.Argument(help="A plan in YAML (docs/ablations.md).")],
    arm: Annotated[Optional[str], typer.Option(help="This arm alone.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="This seed alone.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the launches and run nothing.")] = False,
    sweep: Annotated[Optional[Path], typer.Option(help="Write a W&B sweep of the plan here and run nothing.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train every arm of a plan with every seed; call it again to go on where it was stopped.

    Example: divwatch ablate configs/ablations/tiny_sources.yaml
    """
    from divwatch.ablation.launch import check_kept, launch_all, write_record
    from divwatch.ablation.plan import read_plan
    from divwatch.ablation.sweep import sweep_of, write_sweep

    read = read_plan(plan)
    _known("arm", arm, [a.name for a in read.arms])
    _known("seed", seed, list(read.seeds))
    runs = [r for r in read.runs() if arm in (None, r.arm.name) and seed in (None, r.seed)]
    if sweep is not None:
        write_sweep(read, plan, sweep)
        print(json.dumps(sweep_of(read, plan), indent=1) if as_json else f"wrote {sweep}: {len(runs)} runs")
        return
    if dry_run:
        commands = [read.shown(run) for run in runs]
        print(json.dumps(commands, indent=1) if as_json else "\n".join(commands))
        return
    check_kept(read, runs)
    write_record(read)
    outcomes = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run under way is ended too
    try:
        for outcome in launch_all(read, runs, _progress):
            outcomes.append(outcome)
            if outcome.status != "kept":
                _progress(f"  {outcome}")
    except KeyboardInterrupt:
        _progress(f"stopped after {len(outcomes)} of {len(runs)} runs: the same command goes on")
        sys.exit(130)
    failed = [o for o in outcomes if o.status == "failed"]
    if as_json:
        print(json.dumps([o.as_dict() for o in outcomes], indent=1))
    else:
        kept = sum(o.status == "kept" for o in outcomes)
        print(f"{len(outcomes)} runs: {len(outcomes) - kept - len(failed)} done, {kept} kept, {len(failed)} failed")
        print(f"now: divwatch compare {read.output_dir}")
    if failed:
        sys.exit(1)


def _known(what: str, asked: object, known: list) -> None:
    if asked is not None and asked not in known:
        raise DivwatchError(f"the plan has no {what} {asked!r}: choose from {', '.join(map(str, known))}")


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="An ablation's folder; or output directories, or folders with one run a seed.")
    ],
    against: Annotated[
        Optional[str], typer.Option(help="The arm that others are held against. Default: full, else the first.")
    ] = None,
    metric: Annotated[
        Optional[str], typer.Option(help="Diversity metric. Default: sbert, where it was measured.")
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Folder for comparison.csv and comparison.png. Default: the first one given.")
    ] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="Show every effect task by task too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Differences between runs, paired by prompt, with simultaneous intervals; for an ablation, its sources ranked.

    Example: divwatch compare runs/ablations/tiny_sources
    """
    from divwatch.ablation.figure import write_figure
    from divwatch.ablation.read import read_arms
    from divwatch.ablation.table import as_dict, rows, show
    from divwatch.analysis.compare import compare_arms

    arms = read_arms(runs, against, metric)
    found = compare_arms(arms.values, arms.tasks, arms.items)
    folder = out or runs[0]
    _write_csv(folder / "comparison.csv", rows(arms, found))
    write_figure(arms, found, folder / "comparison.png")
    if as_json:
        print(json.dumps(as_dict(arms, found), indent=1))
        return
    show(arms, found, by_task=tasks or len(arms.items) == 1)
    print(f"wrote {folder / 'comparison.csv'} and {folder / 'comparison.png'}")


def _write_csv(path: Path, table: list[dict]) -> None:
    import csv

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    except OSError as error:
        raise DivwatchError(f"cannot write {path} ({error.strerror}): choose another folder with --out") from None
