"""From run directories to the tidy tables behind every figure of the report, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from divwatch.errors import DivwatchError
from divwatch.outputs.report.layout import Lineage, lay_out, slot_lengths, stage_name
from divwatch.store.tables import lineages, load_runs

ORDER = ["sbert", "vendi", "distinct_answers", "ead", "nli", "ast"]
# What of run.json is no setting, or has a table of its own.
APART = ("format", "created", "ended", "output_dir", "parent", "stage", "wandb", "wandb_before", "held_out")
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
    """Everything the page shows. `tables` are written beside it as CSV, and every figure is drawn from them."""

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
    """Load `paths` and lay the lineages out. Raises DivwatchError where there is no look to show."""
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
    """A row a stage: looks by status and what they took, in seconds."""
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


def settings(report: Report) -> tuple[list[tuple[str, str]], list[tuple[str, list[str]]], list[str]]:
    """(what all runs share, what differs: a value a run, names of the runs)."""
    runs = metas(report)
    flat = [_flatten(meta) for _, meta in runs]
    keys = list(dict.fromkeys(key for values in flat for key in values))
    shared, differing = [], []
    for key in keys:
        values = [f.get(key, "–") for f in flat]
        if len(set(values)) == 1:
            shared.append((key, values[0]))
        else:
            differing.append((key, values))
    return shared, differing, [name for name, _ in runs]


def metas(report: Report) -> list[tuple[str, dict[str, Any]]]:
    """(lineage and stage, run.json) of every run, each once."""
    named = {
        run.directory: (f"{v.name} {stage_name(v.stages[n])}", run.meta)
        for v in report.lineages
        for n, run in enumerate(v.runs)
    }
    return list(named.values())


def panel(report: Report) -> tuple[dict[str, Any], pd.DataFrame]:
    """The panel of the first run, and a row a task: how many prompts, and one of them."""
    meta = report.lineages[0].runs[0].meta.get("panel")
    meta = meta if isinstance(meta, dict) else {}
    prompts = pd.DataFrame([p for p in meta.get("prompts") or [] if isinstance(p, dict)])
    if prompts.empty or "task" not in prompts.columns:
        return meta, pd.DataFrame(columns=["task", "prompts", "example"])
    text = prompts["text"] if "text" in prompts.columns else prompts["task"].map(lambda _: "")
    grouped = prompts.assign(text=text).groupby("task", sort=False)
    return meta, grouped.agg(prompts=("id", "size"), example=("text", "first")).reset_index()


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Every table as CSV under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, table in report.tables.items():
        path = folder / f"{name}.csv"
        table.to_csv(path, index=False)
        made.append(path)
    return made


def _metrics(curves: pd.DataFrame) -> list[str]:
    found = {key.split("/", 1)[1] for key in curves["key"].unique() if key.startswith("diversity/")}
    ordered = [m for m in ORDER if m in found] + sorted(found - set(ORDER))
    return ordered or ["sbert"]


def _tasks(curves: pd.DataFrame) -> list[str]:
    return [t for t in curves["task"].unique() if t != "all"]


def _flatten(meta: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """run.json as `a.b` -> text, without the prompts themselves."""
    out: dict[str, str] = {}
    for key, value in meta.items():
        if prefix == "" and key in APART:
            continue
        name = f"{prefix}{key}"
        if prefix == "" and key == "mix" and isinstance(value, dict) and "sources" in value:
            value = {k: v for k, v in value.items() if k in ("name", "kind", "seed")}
        if isinstance(value, dict):
            out |= _flatten({k: v for k, v in value.items() if not (key == "panel" and k == "prompts")}, f"{name}.")
        else:
            out[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return out


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
    """What a metric is called in text; one that users added keeps its own name."""
    return NAMES.get(metric, metric)
