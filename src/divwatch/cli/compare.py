"""`divwatch compare RUN...`: differences between runs, and for an ablation its sources ranked."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Optional

import typer

from divwatch.cli.options import AsJson, write_json
from divwatch.errors import DivwatchError


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
    as_json: AsJson = None,
) -> None:
    """Differences between runs, paired by prompt, with simultaneous intervals; for an ablation, its sources ranked.

    Example: divwatch compare runs/ablations/tiny_sources
    """
    from divwatch.ablation.figure import write_figure
    from divwatch.ablation.read import read_arms
    from divwatch.ablation.table import as_dict, rows, show
    from divwatch.analysis.compare import compare_arms

    arms = read_arms(runs, against, metric)
    comparison = compare_arms(arms.values, arms.tasks, arms.items, wobbles=arms.wobbles)
    folder = out or runs[0]
    _write_csv(folder / "comparison.csv", rows(arms, comparison))
    write_figure(arms, comparison, folder / "comparison.png")
    if write_json(as_json, as_dict(arms, comparison)):
        return
    show(arms, comparison, by_task=tasks or len(arms.items) == 1)
    print(f"wrote {folder / 'comparison.csv'} and {folder / 'comparison.png'}")


def _write_csv(path: Path, table: list[dict]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    except OSError as error:
        raise DivwatchError(f"cannot write {path} ({error.strerror}): choose another folder with --out") from None
