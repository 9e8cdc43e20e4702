"""The tables of the page: numbers of the tidy tables as text, each with its interval below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from divwatch.outputs.numbers import interval, number, percent
from divwatch.outputs.report import build, narrative
from divwatch.outputs.report.build import Report, metric_name
from divwatch.outputs.report.findings import PARTS, WHOLE, Found
from divwatch.outputs.report.layout import stage_name
from divwatch.store.reader import SCORED
from divwatch.tasks import published as reference


@dataclass
class Cell:
    """Text of a table cell, a second line below it (its interval), and a class that marks it."""

    text: str
    more: str = ""
    mark: str = ""


@dataclass
class Row:
    cells: list[Cell]
    head: bool = False


@dataclass
class Table:
    """`words`: cells hold text rather than numbers, so they are set from the left."""

    caption: str
    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    words: bool = False


def stages(report: Report, found: Sequence[Found]) -> Table:
    """The table of stages: levels, changes, onset, verdict."""
    caption = (
        f"Levels at the last comparable look of each stage. Diversity is the {metric_name(report.primary)}, "
        "correct-answer diversity the same over correct outputs of the prompts that have two. Changes are shares of "
        "the base's level over the prompts that every stage has, so they add up. Brackets are 95 % intervals; those of "
        "changes hold the wobble of checkpoints too. The onset is the last step before the fall that was flagged, with "
        "its 90 % interval."
    )
    columns = ["Stage", "Diversity", "Correct-answer diversity", "Accuracy", "Change of diversity"]
    columns += ["Change of correct-answer diversity", "Onset", "Verdict"]
    kinds = {(f.lineage.name, n): narrative.tag_of(a, f.lineage.runs[n]) for f in found for n, a in enumerate(f.stages)}
    flagged = {(f.lineage.name, n, key) for f in found for n, a in enumerate(f.stages) if a for _, key, _ in a.alarms}
    rows = []
    starts = {f.lineage.name: narrative.later_start(f.lineage) for f in found}
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
    level = {k: _value(_prefixed(r, k)) for k in ("diversity", "correct_diversity")}
    if not math.isnan(r["correct_diversity_n"]):
        level["correct_diversity"].more += f" · {int(r['correct_diversity_n'])} prompts"
    return [name, level["diversity"], level["correct_diversity"], _value(_prefixed(r, "accuracy"), "percent")]


def _prefixed(r: dict[str, Any], name: str) -> dict[str, float]:
    return {"mean": r[name], "lo": r[f"{name}_lo"], "hi": r[f"{name}_hi"]}


def _change(r: dict[str, Any], name: str, flagged: bool) -> Cell:
    return Cell(percent(r[name]), interval(r[f"{name}_lo"], r[f"{name}_hi"]), "lost" if flagged else "")


def _onset(onset: dict[str, Any] | None) -> Cell:
    if onset is None:
        return Cell("none flagged")
    which = "correct answers" if onset["key"].startswith("correct") else "all outputs"
    return Cell(f"step {onset['step']}", f"{interval(onset['lo'], onset['hi'], 'step')} · {which}", "lost")


def views(found: Sequence[Found]) -> Table | None:
    """For lineages that start from another line's checkpoint: the loss by ancestry, and as the paper counts it."""
    rows = []
    for f in found:
        for name, a in (("by ancestry", f.attribution), ("as in the paper", f.paper_attribution)):
            if f.paper_attribution is not None and a is not None:
                shares = ", ".join(narrative.share_text(a, stage) for stage in a.order[1:])
                rows.append(Row([Cell(f.lineage.name), Cell(name), Cell(shares)]))
    caption = (
        "Diversity lost by stage, as shares of the base's. The paper counts everything from the base to a line's own "
        "stage as that stage's, also where it starts from another line's checkpoint."
    )
    return Table(caption, ["Lineage", "Counted", "Loss"], rows, words=True) if rows else None


def curves(report: Report) -> Table:
    """Every look, all tasks together."""
    at = _at(report, "all")
    rows = []
    for look in report.looks.to_dict("records"):
        cells = [Cell(look["lineage"]), Cell(stage_name(look["stage"])), Cell(str(look["step"]))]
        cells += [_value(at.get((*_place(look), key)), form) for key, form in _keys(report)]
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
    caption = "Change of the mean pairwise distance and its parts, as shares of the distance at the base, task by task"
    return Table(caption, ["Lineage", "Stage", "Task", *PARTS.values(), "Prompts"], rows)


def tasks(report: Report) -> Table:
    rows = []
    ends = _ends(report)
    for task in report.tasks:
        at = _at(report, task)
        for look in ends:
            found = [at.get((*_place(look), key)) for key, _ in _keys(report)]
            correct = found[1]
            prompts = Cell("–" if correct is None or math.isnan(correct["n"]) else str(int(correct["n"])))
            cells = [Cell(task), Cell(look["lineage"]), Cell(stage_name(look["where"])), Cell(str(look["step"]))]
            rows.append(Row([*cells, _value(found[0]), _value(correct), prompts, _value(found[2], "percent")]))
    columns = ["Task", "Lineage", "Stage", "Step", "Diversity", "Correct-answer diversity", "Prompts", "Accuracy"]
    caption = "Each task at the base and at the end of each stage; prompts are those with two correct outputs"
    return Table(caption, columns, rows)


def references(report: Report) -> Table | None:
    """Diversity of this run beside the published one, where tasks match."""
    ends = {(r["lineage"], r["where"]): r for r in _ends(report)}
    at = {task: _at(report, task) for task in report.tasks}
    rows = []
    for r in report.tables["references"].to_dict("records"):
        end = ends.get((r["lineage"], r["where"]))
        here = at[r["task"]].get((*_place(end), r["key"])) if end else None
        names = [Cell(r["task"]), Cell(r["lineage"]), Cell(stage_name(r["where"]))]
        rows.append(Row([*names, _value(here), Cell(number(r["value"]))]))
    caption = f"Mean pairwise embedding distance here and as published for Olmo 3 7B: {reference.SOURCE}"
    return Table(caption, ["Task", "Lineage", "Stage", "Here", "Olmo 3 7B"], rows) if rows else None


def published(report: Report) -> Table | None:
    """What the paper found for the lines that are shown: shares of the base's diversity, mean of 15 tasks."""
    rows = []
    for line in dict.fromkeys(line for v in report.lineages if (line := v.published_line)):
        kept = [1.0] + [reference.retained(line, stage) or math.nan for stage in ("sft", "dpo", "rl")]
        lost = [Cell(percent(b - a)) for a, b in pairwise(kept)]
        rows.append(Row([Cell(line), *lost, Cell(percent(kept[-1], signed=False))]))
    caption = f"Olmo 3 7B on 15 tasks: change of diversity by stage, as shares of the base's ({reference.SOURCE})"
    return Table(caption, ["Line", "SFT", "DPO", "RL", "Left"], rows) if rows else None


def quality(report: Report) -> Table:
    at = _at(report, "all")
    rows = []
    for look in _ends(report):
        cells = [Cell(look["lineage"]), Cell(stage_name(look["where"])), Cell(str(look["step"]))]
        cells += [
            _value(at.get((*_place(look), f"quality/{k}")), "percent")
            for k in ("accuracy", "majority_at_k", "pass_at_k")
        ]
        cells += [_value(at.get((*_place(look), f"gain/{k}")), "gain") for k in ("majority", "pass")]
        rows.append(Row(cells))
    columns = ["Lineage", "Stage", "Step", "Accuracy", "Majority", "pass@k", "Majority gain", "pass@k gain"]
    caption = "Accuracy, and what more samples add to it, at the base and at the end of each stage"
    return Table(caption, columns, rows)


def cost(report: Report) -> Table:
    rows = []
    for r in report.tables["cost"].to_dict("records"):
        share = r["total_seconds"] / r["elapsed_seconds"] if r["elapsed_seconds"] > 0 else math.nan
        parts = ("seconds_per_look", "total_seconds", "sample_seconds", "score_seconds")
        seconds = [Cell(f"{r[k]:,.1f} s") for k in parts]
        counts = [Cell(str(r[k])) for k in ("looks", "failed", "unscored", "not_comparable")]
        stage = [Cell(r["lineage"]), Cell(stage_name(r["stage"]))]
        rows.append(Row([*stage, *counts, seconds[0], seconds[1], Cell(percent(share, signed=False)), *seconds[2:]]))
    columns = ["Lineage", "Stage", "Looks", "Failed", "Not scored", "Not comparable", "Waited a look"]
    columns += ["Waited in all", "Share of the run", "Sampling", "Scoring"]
    caption = (
        "How long training waited for its looks (a look: the median), and what share that is of the time from the first "
        "look to the last. Sampling is part of the wait; scoring goes on beside training, unless watch_background is off."
    )
    return Table(caption, columns, rows)


def outputs(report: Report) -> Table | None:
    """Which completions count: finished, usable, with a thought closed by force, judged."""
    if report.looks["usable_share"].isna().all():
        return None
    rows = []
    for look in _ends(report):
        shares = [Cell(percent(look[k], signed=False)) for k in ("finished_share", "usable_share", "closed_share")]
        reasons = narrative.unjudged([look["unjudged"]])
        told = Cell(str(sum(n for _, n in reasons)), "; ".join(f"{reason} ({n})" for reason, n in reasons[:3]))
        rows.append(
            Row([Cell(look["lineage"]), Cell(stage_name(look["where"])), Cell(str(look["step"])), *shares, told])
        )
    caption = (
        "Which completions count. Usable: finished, not empty, the thought closed; the others are left out of every "
        "metric. A thought is closed by force where watch_think_tokens is set. Answers that were not judged count as "
        "neither right nor wrong."
    )
    columns = ["Lineage", "Stage", "Step", "Finished", "Usable", "Thought closed by force", "Not judged"]
    return Table(caption, columns, rows)


def held_out(report: Report) -> Table | None:
    """What the search of the training data for the panel's prompts found, stage by stage."""
    rows = []
    for name, meta in build.metas(report):
        found = meta.get("held_out")
        if not isinstance(found, dict) or not isinstance(found.get("by_task"), dict):
            continue
        tasks = {task: t for task, t in found["by_task"].items() if isinstance(t, dict)}
        hits = [f"{task} {t['contaminated']} of {t['prompts']}" for task, t in tasks.items() if t.get("contaminated")]
        asked = sum(t.get("prompts", 0) for t in tasks.values())
        what = {"report": "kept"}.get(str((meta.get("settings") or {}).get("held_out")), "dropped")
        count = len(found.get("contaminated") or {})
        told = f"{count} {what}" if count else "none"
        rows.append(
            Row([Cell(name), Cell(f"{found.get('rows', 0):,}"), Cell(str(asked)), Cell(told), Cell(", ".join(hits))])
        )
    caption = (
        "Held out: prompts that share 13 running words with the training data of their stage. Twice as many prompts are "
        "searched for as are watched, so that those dropped are replaced"
    )
    columns = ["Stage", "Training rows", "Prompts searched for", "Overlap", "By task"]
    return Table(caption, columns, rows, words=True) if rows else None


def mixes(report: Report) -> Table | None:
    """What each stage was trained on, source by source."""
    rows = []
    for name, meta in build.metas(report):
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
    return Table("The training data, source by source", columns, rows, words=True) if rows else None


def differing(report: Report) -> Table | None:
    _, values, names = build.settings(report)
    rows = [Row([Cell(key), *(Cell(v) for v in row)]) for key, row in values]
    return Table("What differs between the stages", ["Setting", *names], rows, words=True) if rows else None


def panel(report: Report) -> Table | None:
    meta, prompts = build.panel(report)
    if prompts.empty:
        return None
    rows = [
        Row([Cell(str(r["task"])), Cell(str(r["prompts"])), Cell(str(r["example"])[:160])])
        for r in prompts.to_dict("records")
    ]
    name, total = meta.get("name", ""), int(prompts["prompts"].sum())
    caption = f"Panel {name}: {total} held-out prompts, fingerprint {meta.get('fingerprint', '–')}"
    return Table(caption, ["Task", "Prompts", "One of them"], rows, words=True)


def _keys(report: Report) -> list[tuple[str, str]]:
    groups = [(f"{group}/{report.primary}", "number") for group in ("diversity", "correct_diversity")]
    return [*groups, ("quality/accuracy", "percent")]


def _at(report: Report, task: str) -> dict[tuple, dict[Any, Any]]:
    """Rows of the curves of a task by lineage, stage number, step and key."""
    frame = report.curves[report.curves["task"] == task]
    return {(*_place(r), r["key"]): r for r in frame.to_dict("records")}


def _place(row: dict[Any, Any]) -> tuple[Any, Any, Any]:
    return row["lineage"], row["number"], row["step"]


def _ends(report: Report) -> list[dict[Any, Any]]:
    """The first look of each lineage and the last of each stage, among those with scores. `where`: base or the stage."""
    out: list[dict[Any, Any]] = []
    worked = report.looks[report.looks["status"].isin(SCORED)]
    for _, looks in worked.groupby("lineage", sort=False):
        out.append(looks.iloc[0].to_dict() | {"where": "base"})
        out += [part.iloc[-1].to_dict() | {"where": part.iloc[-1]["stage"]} for _, part in looks.groupby("number")]
    return out


def _value(row: dict[Any, Any] | None, form: str = "number") -> Cell:
    """A level with its interval. form: number, percent (a share) or gain (a signed difference of shares)."""
    if row is None or math.isnan(row["mean"]):
        return Cell("–")
    mean, lo, hi = row["mean"], row["lo"], row["hi"]
    if form == "number":
        return Cell(number(mean), interval(lo, hi, "number"))
    if form == "gain":
        return Cell(percent(mean).replace("%", "points"), interval(lo, hi))
    return Cell(percent(mean, signed=False), interval(lo, hi, signed=False))
