"""The report at a terminal: the table of stages, the published numbers beside it, and where the files are."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from divwatch.outputs import numbers
from divwatch.outputs.report.build import Report

COLUMNS = ("diversity", "correct-answer\ndiversity", "accuracy", "change", "change among\ncorrect", "onset [90 %]")


def print_summary(report: Report, page: Path) -> None:
    """Prints the stages, what they kept beside what Olmo 3 7B kept, and the commands that open page and W&B records."""
    from rich.console import Console

    console = Console()
    Console(width=max(console.width, 120)).print(stage_table(report))
    for line in (
        *reference_lines(report.tables["curves"]),
        f"report: {page}",
        f"  open it: {shlex.join(['xdg-open', str(page)])}",
    ):
        print(line)
    for output_dir, folder in _wandb_folders(report):
        print(f"W&B record of {output_dir}: {folder}")
        quoted = shlex.quote(str(folder))
        print(f"  open it: wandb leet {quoted}   upload it: wandb sync {quoted}")


def as_json(report: Report, page: Path) -> dict[str, Any]:
    """Where the report is, and its tables of stages and onsets."""
    tables = {name: json.loads(report.tables[name].to_json(orient="records")) for name in ("stages", "onsets")}
    return {"page": str(page), "tables": str(page.with_suffix("")), **tables}


def stage_table(report: Report) -> Any:
    """One row per stage: its levels at the last look, its changes, and where a fall of the whole panel begins."""
    from rich.box import SIMPLE
    from rich.table import Table

    onsets = report.tables["onsets"]
    table = Table(box=SIMPLE, title="Stages at their last look; change in the stage [95 %]")
    table.add_column("stage", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.tables["stages"].to_dict("records"):
        mine = onsets[(onsets.lineage == row["lineage"]) & (onsets.stage == row["stage"]) & (onsets.task == "all")]
        levels = ((row["diversity"], 3), (row["correct_diversity"], 3), (row["accuracy"], 2))
        table.add_row(
            f"{row['lineage']} {row['stage']}",
            *("" if math.isnan(level) else f"{level:.{digits}f}" for level, digits in levels),
            *(_change(row, key) for key in ("change", "correct_change")),
            "" if row["number"] < 0 else _onset(mine.to_dict("records")),
        )
    return table


def reference_lines(curves: pd.DataFrame) -> list[str]:
    """One line per stage and published task, for lineages named think or instruct. curves: the report's table of curves."""
    from divwatch.tasks.published import LINES, retained

    rows = curves[(curves["key"] == "diversity/sbert") & (curves["task"] != "all") & (curves["status"] == "ok")]
    lines = []
    for (lineage, task), mine in rows.groupby(["lineage", "task"], sort=False):
        if lineage not in LINES:
            continue
        mine = mine.sort_values(["number", "step"])
        base = mine.iloc[0]["mean"]
        for stage, looks in mine.groupby("stage", sort=False):
            published = retained(lineage, stage, task)
            if published is not None and base > 0:
                share = looks.iloc[-1]["mean"] / base
                lines.append(
                    f"{lineage} {stage} kept {share:.0%} of the base on {task}; Olmo 3 7B kept {published:.0%}"
                )
    return lines


def _change(row: dict[str, Any], key: str) -> str:
    if math.isnan(row[key]):
        return ""
    return numbers.plain(numbers.change(row[key], row[f"{key}_lo"], row[f"{key}_hi"]))


def _onset(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "none flagged"
    first = min(rows, key=lambda row: row["key"])  # that of correct answers, if there is one, as on the page
    return f"step {first['step']} [{first['lo']:.0f}, {first['hi']:.0f}]"


def _wandb_folders(report: Report) -> list[tuple[Path, Path]]:
    """(output directory, folder of the W&B record) of every run that has one."""
    runs = {run.directory: run for lineage in report.lineages for run in lineage.runs}
    records = [(run.directory.parent, run.meta.get("wandb")) for run in runs.values()]
    return [(output_dir, Path(record["dir"]).parent) for output_dir, record in records if record]
