"""Tables of how the runs went and what they were: cost, completions that count, settings, panel, training data."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd

from divwatch.outputs.numbers import percent
from divwatch.outputs.report import narrative
from divwatch.outputs.report.build import Report
from divwatch.outputs.report.cells import Cell, Row, Table, stage_ends
from divwatch.outputs.report.layout import stage_name

# Fields of run.json that are not settings, or that have their own table.
NOT_SETTINGS = ("format", "created", "ended", "output_dir", "parent", "stage", "wandb", "wandb_before", "held_out")


def cost(report: Report) -> Table:
    rows = []
    for r in report.tables["cost"].to_dict("records"):
        share = r["total_seconds"] / r["elapsed_seconds"] if r["elapsed_seconds"] > 0 else math.nan
        parts = ("seconds_per_look", "total_seconds", "sample_seconds", "score_seconds")
        seconds = [Cell(f"{r[k]:,.1f} s") for k in parts]
        counts = [Cell(str(r[k])) for k in ("looks", "failed", "unscored", "not_comparable")]
        stage = [Cell(r["lineage"]), Cell(stage_name(r["stage"]))]
        rows.append(Row([*stage, *counts, seconds[0], seconds[1], Cell(percent(share, signed=False)), *seconds[2:]]))
    columns = ["Lineage", "Stage", "Looks", "Failed", "Not scored", "Not comparable", "Seconds a look"]
    columns += ["Waited in total", "Share of the run", "Sampling", "Scoring"]
    caption = (
        "How long training waited for its looks, and its share of the time from the first look to the last. Seconds a look "
        "are the median. Training waits for sampling; scoring runs beside it, unless watch_background is off."
    )
    return Table(caption, columns, rows)


def outputs(report: Report) -> Table | None:
    """Which completions count: finished, usable, with a thought closed by force, judged."""
    if report.looks["usable_share"].isna().all():
        return None
    rows = []
    for look in stage_ends(report):
        shares = [Cell(percent(look[k], signed=False)) for k in ("finished_share", "usable_share", "closed_share")]
        reasons = narrative.unjudged([look["unjudged"]])
        not_judged = Cell(str(sum(n for _, n in reasons)), "; ".join(f"{reason} ({n})" for reason, n in reasons[:3]))
        rows.append(
            Row([Cell(look["lineage"]), Cell(stage_name(look["where"])), Cell(str(look["step"])), *shares, not_judged])
        )
    caption = (
        "Which completions count. Usable: finished, not empty, and with the thought closed; metrics leave out all "
        "others. A thought is closed by force at watch_think_tokens, if that is set. Answers that were not judged count "
        "as neither right nor wrong."
    )
    columns = ["Lineage", "Stage", "Step", "Finished", "Usable", "Thought closed by force", "Not judged"]
    return Table(caption, columns, rows)


def held_out(report: Report) -> Table | None:
    """The overlap of the panel's prompts with the training data of each stage."""
    rows = []
    for name, meta in _metas(report):
        overlap = meta.get("held_out")
        if not isinstance(overlap, dict) or not isinstance(overlap.get("by_task"), dict):
            continue
        tasks = {task: t for task, t in overlap["by_task"].items() if isinstance(t, dict)}
        hits = [f"{task} {t['contaminated']} of {t['prompts']}" for task, t in tasks.items() if t.get("contaminated")]
        checked = sum(t.get("prompts", 0) for t in tasks.values())
        action = {"report": "kept"}.get(str((meta.get("settings") or {}).get("held_out")), "dropped")
        count = len(overlap.get("contaminated") or {})
        text = f"{count} {action}" if count else "none"
        rows.append(
            Row(
                [Cell(name), Cell(f"{overlap.get('rows', 0):,}"), Cell(str(checked)), Cell(text), Cell(", ".join(hits))]
            )
        )
    caption = (
        "Held out: prompts that share 13 consecutive words with the training data of their stage. The search covers twice "
        "as many prompts as are watched, so that dropped prompts are replaced"
    )
    columns = ["Stage", "Training rows", "Prompts checked", "Overlap", "By task"]
    return Table(caption, columns, rows, words=True) if rows else None


def mixes(report: Report) -> Table | None:
    """The training data of each stage by source."""
    rows = []
    for name, meta in _metas(report):
        mix = meta.get("mix")
        sources = mix.get("sources") if isinstance(mix, dict) else None
        if not isinstance(mix, dict) or not isinstance(sources, dict) or not sources:
            continue
        total = sum(s.get("taken", 0) for s in sources.values())
        for source, s in sorted(sources.items(), key=lambda pair: -pair[1].get("taken", 0)):
            share = s.get("taken", 0) / total if total else math.nan
            dropped = ", ".join(f"{reason} {n:,}" for reason, n in (s.get("dropped") or {}).items())
            counts = [Cell(f"{s.get(k, 0):,}") for k in ("read", "taken")]
            stage = Cell(name, f"{mix.get('name', '')} ({mix.get('kind', '')})")
            rows.append(Row([stage, Cell(source), *counts, Cell(percent(share, signed=False)), Cell(dropped)]))
    columns = ["Stage", "Source", "Rows read", "Trained on", "Share", "Dropped"]
    return Table("The training data by source", columns, rows, words=True) if rows else None


def differing(report: Report) -> Table | None:
    _, values, names = settings(report)
    rows = [Row([Cell(key), *(Cell(v) for v in row)]) for key, row in values]
    return Table("Settings that differ between stages", ["Setting", *names], rows, words=True) if rows else None


def panel(report: Report) -> Table | None:
    meta, prompts = _panel_of(report)
    if prompts.empty:
        return None
    rows = [
        Row([Cell(str(r["task"])), Cell(str(r["prompts"])), Cell(str(r["example"])[:160])])
        for r in prompts.to_dict("records")
    ]
    name, total = meta.get("name", ""), int(prompts["prompts"].sum())
    caption = f"Panel {name}: {total} held-out prompts, fingerprint {meta.get('fingerprint', '–')}"
    return Table(caption, ["Task", "Prompts", "Example"], rows, words=True)


def settings(report: Report) -> tuple[list[tuple[str, str]], list[tuple[str, list[str]]], list[str]]:
    """(settings that all runs share, settings that differ with one value per run, names of the runs)."""
    runs = _metas(report)
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


def _metas(report: Report) -> list[tuple[str, dict[str, Any]]]:
    """(lineage and stage, run.json) of every run, each once."""
    named = {
        run.directory: (f"{v.name} {stage_name(v.stages[n])}", run.meta)
        for v in report.lineages
        for n, run in enumerate(v.runs)
    }
    return list(named.values())


def _panel_of(report: Report) -> tuple[dict[str, Any], pd.DataFrame]:
    """The panel of the first run, and one row per task: how many prompts, and one of them."""
    meta = report.lineages[0].runs[0].meta.get("panel")
    meta = meta if isinstance(meta, dict) else {}
    prompts = pd.DataFrame([p for p in meta.get("prompts") or [] if isinstance(p, dict)])
    if prompts.empty or "task" not in prompts.columns:
        return meta, pd.DataFrame(columns=["task", "prompts", "example"])
    text = prompts["text"] if "text" in prompts.columns else prompts["task"].map(lambda _: "")
    grouped = prompts.assign(text=text).groupby("task", sort=False)
    return meta, grouped.agg(prompts=("id", "size"), example=("text", "first")).reset_index()


def _flatten(meta: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """run.json as `a.b` -> text, without the prompts themselves."""
    out: dict[str, str] = {}
    for key, value in meta.items():
        if prefix == "" and key in NOT_SETTINGS:
            continue
        name = f"{prefix}{key}"
        if prefix == "" and key == "mix" and isinstance(value, dict) and "sources" in value:
            value = {k: v for k, v in value.items() if k in ("name", "kind", "seed")}
        if isinstance(value, dict):
            out |= _flatten({k: v for k, v in value.items() if not (key == "panel" and k == "prompts")}, f"{name}.")
        else:
            out[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return out
