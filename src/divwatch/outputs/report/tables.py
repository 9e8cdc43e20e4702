"""Tables of results: the numbers of the tidy tables as text, each with its interval below it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from divwatch.outputs.numbers import interval, number, percent
from divwatch.outputs.report import narrative
from divwatch.outputs.report.build import Report, metric_name
from divwatch.outputs.report.cells import Cell, Row, Table, level_cell, stage_ends
from divwatch.outputs.report.layout import stage_name
from divwatch.outputs.report.tidy import PARTS, WHOLE
from divwatch.tasks import published as reference
from divwatch.words import counted


def stages(report: Report) -> Table:
    """The table of stages: levels, changes, onset, verdict."""
    caption = (
        f"Levels at the last comparable look of each stage. Diversity is the {metric_name(report.primary)}; "
        "correct-answer diversity is the same over correct outputs, on the same prompts from look to look. A change is "
        "since the stage's first comparable look, as in the terminal. "
        "Brackets are 95 % intervals; those of changes include how much checkpoints vary by chance. The onset is the "
        "last step before a flagged fall, with its 90 % interval."
    )
    columns = ["Stage", "Diversity", "Correct-answer diversity", "Accuracy", "Change in the stage"]
    columns += ["Change among correct answers", "Onset", "Verdict"]
    kinds = {
        (f.lineage.name, n): narrative.tag_of(a, f.lineage.runs[n])
        for f in report.findings
        for n, a in enumerate(f.stages)
    }
    flagged = {
        (f.lineage.name, n, key) for f in report.findings for n, a in enumerate(f.stages) if a for _, key, _ in a.alarms
    }
    rows = []
    starts = {f.lineage.name: narrative.later_start(f.lineage) for f in report.findings}
    for r in report.tables["stages"].to_dict("records"):
        place = r["lineage"], r["number"]
        if r["number"] < 0:
            first = _levels(r)
            if starts[r["lineage"]]:
                first[0] = Cell(f"{r['lineage']} · start", starts[r["lineage"]])
            rows.append(Row([*first, *[Cell("")] * 4], head=True))
            continue
        changes = [
            _change(r, name, (*place, f"{group}/{report.primary}") in flagged)
            for name, group in (("change", "diversity"), ("correct_change", "correct_diversity"))
        ]
        tag = kinds[place]
        onset = _onset(narrative.panel_onset(report, *place))
        rows.append(Row([*_levels(r), *changes, onset, Cell(tag.text, mark=f"tag {tag.tone}")]))
    return Table(caption, columns, rows)


def _levels(r: dict[str, Any]) -> list[Cell]:
    step = "no comparable look" if math.isnan(r["step"]) else f"step {int(r['step'])}"
    name = Cell(f"{r['lineage']} · {stage_name(r['stage'])}", step)
    level = {k: level_cell(_prefixed(r, k)) for k in ("diversity", "correct_diversity")}
    if not math.isnan(r["correct_diversity_n"]):
        level["correct_diversity"].more += f" · {counted(int(r['correct_diversity_n']), 'prompt')}"
    return [name, level["diversity"], level["correct_diversity"], level_cell(_prefixed(r, "accuracy"), "percent")]


def _prefixed(r: dict[str, Any], name: str) -> dict[str, float]:
    return {"mean": r[name], "lo": r[f"{name}_lo"], "hi": r[f"{name}_hi"]}


def _change(r: dict[str, Any], name: str, flagged: bool) -> Cell:
    mark = "lost" if flagged and r[name] < 0 else ""
    return Cell(percent(r[name]), interval(r[f"{name}_lo"], r[f"{name}_hi"]), mark)


def _onset(onset: dict[str, Any] | None) -> Cell:
    if onset is None:
        return Cell("none flagged")
    which = "correct answers" if onset["key"].startswith("correct") else "all outputs"
    return Cell(f"step {onset['step']}", f"{interval(onset['lo'], onset['hi'], 'step')} · {which}", "lost")


def views(report: Report) -> Table | None:
    """For lineages that start from another line's checkpoint: the change by ancestry, and as the paper counts it."""
    rows = []
    for f in report.findings:
        for name, a in (("by ancestry", f.attribution), ("as in the paper", f.paper_attribution)):
            if f.paper_attribution is not None and a is not None:
                shares = ", ".join(narrative.share_text(a, stage) for stage in a.order[1:])
                rows.append(Row([Cell(f.lineage.name), Cell(name), Cell(shares)]))
    caption = (
        "Change of diversity by stage, as shares of the base's. The paper counts everything from the base to a line's "
        "own stage for that stage, even if the stage starts from another line's checkpoint."
    )
    return Table(caption, ["Lineage", "Counted", "Loss"], rows, words=True) if rows else None


def curves(report: Report) -> Table:
    """Every look, all tasks together."""
    at = _at(report, "all")
    rows = []
    for look in report.looks.to_dict("records"):
        cells = [Cell(look["lineage"]), Cell(stage_name(look["stage"])), Cell(str(look["step"]))]
        cells += [level_cell(at.get((*_place(look), key)), form) for key, form in _keys(report)]
        rows.append(Row([*cells, Cell(look["status"].replace("_", " "), look["reason"])]))
    columns = ["Lineage", "Stage", "Step", "Diversity", "Correct-answer diversity", "Accuracy", "Look"]
    return Table("Mean over tasks at every look, with its 95 % interval", columns, rows)


def split(report: Report) -> Table:
    rows = []
    table = report.tables["split"]
    for (lineage, stage, task), part in table.groupby(["lineage", "stage", "task"], sort=False):
        cells = [Cell(percent(r["value"]), interval(r["lo"], r["hi"])) for r in part.to_dict("records")]
        names = [Cell(lineage), Cell(stage_name(stage)), Cell(task)]
        rows.append(Row([*names, *cells, Cell(str(int(part["n"].iloc[0])))], head=stage == WHOLE))
    caption = "Change of the mean pairwise distance and its parts by task, as shares of the distance at the base"
    return Table(caption, ["Lineage", "Stage", "Task", *PARTS.values(), "Prompts"], rows)


def tasks(report: Report) -> Table:
    rows = []
    ends = stage_ends(report)
    for task in report.tasks:
        at = _at(report, task)
        for look in ends:
            everything, correct, accuracy = (at.get((*_place(look), key)) for key, _ in _keys(report))
            prompts = Cell("–" if correct is None or math.isnan(correct["n"]) else str(int(correct["n"])))
            cells = [Cell(task), Cell(look["lineage"]), Cell(stage_name(look["where"])), Cell(str(look["step"]))]
            rows.append(
                Row([*cells, level_cell(everything), level_cell(correct), prompts, level_cell(accuracy, "percent")])
            )
    columns = ["Task", "Lineage", "Stage", "Step", "Diversity", "Correct-answer diversity", "Prompts", "Accuracy"]
    caption = "Each task at the base and at the end of each stage. Prompts: those with at least two correct outputs"
    return Table(caption, columns, rows)


def references(report: Report) -> Table | None:
    """Diversity of these runs beside the published values, where tasks match."""
    ends = {(r["lineage"], r["where"]): r for r in stage_ends(report)}
    at = {task: _at(report, task) for task in report.tasks}
    rows = []
    for r in report.tables["references"].to_dict("records"):
        end = ends.get((r["lineage"], r["where"]))
        here = at[r["task"]].get((*_place(end), r["key"])) if end else None
        names = [Cell(r["task"]), Cell(r["lineage"]), Cell(stage_name(r["where"]))]
        rows.append(Row([*names, level_cell(here), Cell(number(r["value"]))]))
    caption = f"Mean pairwise embedding distance of these runs and as published for Olmo 3 7B: {reference.SOURCE}"
    return Table(caption, ["Task", "Lineage", "Stage", "Here", "Olmo 3 7B"], rows) if rows else None


def published(report: Report) -> Table | None:
    """What the paper reports for the lines on this page: shares of the base's diversity, mean over 15 tasks."""
    rows = []
    for line in dict.fromkeys(line for v in report.lineages if (line := v.published_line)):
        shares = [1.0] + [reference.retained(line, stage) or math.nan for stage in ("sft", "dpo", "rl")]
        lost = [Cell(percent(b - a)) for a, b in pairwise(shares)]
        rows.append(Row([Cell(line), *lost, Cell(percent(shares[-1], signed=False))]))
    caption = f"Olmo 3 7B on 15 tasks: change of diversity by stage, as shares of the base's ({reference.SOURCE})"
    return Table(caption, ["Line", "SFT", "DPO", "RL", "Retained"], rows) if rows else None


def quality(report: Report) -> Table:
    at = _at(report, "all")
    rows = []
    for look in stage_ends(report):
        cells = [Cell(look["lineage"]), Cell(stage_name(look["where"])), Cell(str(look["step"]))]
        cells += [
            level_cell(at.get((*_place(look), f"quality/{k}")), "percent")
            for k in ("accuracy", "majority_at_k", "pass_at_k")
        ]
        cells += [level_cell(at.get((*_place(look), f"gain/{k}")), "gain") for k in ("majority", "pass")]
        rows.append(Row(cells))
    columns = ["Lineage", "Stage", "Step", "Accuracy", "Majority", "pass@k", "Majority gain", "pass@k gain"]
    caption = "Accuracy and the gain from more samples, at the base and at the end of each stage"
    return Table(caption, columns, rows)


def _keys(report: Report) -> list[tuple[str, str]]:
    groups = [(f"{group}/{report.primary}", "number") for group in ("diversity", "correct_diversity")]
    return [*groups, ("quality/accuracy", "percent")]


def _at(report: Report, task: str) -> dict[tuple, dict[Any, Any]]:
    """Rows of the curves of a task by lineage, stage number, step and key."""
    frame = report.curves[report.curves["task"] == task]
    return {(*_place(r), r["key"]): r for r in frame.to_dict("records")}


def _place(row: dict[Any, Any]) -> tuple[Any, Any, Any]:
    return row["lineage"], row["number"], row["step"]
