"""The page: tables and charts into one HTML file that needs nothing else, neither network nor fonts nor scripts."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

import pandas as pd

from divwatch.analysis import reference
from divwatch.report import build, narrative
from divwatch.report.build import Report, metric_name
from divwatch.report.charts import Drawer
from divwatch.report.findings import PARTS, WHOLE, Found
from divwatch.report.layout import stage_name
from divwatch.report.samples import examples
from divwatch.report.svg import DASHES
from divwatch.report.text import between, inert, number, percent

SECTIONS = [
    ("verdict", "Verdict"),
    ("curves", "The whole lineage"),
    ("kind", "What kind of change"),
    ("tasks", "Task by task"),
    ("quality", "Quality against diversity"),
    ("samples", "What the model said"),
    ("cost", "Cost"),
    ("settings", "Settings and panel"),
]
MARKS = {"correct": "✓", "wrong": "✗", "mixed": "~", "unusable": "!", "unjudged": "·"}


@dataclass
class Cell:
    """Text of a table cell, a second line below it (its interval), and a class that marks it."""

    text: str
    more: str = ""
    mark: str = ""


@dataclass
class Row:
    cells: list[Cell] = field(default_factory=list)
    head: bool = False


def render(report: Report, found: Sequence[Found], title: str, subtitle: str, foot: str) -> str:
    """The whole page as text."""
    drawer = Drawer(report)
    css, js, template = _assets()
    at_most = max(3, 15 // len(report.lineages))
    shared, differing, columns = build.settings(report)
    panel_meta, panel = build.panel(report)
    prompts = int(panel["prompts"].sum()) if len(panel) else 0
    values = {
        "report": report, "title": title, "subtitle": subtitle, "foot": foot, "sections": SECTIONS, "dashes": DASHES,
        "css": css, "js": js, "script_hash": base64.b64encode(hashlib.sha256(str(js).encode()).digest()).decode(),
        "names": metric_name, "marks": MARKS, "data": _data(report), "samples": _samples(report),
        "findings": narrative.statements(found, report), "cautions": narrative.cautions(report, found),
        "stage_columns": ["Stage", "Diversity", "Correct-answer diversity", "Accuracy", "Change of diversity", "Change of correct-answer diversity", "Onset", "Verdict"],
        "stage_rows": _stage_rows(report, found), "stage_caption": _stage_caption(report),
        "whole": drawer.whole(), "whole_columns": ["Lineage", "Stage", "Step", "Diversity", "Correct-answer diversity", "Accuracy", "Look"],
        "whole_rows": _whole_rows(report),
        "splits": drawer.splits(found), "split_text": _split_text(report), "split_rows": _split_rows(report), "split_columns": ["Lineage", "Stage", "Task", *PARTS.values(), "Prompts"],
        "multiples": drawer.multiples(report.tables["references"]), "task_text": _task_text(report),
        "task_columns": ["Lineage", "Task", "Stage", "Step", "Diversity", "Correct-answer diversity", "Prompts", "Accuracy"], "task_rows": _task_rows(report),
        "reference_rows": _reference_rows(report), "reference_columns": ["Task", "Lineage", "Stage", "Here", "Olmo 3 7B in the paper"], "reference_caption": f"Diversity (mean pairwise embedding distance) beside the published one: {reference.SOURCE}",
        "quality": drawer.quality(), "quality_columns": ["Lineage", "Stage", "Step", "Accuracy", "Majority", "pass@k", "Majority gain", "pass@k gain"],
        "quality_rows": _quality_rows(report),
        "spoken": [{"name": v.name, "examples": examples(v, f"diversity/{report.primary}", at_most=at_most)} for v in report.lineages],
        "cost_charts": drawer.cost(), "cost_columns": ["Lineage", "Stage", "Looks", "Failed", "Not comparable", "Seconds a look", "Sampling", "Scoring", "All looks", "Share of the run"],
        "cost_rows": _cost_rows(report),
        "shared": shared, "differing_columns": ["Setting", *columns], "differing_rows": [Row([Cell(key), *(Cell(v) for v in row)]) for key, row in differing],
        "panel_rows": [Row([Cell(r["task"]), Cell(str(r["prompts"])), Cell(str(r["example"])[:160])]) for r in panel.to_dict("records")],
        "panel_caption": f"Panel {panel_meta.get('name', '')}: {prompts} held-out prompts, fingerprint {panel_meta.get('fingerprint', '–')}",
    }  # fmt: skip
    return template.render(**values)


@lru_cache(maxsize=1)
def _assets() -> tuple[Any, Any, Any]:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files("divwatch.report")
    css, js, html = ((here / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html"))

    def finalize(value: Any) -> Any:
        # Every text of a run goes through here: autoescape then takes the markup, this the control characters.
        return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=finalize)
    return Markup(css), Markup(js), environment.from_string(html)


def _data(report: Report) -> dict[str, Any]:
    """What the read-outs need: for each task and key, per lineage, [mean, lo, hi, n] at each look."""
    listed = []
    places = {}
    for i, v in enumerate(report.lineages):
        looks = report.looks[report.looks["lineage"] == v.name]
        places |= {(v.name, n, s): j for j, (n, s) in enumerate(zip(looks["number"], looks["step"], strict=True))}
        stages, steps = [inert(stage_name(s)) for s in looks["stage"]], [int(s) for s in looks["step"]]
        x = [round(float(x), 5) for x in looks["x"]]
        listed.append(
            {
                "name": inert(v.name),
                "colour": v.colour,
                "x": x,
                "step": steps,
                "stage": stages,
                "status": list(looks["status"]),
                "i": i,
            }
        )
    index = {v.name: i for i, v in enumerate(report.lineages)}
    values: dict[str, Any] = {}
    shown = report.curves[
        report.curves["key"].str.split("/").str[0].isin(["diversity", "correct_diversity", "gain", "watch"])
        | (report.curves["key"] == "quality/accuracy")
    ]
    for row in shown.itertuples():
        cell = values.setdefault(inert(row.task), {}).setdefault(inert(row.key), [[None] * len(v["x"]) for v in listed])
        if not math.isnan(row.mean):
            numbers = [_short(row.mean), _short(row.lo), _short(row.hi), None if math.isnan(row.n) else int(row.n)]
            cell[index[row.lineage]][places[row.lineage, row.number, row.step]] = numbers
    return {"lineages": listed, "values": values}


def _short(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.4g}")


def _samples(report: Report) -> str:
    found = {str((run.meta.get("settings") or {}).get("samples", "K")) for v in report.lineages for run in v.runs}
    return "/".join(sorted(found))


def _value(row: pd.Series | dict | None, form: str = "number", digits: int = 3) -> Cell:
    if row is None or row["mean"] is None or math.isnan(row["mean"]):
        return Cell("–")
    if form == "percent":
        return Cell(percent(row["mean"], signed=False), between(row["lo"], row["hi"]).replace("+", ""))
    if form == "gain":
        return Cell(percent(row["mean"]), between(row["lo"], row["hi"]))
    return Cell(number(row["mean"], digits), between(row["lo"], row["hi"], "number", digits))


def _estimate(row: dict[str, Any], prefix: str) -> Cell:
    value = row[prefix]
    if value is None or math.isnan(value):
        return Cell("–")
    lo, hi = row[f"{prefix}_lo"], row[f"{prefix}_hi"]
    return Cell(percent(value), between(lo, hi), "lost" if hi < 0 else "")


def _stage_rows(report: Report, found: Sequence[Found]) -> list[Row]:
    kinds = {(f.lineage.name, n): narrative.tag_of(a) for f in found for n, a in enumerate(f.stages)}
    rows = []
    for r in report.tables["stages"].to_dict("records"):
        base = r["number"] < 0
        level = {
            k: {"mean": r[k], "lo": r[f"{k}_lo"], "hi": r[f"{k}_hi"]}
            for k in ("diversity", "correct_diversity", "accuracy")
        }
        correct = _value(level["correct_diversity"])
        if not math.isnan(r["correct_diversity_n"]):
            correct.more = f"{correct.more} · {int(r['correct_diversity_n'])} prompts".lstrip(" ·")
        step = "no comparable look" if r["step"] is None or math.isnan(r["step"]) else f"step {int(r['step'])}"
        cells = [
            Cell(f"{r['lineage']} · {stage_name(r['stage'])}", step),
            _value(level["diversity"]),
            correct,
            _value(level["accuracy"], "percent"),
        ]
        if base:
            cells += [Cell("")] * 4
        else:
            tag = kinds[r["lineage"], r["number"]]
            onset = narrative.first_onset(report, r["lineage"], r["number"])
            cells += [
                _estimate(r, "change"),
                _estimate(r, "correct_change"),
                _onset(onset),
                Cell(tag.text, mark=f"tag {tag.tone}"),
            ]
        rows.append(Row(cells, head=base))
    return rows


def _onset(flagged: dict[str, Any] | None) -> Cell:
    if flagged is None:
        return Cell("none flagged")
    which = "correct answers" if flagged["key"].startswith("correct") else "all outputs"
    return Cell(f"step {flagged['step']}", f"{between(flagged['lo'], flagged['hi'], 'step')} · {which}", "lost")


def _stage_caption(report: Report) -> str:
    name = metric_name(report.primary)
    return (
        f"Levels at the last comparable look of each stage: diversity is the {name}, correct-answer diversity the same over correct "
        "outputs of the prompts that have two. Brackets are 95 % intervals over prompts. Changes are shares of the base's level, "
        "over the prompts that every stage has, so that they add up. The onset is the last step before the fall, with its 90 % interval."
    )


def _split_text(report: Report) -> str:
    if report.tables["split"].empty:
        return "No split: it needs a verifier, so that outputs can be marked correct, and the embedding distance."
    return (
        "The change of the mean pairwise distance from the base to the end, split exactly. Quality control: fewer wrong answers, "
        "so fewer ways to be different. Genuine narrowing: correct answers became more alike. Cross narrowing: correct and wrong "
        "ones came closer. Error narrowing: the errors became more alike. As a share of the distance at the base; whiskers are 95 % intervals."
    )


def _split_rows(report: Report) -> list[Row]:
    rows = []
    for (lineage, stage, task), part in report.tables["split"].groupby(["lineage", "stage", "task"], sort=False):
        cells = [Cell(percent(r.value), between(r.lo, r.hi)) for r in part.itertuples()]
        rows.append(
            Row(
                [Cell(lineage), Cell(stage_name(stage)), Cell(task), *cells, Cell(str(int(part["n"].iloc[0])))],
                head=stage == WHOLE,
            )
        )
    return rows


def _task_text(report: Report) -> str:
    known = (
        ""
        if report.tables["references"].empty
        else " Diamonds are Olmo 3 7B as published, at the base and after each stage."
    )
    return f"Each task on its own: diversity, correct-answer diversity and accuracy on the same axis of stages.{known}"


def _reference_rows(report: Report) -> list[Row]:
    ends = {(r["lineage"], r["where"]): r for r in _ends(report)}
    rows = []
    at = {task: _at(report, task) for task in report.tasks}
    for r in report.tables["references"].to_dict("records"):
        end = ends.get((r["lineage"], r["where"]))
        here = at[r["task"]].get((end["lineage"], end["number"], end["step"], r["key"])) if end else None
        rows.append(
            Row(
                [
                    Cell(r["task"]),
                    Cell(r["lineage"]),
                    Cell(stage_name(r["where"])),
                    _value(here),
                    Cell(number(r["value"])),
                ]
            )
        )
    return rows


def _at(report: Report, task: str) -> dict[tuple, dict[str, Any]]:
    frame = report.curves[report.curves["task"] == task]
    return {(r["lineage"], r["number"], r["step"], r["key"]): r for r in frame.to_dict("records")}


def _whole_rows(report: Report) -> list[Row]:
    at, rows = _at(report, "all"), []
    keys = [
        (f"diversity/{report.primary}", "number"),
        (f"correct_diversity/{report.primary}", "number"),
        ("quality/accuracy", "percent"),
    ]
    for look in report.looks.to_dict("records"):
        place = (look["lineage"], look["number"], look["step"])
        status = look["status"].replace("_", " ")
        cells = [_value(at.get((*place, key)), form) for key, form in keys]
        rows.append(
            Row(
                [
                    Cell(look["lineage"]),
                    Cell(stage_name(look["stage"])),
                    Cell(str(look["step"])),
                    *cells,
                    Cell(status, look["reason"]),
                ]
            )
        )
    return rows


def _ends(report: Report) -> list[dict[str, Any]]:
    """The looks at the start of each lineage and at the end of each stage."""
    out = []
    usable = report.looks[report.looks["status"] != "failed"]
    for _, looks in usable.groupby("lineage", sort=False):
        out.append(looks.iloc[0].to_dict() | {"where": "base"})
        out += [
            part.iloc[-1].to_dict() | {"where": part.iloc[-1]["stage"]}
            for _, part in looks.groupby("number")
            if len(part)
        ]
    return out


def _task_rows(report: Report) -> list[Row]:
    rows = []
    for task in report.tasks:
        at = _at(report, task)
        for look in _ends(report):
            place = (look["lineage"], look["number"], look["step"])
            diversity, correct, accuracy = (
                at.get((*place, k))
                for k in (f"diversity/{report.primary}", f"correct_diversity/{report.primary}", "quality/accuracy")
            )
            prompts = Cell("–" if correct is None or math.isnan(correct["n"]) else str(int(correct["n"])))
            cells = [Cell(look["lineage"]), Cell(task), Cell(stage_name(look["where"])), Cell(str(look["step"]))]
            rows.append(Row([*cells, _value(diversity), _value(correct), prompts, _value(accuracy, "percent")]))
    return rows


def _quality_rows(report: Report) -> list[Row]:
    at, rows = _at(report, "all"), []
    for look in _ends(report):
        place = (look["lineage"], look["number"], look["step"])
        cells = [Cell(look["lineage"]), Cell(stage_name(look["where"])), Cell(str(look["step"]))]
        cells += [
            _value(at.get((*place, f"quality/{k}")), "percent") for k in ("accuracy", "majority_at_k", "pass_at_k")
        ]
        cells += [_value(at.get((*place, f"gain/{k}")), "gain") for k in ("majority", "pass")]
        rows.append(Row(cells))
    return rows


def _cost_rows(report: Report) -> list[Row]:
    rows = []
    for r in report.tables["cost"].to_dict("records"):
        share = r["total_seconds"] / r["elapsed_seconds"] if r["elapsed_seconds"] > 0 else math.nan
        seconds = [
            Cell(f"{r[k]:,.1f} s") for k in ("seconds_per_look", "sample_seconds", "score_seconds", "total_seconds")
        ]
        counts = [Cell(str(r[k])) for k in ("looks", "failed", "not_comparable")]
        rows.append(
            Row(
                [
                    Cell(r["lineage"]),
                    Cell(stage_name(r["stage"])),
                    *counts,
                    *seconds,
                    Cell(percent(share, signed=False)),
                ]
            )
        )
    return rows
