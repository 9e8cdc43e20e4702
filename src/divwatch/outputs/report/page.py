"""The page: one HTML file of tables, charts and samples that needs no network, font or library."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from divwatch.outputs.charts.area import DASHES
from divwatch.outputs.report import narrative, record_tables, tables
from divwatch.outputs.report.blame import blame_sections
from divwatch.outputs.report.build import Report, metric_name
from divwatch.outputs.report.charts import Charts
from divwatch.outputs.report.findings import settings_of
from divwatch.outputs.report.layout import stage_name
from divwatch.outputs.report.lost import lost_answers
from divwatch.outputs.report.next_steps import next_steps
from divwatch.outputs.report.samples import examples
from divwatch.outputs.report.verdict_charts import verdict_charts
from divwatch.outputs.text import inert

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
BLAME = ("blame", "Which data narrow it")  # only where a run was watched with watch_blame
MARKS = {"correct": "✓", "wrong": "✗", "mixed": "~", "unusable": "!", "unjudged": "·"}
CROWDED = 4  # lineages from which on charts and answers do not stand beside the verdicts
EXAMPLES = 15  # sample prompts on the page, over all lineages
TOOLTIPS = {"diversity", "correct_diversity", "gain", "watch"}  # groups of keys that charts show


def render(report: Report, charts: Charts, title: str, subtitle: str, foot: str) -> str:
    """The whole page as text."""
    css, js, template = _assets()
    each = max(3, EXAMPLES // len(report.lineages))
    blamed = blame_sections(report.lineages)
    spoken = [(v, *examples(v, f"diversity/{report.primary}", at_most=each)) for v in report.lineages]
    return template.render(
        report=report,
        title=title,
        subtitle=subtitle,
        foot=foot,
        sections=[*SECTIONS, BLAME] if blamed else SECTIONS,
        blamed=blamed,
        css=css,
        js=js,
        script_hash=base64.b64encode(hashlib.sha256(str(js).encode()).digest()).decode(),
        data=_tooltips(report),
        names=metric_name,
        dashes=DASHES,
        marks=MARKS,
        samples=_samples(report),
        verdicts=_verdicts(report, spoken),
        cautions=narrative.cautions(report),
        stages=tables.stages(report),
        views=tables.views(report),
        published=tables.published(report),
        charts=charts,
        curves=tables.curves(report),
        split=tables.split(report),
        tasks=tables.tasks(report),
        references=tables.references(report),
        quality=tables.quality(report),
        outputs=record_tables.outputs(report),
        spoken=spoken,
        cost=record_tables.cost(report),
        shared=record_tables.settings(report)[0],
        differing=record_tables.differing(report),
        panel=record_tables.panel(report),
        held_out=record_tables.held_out(report),
        mixes=record_tables.mixes(report),
    )


def _verdicts(report: Report, spoken: Sequence[Any]) -> list[dict[str, Any]]:
    """What stands at the top for each lineage: its statement, chart, lost answers and next steps."""
    few = len(report.lineages) < CROWDED
    drawn = verdict_charts(report) if few else [None] * len(report.lineages)
    return [
        {
            "said": statement,
            "chart": chart,
            "lost": lost_answers(looks, prompts, f.whole) if few else None,
            "steps": next_steps(f),
        }
        for f, statement, chart, (_, looks, prompts) in zip(
            report.findings, narrative.statements(report), drawn, spoken, strict=True
        )
    ]


@lru_cache(maxsize=1)
def _assets() -> tuple[Any, Any, Any]:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here, drawing = files("divwatch.outputs.report"), files("divwatch.outputs.charts") / "charts.css"
    css, js, html = ((here / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html"))
    css = drawing.read_text(encoding="utf-8") + css

    def finalize(value: Any) -> Any:
        # Every text of a run passes here: this replaces control characters, and autoescape then escapes markup.
        return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=finalize, trim_blocks=True)
    return Markup(css), Markup(js), environment.from_string(html)


def _tooltips(report: Report) -> dict[str, Any]:
    """The data of the tooltips: for each task and key and lineage, [mean, lo, hi, n] at each look."""
    listed: list[dict[str, Any]] = []
    place: dict[tuple, tuple[int, int]] = {}
    for i, v in enumerate(report.lineages):
        looks = report.looks[report.looks["lineage"] == v.name]
        place |= {(v.name, n, s): (i, j) for j, (n, s) in enumerate(zip(looks["number"], looks["step"], strict=True))}
        listed.append(
            {
                "name": inert(v.name),
                "colour": v.colour,
                "x": [round(float(x), 5) for x in looks["x"]],
                "step": [int(s) for s in looks["step"]],
                "stage": [inert(stage_name(s)) for s in looks["stage"]],
                "status": [inert(s) for s in looks["status"]],
            }
        )
    values: dict[str, Any] = {}
    shown = report.curves["key"].str.split("/").str[0].isin(TOOLTIPS) | (report.curves["key"] == "quality/accuracy")
    for r in report.curves[shown].dropna(subset=["mean"]).to_dict("records"):
        keys = values.setdefault(inert(r["task"]), {})
        rows = keys.setdefault(inert(r["key"]), [[None] * len(v["x"]) for v in listed])
        i, j = place[r["lineage"], r["number"], r["step"]]
        rows[i][j] = [*(_short(r[k]) for k in ("mean", "lo", "hi")), None if math.isnan(r["n"]) else int(r["n"])]
    return {"lineages": listed, "values": values}


def _short(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.4g}")


def _samples(report: Report) -> str:
    counts = {str(settings_of(run).get("samples", "K")) for v in report.lineages for run in v.runs}
    return "/".join(sorted(counts))
