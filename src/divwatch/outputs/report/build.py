"""From run directories to the tidy tables that the page, its charts and its CSV files are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from divwatch.errors import DivwatchError
from divwatch.outputs.report.layout import Lineage, lay_out, slot_lengths, stage_name
from divwatch.store.tables import lineages, load_runs

ORDER = ["sbert", "vendi", "distinct_answers", "ead", "nli", "ast"]
NAMES = {
    "sbert": "embedding distance",
    "vendi": "Vendi score",
    "ead": "EAD",
    "distinct_answers": "distinct answers",
    "nli": "NLI diversity",
    "ast": "AST distance",
}


@dataclass
class Report:
    """Everything that the page shows. Its charts are drawn from `tables`, which are also written as CSV."""

    lineages: list[Lineage]
    slots: list[str]
    lengths: list[str]
    metrics: list[str]
    tasks: list[str]
    curves: pd.DataFrame
    looks: pd.DataFrame
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def primary(self) -> str:
        return self.metrics[0]

    @property
    def slot_names(self) -> list[str]:
        return [stage_name(slot) for slot in self.slots]


def build(paths: Sequence[Path]) -> Report:
    """Loads the runs and arranges their lineages. Raises DivwatchError where there is no look to show."""
    runs = load_runs(paths)
    if not any(len(run.means) for run in runs):
        raise DivwatchError(
            f"no finished look in {_few(paths)}: let a run take its first look (looks.jsonl says why one failed)"
        )
    chains, slots = lay_out(lineages(runs))
    curves = pd.concat([lineage.curves() for lineage in chains], ignore_index=True)
    looks = pd.concat([lineage.looks() for lineage in chains], ignore_index=True)
    report = Report(chains, slots, slot_lengths(chains, slots), _metrics(curves), _tasks(curves), curves, looks)
    report.notes = [f"{run.directory.parent.name}: {note}" for run in runs for note in run.notes]
    report.tables = {"curves": curves, "looks": looks, "cost": cost(looks)}
    return report


def cost(looks: pd.DataFrame) -> pd.DataFrame:
    """A row a stage: its looks by status and their seconds."""
    grouped = looks.groupby(["lineage", "stage"], sort=False)
    table = grouped.agg(
        looks=("step", "size"),
        failed=("status", lambda s: int((s == "failed").sum())),
        unscored=("status", lambda s: int((s == "unscored").sum())),
        not_comparable=("status", lambda s: int((s == "not_comparable").sum())),
        sample_seconds=("sample_seconds", "sum"),
        score_seconds=("score_seconds", "sum"),
        total_seconds=("total_seconds", "sum"),
        seconds_per_look=("total_seconds", "median"),
        first=("time", "min"),
        last=("time", "max"),
    ).reset_index()
    elapsed = [_seconds_between(a, b) for a, b in zip(table.pop("first"), table.pop("last"), strict=True)]
    table["elapsed_seconds"] = elapsed
    return table


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Every table as CSV under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, table in report.tables.items():
        path = folder / f"{name}.csv"
        table.to_csv(path, index=False)
        paths.append(path)
    return paths


def _metrics(curves: pd.DataFrame) -> list[str]:
    measured = {key.split("/", 1)[1] for key in curves["key"].unique() if key.startswith("diversity/")}
    ordered = [m for m in ORDER if m in measured] + sorted(measured - set(ORDER))
    return ordered or ["sbert"]


def _tasks(curves: pd.DataFrame) -> list[str]:
    return [t for t in curves["task"].unique() if t != "all"]


def _seconds_between(first: Any, last: Any) -> float:
    try:
        if isinstance(first, str):
            return float((pd.Timestamp(last) - pd.Timestamp(first)).total_seconds())
        return float(last) - float(first)
    except (TypeError, ValueError):
        return float("nan")


def _few(paths: Sequence[Path]) -> str:
    names = [str(p) for p in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def metric_name(metric: str) -> str:
    """The name of a metric in text. Metrics that users add keep their own name."""
    return NAMES.get(metric, metric)
