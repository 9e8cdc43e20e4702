"""From run directories to the tidy tables that the page, its charts and its CSV files are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from divwatch.analysis.history import ALARM_METRICS, alarm_metric
from divwatch.errors import DivwatchError
from divwatch.outputs.report.findings import LineageFindings, find
from divwatch.outputs.report.layout import Lineage, lay_out, slot_lengths, stage_name
from divwatch.outputs.report.tidy import blame_table, tidy_tables
from divwatch.store.attribution import first_comparable
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


@dataclass(frozen=True)
class Report:
    """Everything that the page shows. Charts and page tables are made from `tables`, which are also written as CSV.

    slots, lengths: the stages of the pipeline axis and their lengths. metrics: of diversity, the primary one first.
    notes: what could not be read, a line each.
    """

    lineages: list[Lineage]
    slots: list[str]
    lengths: list[str]
    metrics: list[str]
    tasks: list[str]
    findings: list[LineageFindings]
    tables: dict[str, pd.DataFrame]
    notes: list[str]

    @property
    def primary(self) -> str:
        return self.metrics[0]

    @property
    def curves(self) -> pd.DataFrame:
        return self.tables["curves"]

    @property
    def looks(self) -> pd.DataFrame:
        return self.tables["looks"]

    @property
    def slot_names(self) -> list[str]:
        return [stage_name(slot) for slot in self.slots]


def build(paths: Sequence[Path]) -> Report:
    """Loads the runs, arranges their lineages and analyses them. Raises DivwatchError if there is no look to show."""
    runs = load_runs(paths)
    if not any(len(run.means) for run in runs):
        raise DivwatchError(
            f"no finished look in {_few(paths)}: let a run take its first look (looks.jsonl says why one failed)"
        )
    chains, slots = lay_out(lineages(runs))
    means = pd.concat([lineage.curves() for lineage in chains], ignore_index=True)
    looks = pd.concat([lineage.looks() for lineage in chains], ignore_index=True)
    metrics, tasks = _metrics(means, chains), _tasks(means)
    findings = find(chains, metrics[0])
    blame = blame_table(chains)
    more = {} if blame.empty else {"blame": blame}
    return Report(
        lineages=chains,
        slots=slots,
        lengths=slot_lengths(chains, slots),
        metrics=metrics,
        tasks=tasks,
        findings=findings,
        tables=tidy_tables(findings, means, looks, metrics[0], tasks) | more,
        notes=[f"{run.directory.parent.name}: {note}" for run in runs for note in run.notes],
    )


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Every table as CSV under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, table in report.tables.items():
        path = folder / f"{name}.csv"
        table.to_csv(path, index=False)
        paths.append(path)
    return paths


def _metrics(curves: pd.DataFrame, chains: Sequence[Lineage]) -> list[str]:
    """The metrics of diversity that were measured, the one that carries the alarm first."""
    measured = {key.split("/", 1)[1] for key in curves["key"].unique() if key.startswith("diversity/")}
    watched = {_alarm_metric(lineage) for lineage in chains}
    first = [m for m in ALARM_METRICS if m in watched & measured][:1]
    ordered = [m for m in ORDER if m in measured] + sorted(measured - set(ORDER))
    return [*dict.fromkeys([*first, *ordered])] or ["sbert"]


def _alarm_metric(lineage: Lineage) -> str | None:
    base = first_comparable(lineage.runs)
    return None if base is None else alarm_metric(lineage.runs[base[0]].prompt_scores(base[1]).values)


def _tasks(curves: pd.DataFrame) -> list[str]:
    return [t for t in curves["task"].unique() if t != "all"]


def _few(paths: Sequence[Path]) -> str:
    names = [str(p) for p in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def metric_name(metric: str) -> str:
    """The name of a metric in text. Metrics that users add keep their own name."""
    return NAMES.get(metric, metric)
