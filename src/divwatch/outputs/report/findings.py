"""What the analysis says about each lineage and stage, as tables. No statistic is computed here, only asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from divwatch.analysis.assess import Assessment, assess
from divwatch.analysis.history import History
from divwatch.analysis.intervals import bootstrap_means
from divwatch.analysis.stages import StageAttribution
from divwatch.config import count_looks
from divwatch.outputs.report.build import Report
from divwatch.outputs.report.layout import Lineage
from divwatch.records import PromptScores
from divwatch.store.attribution import attribute_stages, first_comparable
from divwatch.store.tables import RunTables
from divwatch.tasks import published as reference

NAN = float("nan")
WHOLE = "whole lineage"
ONSET_COLUMNS = [
    "lineage",
    "stage",
    "number",
    "task",
    "key",
    "step",
    "lo",
    "hi",
    "alarm_step",
    "colour",
    "x",
    "x_lo",
    "x_hi",
]
SPLIT_COLUMNS = [
    "lineage",
    "stage",
    "number",
    "task",
    "part",
    "name",
    "distance",
    "distance_lo",
    "distance_hi",
    "value",
    "lo",
    "hi",
    "n",
]
PARTS = {
    "total": "all of it",
    "quality_control": "quality control",
    "genuine_narrowing": "genuine narrowing",
    "cross_narrowing": "cross narrowing",
    "error_narrowing": "error narrowing",
}


def assess_stage(run: RunTables) -> Assessment | None:
    """The analysis of one stage as the monitor made it live, against its own first look. None without scores."""
    looks = [(step, run.prompt_scores(step), ok) for step, ok in run.scored_looks()]
    return (
        assess(History.of(looks), _planned_looks(run), _setting(run, "alpha", 0.05), _setting(run, "min_drop", 0.05))
        if looks
        else None
    )


def assess_lineage(lineage: Lineage) -> Assessment | None:
    """The analysis of all stages joined, against the base. Steps count on from stage to stage."""
    looks: list[tuple[int, PromptScores, bool]] = []
    offset = 0
    for number, run in enumerate(lineage.runs):
        scored = run.scored_looks()
        # The first look of a later stage is the parent's last model, sampled again.
        scored = [(step, ok) for step, ok in scored if number == 0 or not looks or step > 0]
        looks += [(offset + step, run.prompt_scores(step), ok) for step, ok in scored]
        offset += run.max_steps
    alpha = _setting(lineage.runs[-1], "alpha", 0.05)
    planned = sum(_planned_looks(run) for run in lineage.runs)
    return assess(History.of(looks), max(planned, len(looks)), alpha, _min_drop(lineage)) if looks else None


def _planned_looks(run: RunTables) -> int:
    every = settings_of(run).get("every")
    if not isinstance(every, int | float) or every <= 0:
        return len(run.looks)
    return max(len(run.looks), count_looks(every, run.max_steps))


def _setting(run: RunTables, name: str, default: float) -> float:
    value = settings_of(run).get(name)
    return float(value) if isinstance(value, int | float) else default


def settings_of(run: RunTables) -> dict[str, Any]:
    settings = run.meta.get("settings")
    return settings if isinstance(settings, dict) else {}


def gains(lineage: Lineage) -> pd.DataFrame:
    """What more samples add to accuracy, as rows of curves: `gain/majority` and `gain/pass`, the mean over tasks.

    Differences are taken prompt by prompt, so that their intervals are paired.
    """
    frames = []
    for number, run in enumerate(lineage.runs):
        for key, column in (("gain/majority", "quality/majority_at_k"), ("gain/pass", "quality/pass_at_k")):
            if {column, "quality/accuracy"} <= set(run.scores.columns):
                values = run.scores.assign(gain=run.scores[column] - run.scores["quality/accuracy"])
                frames.append(_gain_rows(lineage, number, values, key))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _gain_rows(lineage: Lineage, number: int, values: pd.DataFrame, key: str) -> pd.DataFrame:
    table = values.pivot_table(index=["task", "id"], columns="step", values="gain", sort=False, dropna=False)
    found = bootstrap_means(table.to_numpy(), strata=list(table.index.get_level_values("task")))
    steps = list(table.columns)
    rows = pd.DataFrame(found, columns=["mean", "lo", "hi", "n"]).assign(step=steps, task="all", key=key)
    status = dict(zip(lineage.runs[number].looks["step"], lineage.runs[number].looks["status"], strict=True))
    rows["status"] = [status[s] for s in steps]
    rows["x"] = [lineage.x(number, s) for s in steps]
    return rows.assign(lineage=lineage.name, stage=lineage.stages[number], number=number, reason="").dropna(
        subset=["mean"]
    )


def references(lineages: Sequence[Lineage], tasks: Sequence[str]) -> pd.DataFrame:
    """Published Olmo 3 diversity at the place on the axis where it belongs: the base, then the end of each stage."""
    rows = []
    for v in lineages:
        for task in tasks:
            for number, (stage, slot) in enumerate(zip(v.stages, v.slots, strict=True)):
                places = [("base", slot), (stage, slot + 1)] if number == 0 else [(stage, slot + 1)]
                for name, x in places:
                    value = _published(v.published_line, name, task)
                    if value is not None:
                        rows.append([v.name, task, "diversity/sbert", name, x, value, v.colour])
    return pd.DataFrame(rows, columns=["lineage", "task", "key", "where", "x", "value", "colour"])


def published_stage(stage: str) -> str:
    """The stage's name in the published tables: the last word, RLVR under its old name."""
    name = stage.lower().split(" ")[-1]
    return "rl" if name in ("rlvr", "grpo") else name


def _published(line: str, stage: str, task: str) -> float | None:
    return reference.sbert(line, published_stage(stage), task) if line else None


def attribution(lineage: Lineage, key: str, numbers: Sequence[int] | None = None) -> StageAttribution | None:
    """The loss of `key` by stage (`attribute_stages`)."""
    return attribute_stages(lineage.runs, key, lineage.stages, numbers, _min_drop(lineage))


def own_stages(lineage: Lineage) -> list[int] | None:
    """The last stage of each kind, where a kind comes twice (Instruct SFT after Think SFT); None where none does."""
    last = {run.stage: number for number, run in enumerate(lineage.runs)}
    return sorted(last.values()) if len(last) < len(lineage.runs) else None


def stage_table(found: Found, report: Report) -> pd.DataFrame:
    """A row for the base and one a stage: levels at its last comparable look, and what of the base's level it took."""
    lineage, curves = found.lineage, report.curves
    own = curves[(curves["lineage"] == lineage.name) & (curves["task"] == "all")]
    at = {(r["number"], r["step"], r["key"]): r for r in own.to_dict("records")}
    keys = {g: f"{g}/{report.primary}" for g in ("diversity", "correct_diversity")} | {"accuracy": "quality/accuracy"}
    first = first_comparable(lineage.runs) or (0, 0)
    places = [(*first, "base"), *((n, run.last_comparable(), lineage.stages[n]) for n, run in enumerate(lineage.runs))]
    rows = []
    for place, (number, step, stage) in enumerate(places):
        row: dict[str, Any] = {"lineage": lineage.name, "stage": stage, "number": number if place else -1, "step": step}
        for name, key in keys.items():
            row |= _named(name, at.get((number, step, key), {}))
        for name, share in (("change", found.attribution), ("correct_change", found.correct_attribution)):
            row |= _share(name, share, stage)
        rows.append(row)
    return pd.DataFrame(rows)


def _named(name: str, look: dict[str, Any]) -> dict[str, float]:
    fields = {name: "mean", f"{name}_lo": "lo", f"{name}_hi": "hi", f"{name}_n": "n"}
    return {field: look.get(source, NAN) for field, source in fields.items()}


def _share(name: str, found: StageAttribution | None, stage: str) -> dict[str, float]:
    lo, hi = (found.interval or {}).get(stage, (NAN, NAN)) if found else (NAN, NAN)
    return {name: found.share.get(stage, NAN) if found else NAN, f"{name}_lo": lo, f"{name}_hi": hi}


@dataclass(frozen=True)
class Found:
    """What the analysis says of one lineage: of each stage, of all of it, and how the loss spreads over the stages.

    paper_attribution: as the paper counts, where the lineage starts from another line's checkpoint (`own_stages`).
    """

    lineage: Lineage
    stages: list[Assessment | None]
    whole: Assessment | None
    attribution: StageAttribution | None
    correct_attribution: StageAttribution | None
    paper_attribution: StageAttribution | None


def add(report: Report) -> list[Found]:
    """Asks the analysis about every lineage and fills the tables of the report."""
    report.curves = pd.concat(
        [report.curves, *(gains(v) for v in report.lineages), _seconds(report.looks)], ignore_index=True
    )
    assessed = {run.directory: assess_stage(run) for v in report.lineages for run in v.runs}
    found = [
        Found(
            v,
            [assessed[run.directory] for run in v.runs],
            assess_lineage(v),
            attribution(v, f"diversity/{report.primary}"),
            attribution(v, f"correct_diversity/{report.primary}"),
            attribution(v, f"diversity/{report.primary}", own) if (own := own_stages(v)) else None,
        )
        for v in report.lineages
    ]
    report.tables |= {
        "curves": report.curves,
        "stages": pd.concat([stage_table(f, report) for f in found], ignore_index=True),
        "onsets": pd.DataFrame([r for f in found for r in onset_rows(f.lineage, f.stages)], columns=ONSET_COLUMNS),
        "changes": pd.DataFrame([r for f in found for r in change_rows(f.lineage, f.stages)]),
        "split": pd.DataFrame([r for f in found for r in split_rows(f)], columns=SPLIT_COLUMNS),
        "references": references(report.lineages, report.tasks),
    }
    return found


def _seconds(looks: pd.DataFrame) -> pd.DataFrame:
    rows = looks.dropna(subset=["total_seconds"]).rename(columns={"total_seconds": "mean"})
    rows = rows.assign(task="all", key="watch/seconds", lo=NAN, hi=NAN, n=NAN)
    return rows[["lineage", "stage", "number", "step", "x", "status", "task", "key", "mean", "lo", "hi", "n", "reason"]]


def _min_drop(lineage: Lineage) -> float:
    return _setting(lineage.runs[-1], "min_drop", 0.05)


def onset_rows(lineage: Lineage, assessments: Sequence[Assessment | None]) -> list[dict[str, Any]]:
    """A row a flagged series of a stage: where its fall began, on the pipeline axis and in steps of the stage."""
    rows = []
    for number, found in enumerate(assessments):
        for task, key, status in found.alarms if found else []:
            if status.onset_step is None or status.onset_interval is None:
                continue
            lo, hi = status.onset_interval
            place = {
                "x": lineage.x(number, status.onset_step),
                "x_lo": lineage.x(number, lo),
                "x_hi": lineage.x(number, hi),
            }
            row = {"lineage": lineage.name, "stage": lineage.stages[number], "number": number, "task": task, "key": key}
            row |= {
                "step": status.onset_step,
                "lo": lo,
                "hi": hi,
                "alarm_step": status.alarm_step,
                "colour": lineage.colour,
            }
            rows.append(row | place)
    return rows


def change_rows(lineage: Lineage, assessments: Sequence[Assessment | None]) -> list[dict[str, Any]]:
    """A row a stage, task and key: the change within the stage, against its own first look, and what was flagged."""
    rows = []
    for number, found in enumerate(assessments):
        for (task, key), status in found.statuses.items() if found else []:
            lo, hi = status.change_interval
            row = {"lineage": lineage.name, "stage": lineage.stages[number], "number": number, "task": task, "key": key}
            row |= {"change": status.change, "lo": lo, "hi": hi, "n": status.n, "collapsed": status.collapsed}
            rows.append(
                row | {"confirmed": status.confirmed, "alarm_step": status.alarm_step, "onset_step": status.onset_step}
            )
    return rows


def split_rows(f: Found) -> list[dict[str, Any]]:
    """A row a stage (the whole lineage first), task and part: in cosine distance, and as a share of the base's."""
    if f.whole is None:
        return []
    base = {task: split.own.d_a[0].mean for task, split in f.whole.splits.items()}
    rows = _split_rows(f.lineage, WHOLE, -1, f.whole, base)
    for number, (stage, found) in enumerate(zip(f.lineage.stages, f.stages, strict=True)):
        if len(f.stages) > 1:
            rows += _split_rows(f.lineage, stage, number, found, base)
    return rows


def _split_rows(
    lineage: Lineage, stage: str, number: int, found: Assessment | None, base: dict[str, float]
) -> list[dict[str, Any]]:
    rows = []
    for task, split in found.splits.items() if found else []:
        start = base.get(task, NAN)
        for part, name in PARTS.items():
            value, (lo, hi) = getattr(split, part), split.intervals[part]
            row = {"lineage": lineage.name, "stage": stage, "number": number, "task": task, "part": part, "name": name}
            row |= {
                "distance": value,
                "distance_lo": lo,
                "distance_hi": hi,
                "value": value / start,
                "lo": lo / start,
                "hi": hi / start,
            }
            rows.append(row | {"n": split.n_prompts})
    return rows


def parent_missing(run: RunTables) -> bool:
    """Whether the first run of a lineage names a parent that could not be found."""
    return bool(run.meta.get("parent")) and run.parent is None
