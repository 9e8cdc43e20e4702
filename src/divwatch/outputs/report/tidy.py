"""The tidy tables behind page, charts and CSV files: one row per look, stage, onset, change or part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from divwatch.analysis.assess import Assessment
from divwatch.analysis.intervals import bootstrap_means
from divwatch.analysis.stages import StageAttribution
from divwatch.outputs.report.findings import LineageFindings
from divwatch.outputs.report.layout import Lineage
from divwatch.store.attribution import first_comparable
from divwatch.tasks import published as reference

NAN = float("nan")
WHOLE = "whole lineage"
ONSET_COLUMNS = "lineage stage number task key step lo hi alarm_step colour x x_lo x_hi".split()
SPLIT_COLUMNS = "lineage stage number task part name distance distance_lo distance_hi value lo hi n".split()
PARTS = {
    "total": "sum of the parts",
    "quality_control": "quality control",
    "genuine_narrowing": "genuine narrowing",
    "cross_narrowing": "cross narrowing",
    "error_narrowing": "error narrowing",
}


def tidy_tables(
    findings: Sequence[LineageFindings], means: pd.DataFrame, looks: pd.DataFrame, primary: str, tasks: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """All tables by name. means, looks: of all lineages, as they were logged. primary: the metric of the alarm."""
    lineages = [f.lineage for f in findings]
    curves = pd.concat([means, *(gains(lineage) for lineage in lineages), _seconds(looks)], ignore_index=True)
    return {
        "curves": curves,
        "looks": looks,
        "cost": cost(looks),
        "stages": pd.concat([stage_table(f, curves, primary) for f in findings], ignore_index=True),
        "onsets": pd.DataFrame([row for f in findings for row in onset_rows(f)], columns=ONSET_COLUMNS),
        "changes": pd.DataFrame([row for f in findings for row in change_rows(f)]),
        "split": pd.DataFrame([row for f in findings for row in split_rows(f)], columns=SPLIT_COLUMNS),
        "references": references(lineages, tasks),
    }


def blame_table(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """A row for each look, source and task, of the runs that were watched with `watch_blame`; effects of the run so far."""
    rows = [
        {
            "lineage": v.name, "stage": v.stages[n], "step": line["step"], "source": source, "task": task,
            "effect": e["effect"], "lo": e["ci95"][0], "hi": e["ci95"][1], "instead": e["instead"],
            "instead_lo": e["instead_ci95"][0], "instead_hi": e["instead_ci95"][1],
        }
        for v in lineages
        for n, run in enumerate(v.runs)
        for line in run.blames()
        for source, tasks in line["sources"].items()
        for task, e in tasks.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def stage_table(findings: LineageFindings, curves: pd.DataFrame, primary: str) -> pd.DataFrame:
    """A row for the base and one a stage: levels at its last comparable look, `change` and `correct_change` within the
    stage, as the terminal shows them, and `share` and `correct_share`, what it took of the base's diversity."""
    lineage = findings.lineage
    own = curves[(curves["lineage"] == lineage.name) & (curves["task"] == "all")]
    at = {(r["number"], r["step"], r["key"]): r for r in own.to_dict("records")}
    keys = {g: f"{g}/{primary}" for g in ("diversity", "correct_diversity")} | {"accuracy": "quality/accuracy"}
    first = first_comparable(lineage.runs) or (0, 0)
    places = [
        (*first, lineage.base),
        *((n, run.last_comparable(), lineage.stages[n]) for n, run in enumerate(lineage.runs)),
    ]
    rows = []
    for place, (number, step, stage) in enumerate(places):
        row: dict[str, Any] = {"lineage": lineage.name, "stage": stage, "number": number if place else -1, "step": step}
        for name, key in keys.items():
            row |= _level(name, at.get((number, step, key), {}))
        assessment = findings.stages[number] if place else None
        for name, group in (("change", "diversity"), ("correct_change", "correct_diversity")):
            row |= _change(name, assessment, f"{group}/{primary}")
        for name, share in (("share", findings.attribution), ("correct_share", findings.correct_attribution)):
            row |= _share(name, share, stage)
        rows.append(row)
    return pd.DataFrame(rows)


def _level(name: str, look: dict[str, Any]) -> dict[str, float]:
    fields = {name: "mean", f"{name}_lo": "lo", f"{name}_hi": "hi", f"{name}_n": "n"}
    return {field: look.get(source, NAN) for field, source in fields.items()}


def _change(name: str, assessment: Assessment | None, key: str) -> dict[str, float]:
    status = assessment.statuses.get(("all", key)) if assessment else None
    if status is None or assessment is None or assessment.last_step == assessment.baseline_step:
        return {name: NAN, f"{name}_lo": NAN, f"{name}_hi": NAN}
    lo, hi = status.change_interval
    return {name: status.change, f"{name}_lo": lo, f"{name}_hi": hi}


def _share(name: str, attribution: StageAttribution | None, stage: str) -> dict[str, float]:
    if attribution is None:
        return {name: NAN, f"{name}_lo": NAN, f"{name}_hi": NAN}
    lo, hi = (attribution.interval or {}).get(stage, (NAN, NAN))
    return {name: attribution.share.get(stage, NAN), f"{name}_lo": lo, f"{name}_hi": hi}


def onset_rows(findings: LineageFindings) -> list[dict[str, Any]]:
    """One row per flagged series: where its fall began, in steps of the stage and on the pipeline axis (x)."""
    lineage, rows = findings.lineage, []
    for number, assessment in enumerate(findings.stages):
        for task, key, status in assessment.alarms if assessment else []:
            if status.onset_step is None or status.onset_interval is None:
                continue
            lo, hi = status.onset_interval
            x, x_lo, x_hi = (lineage.x(number, step) for step in (status.onset_step, lo, hi))
            row = _stage_of(lineage, number) | {"task": task, "key": key, "step": status.onset_step, "lo": lo, "hi": hi}
            row |= {"alarm_step": status.alarm_step, "colour": lineage.colour, "x": x, "x_lo": x_lo, "x_hi": x_hi}
            rows.append(row)
    return rows


def change_rows(findings: LineageFindings) -> list[dict[str, Any]]:
    """One row per stage, task and key: the change within the stage, against its own first look, and its alarm."""
    rows = []
    for number, assessment in enumerate(findings.stages):
        for (task, key), status in assessment.statuses.items() if assessment else []:
            lo, hi = status.change_interval
            row = _stage_of(findings.lineage, number) | {"task": task, "key": key, "change": status.change}
            row |= {"lo": lo, "hi": hi, "n": status.n, "collapsed": status.collapsed, "confirmed": status.confirmed}
            rows.append(row | {"alarm_step": status.alarm_step, "onset_step": status.onset_step})
    return rows


def split_rows(findings: LineageFindings) -> list[dict[str, Any]]:
    """One row per stage (the whole lineage first), task and part: in cosine distance, and as a share of the base's; the
    share is NaN where all outputs of the base are the same."""
    if findings.whole is None:
        return []
    lineage = findings.lineage
    base = {task: split.level for task, split in findings.whole.splits.items()}
    whole = {"lineage": lineage.name, "stage": WHOLE, "number": -1}
    rows = _part_rows(whole, findings.whole, base)
    if len(findings.stages) > 1:
        for number, assessment in enumerate(findings.stages):
            rows += _part_rows(_stage_of(lineage, number), assessment, base)
    return rows


def _part_rows(place: dict[str, Any], assessment: Assessment | None, base: dict[str, float]) -> list[dict[str, Any]]:
    rows = []
    for task, split in assessment.splits.items() if assessment else []:
        start = base.get(task) or NAN  # not 0
        for part, name in PARTS.items():
            value, (lo, hi) = getattr(split, part), split.intervals[part]
            row = place | {"task": task, "part": part, "name": name, "n": split.n_prompts}
            row |= {"distance": value, "distance_lo": lo, "distance_hi": hi}
            rows.append(row | {"value": value / start, "lo": lo / start, "hi": hi / start})
    return rows


def _stage_of(lineage: Lineage, number: int) -> dict[str, Any]:
    return {"lineage": lineage.name, "stage": lineage.stages[number], "number": number}


def gains(lineage: Lineage) -> pd.DataFrame:
    """What more samples add to accuracy, as rows of curves: `gain/majority` and `gain/pass`, the mean over tasks.

    Differences are taken per prompt, so that their intervals are paired.
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
    steps = list(table.columns)
    tasks = list(table.index.get_level_values("task"))
    means = bootstrap_means(table.to_numpy(), strata=tasks, bounds=[(-1.0, 1.0)] * len(steps))
    rows = pd.DataFrame(means, columns=["mean", "lo", "hi", "n"]).assign(step=steps, task="all", key=key)
    status = dict(zip(lineage.runs[number].looks["step"], lineage.runs[number].looks["status"], strict=True))
    rows["status"] = [status[s] for s in steps]
    rows["x"] = [lineage.x(number, s) for s in steps]
    return rows.assign(lineage=lineage.name, stage=lineage.stages[number], number=number, reason="").dropna(
        subset=["mean"]
    )


def _seconds(looks: pd.DataFrame) -> pd.DataFrame:
    rows = looks.dropna(subset=["total_seconds"]).rename(columns={"total_seconds": "mean"})
    rows = rows.assign(task="all", key="watch/seconds", lo=NAN, hi=NAN, n=NAN)
    return rows[["lineage", "stage", "number", "step", "x", "status", "task", "key", "mean", "lo", "hi", "n", "reason"]]


def cost(looks: pd.DataFrame) -> pd.DataFrame:
    """One row per stage: its looks by status and their seconds."""
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


def _seconds_between(first: Any, last: Any) -> float:
    try:
        if isinstance(first, str):
            return float((pd.Timestamp(last) - pd.Timestamp(first)).total_seconds())
        return float(last) - float(first)
    except (TypeError, ValueError):
        return float("nan")


def references(lineages: Sequence[Lineage], tasks: Sequence[str]) -> pd.DataFrame:
    """Published Olmo 3 diversity with its place on the pipeline axis: at the base, then at the end of each stage."""
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
    """The name of a stage in the published tables: its last word, and rl for RLVR and GRPO."""
    name = stage.lower().split(" ")[-1]
    return "rl" if name in ("rlvr", "grpo") else name


def _published(line: str, stage: str, task: str) -> float | None:
    return reference.sbert(line, published_stage(stage), task) if line else None
