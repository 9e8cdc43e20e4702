"""What the analysis says about each lineage and stage, as tables and as sentences. No statistic is computed here."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from divwatch.report.build import Report
from divwatch.report.layout import Lineage

STAGE_CAPTION = "Means over tasks with 95 % intervals over prompts; changes are against the start of the stage."


def add(report: Report) -> None:
    """Fills `report.tables` with stages, onsets and gains."""
    report.tables["onsets"] = _onsets(report)
    report.tables["references"] = pd.DataFrame(columns=["task", "key", "x", "value", "colour"])
    report.tables["stages"] = pd.concat([_stages(report, v) for v in report.lineages], ignore_index=True)


def sentences(report: Report) -> list[dict[str, Any]]:
    return [{"lineage": v.name, "tone": "collapse", "tag": "collapse", "sentences": [f"{v.name} lost diversity."]} for v in report.lineages]


def cautions(report: Report) -> list[str]:
    return report.notes


def _onsets(report: Report) -> pd.DataFrame:
    rows = []
    for v in report.lineages:
        for number, run in enumerate(v.runs):
            for e in run.events:
                lo, hi = e["onset_interval"]
                rows.append({"lineage": v.name, "stage": v.stages[number], "task": e["task"], "key": e["key"], "onset_step": e["onset_step"],
                             "x": v.x(number, e["onset_step"]), "x_lo": v.x(number, lo), "x_hi": v.x(number, hi), "lo": lo, "hi": hi, "colour": v.colour})
    return pd.DataFrame(rows, columns=["lineage", "stage", "task", "key", "onset_step", "lo", "hi", "x", "x_lo", "x_hi", "colour"])


def _stages(report: Report, v: Lineage) -> pd.DataFrame:
    rows = []
    for number, run in enumerate(v.runs):
        frame = report.curves[(report.curves["lineage"] == v.name) & (report.curves["number"] == number) & (report.curves["task"] == "all")]
        steps = sorted(frame["step"].unique())
        for first, step in [(True, steps[0])] * (number == 0) + [(False, steps[-1])]:
            at = {r["key"]: r for r in frame[frame["step"] == step].to_dict("records")}
            row = {"lineage": v.name, "stage": "start" if first else v.stages[number], "first": first, "steps": f"step {step}", "verdict": ""}
            for name, key in (("diversity", f"diversity/{report.primary}"), ("correct_diversity", f"correct_diversity/{report.primary}"), ("accuracy", "quality/accuracy")):
                r = at.get(key, {"mean": math.nan, "lo": math.nan, "hi": math.nan, "n": math.nan})
                row |= {name: r["mean"], f"{name}_lo": r["lo"], f"{name}_hi": r["hi"]}
                if name == "correct_diversity":
                    row["correct_prompts"] = r["n"]
            for k in ("change", "correct_change"):
                row |= {k: math.nan, f"{k}_lo": math.nan, f"{k}_hi": math.nan}
            row |= {"onset_step": math.nan, "onset_lo": math.nan, "onset_hi": math.nan}
            rows.append(row)
    return pd.DataFrame(rows)
