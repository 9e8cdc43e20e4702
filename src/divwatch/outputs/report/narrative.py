"""The findings in sentences, and cautions for reading the numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from divwatch.analysis.assess import Assessment
from divwatch.analysis.history import ALARM_METRICS
from divwatch.analysis.stages import StageAttribution
from divwatch.metrics.unknown import MULTILINGUAL, unreadable_prompts
from divwatch.outputs.numbers import change, percent, typeset, verdict_text
from divwatch.outputs.report.build import Report
from divwatch.outputs.report.findings import LineageFindings, parent_missing, settings_of
from divwatch.outputs.report.layout import Lineage, stage_name
from divwatch.store.attribution import first_comparable
from divwatch.store.tables import RunTables

FEW_PROMPTS = 32  # correct-answer numbers on fewer prompts, and fewer than half of the task's, are named
MANY_CLOSED = 0.05  # share of thoughts closed by force above which the page says so
NO_METRIC = f"none of {', '.join(ALARM_METRICS)} was measured"
SAMPLING = ("samples", "temperature", "top_p", "max_new_tokens", "encoder")


TONES = {
    "none": "fine",
    "quality control only": "fine",
    "aggregate collapse": "collapse",
    "narrowing among correct answers": "collapse",
    "template collapse": "collapse",
    "degeneration": "collapse",
    "false recovery": "collapse",
}


@dataclass(frozen=True)
class Tag:
    """The kind of a verdict and its tone on the page: collapse, doubt or fine."""

    text: str
    tone: str


@dataclass(frozen=True)
class Statement:
    """What the page says about one lineage: a sentence to repeat, then the verdict of each stage."""

    lineage: str
    tag: Tag
    lead: str
    stages: list[tuple[str, Tag, str]]


def statements(report: Report) -> list[Statement]:
    return [_statement(f, report) for f in report.findings]


def tag_of(assessment: Assessment | None, run: RunTables) -> Tag:
    """The verdict of a stage or lineage, marked "so far" while `run` has not reached its end."""
    if assessment is None:
        return Tag("nothing measured", "doubt")
    kind, confirmed = assessment.verdict.kind, assessment.verdict.confirmed
    text = verdict_text(kind, confirmed) + (" so far" if unfinished(run) else "")
    tone = TONES.get(kind, "doubt")
    return Tag(text, tone if confirmed or tone != "collapse" else "doubt")


def unfinished(run: RunTables) -> bool:
    """Whether looks are still to come. Imported ones are all there are."""
    return bool(len(run.looks)) and int(run.looks["step"].max()) < run.max_steps and not run.meta.get("imported")


def _statement(f: LineageFindings, report: Report) -> Statement:
    runs = f.lineage.runs
    stages = [
        (stage_name(stage), tag_of(a, run), typeset(a.verdict.sentence) if a else "No look was scored.")
        for stage, a, run in zip(f.lineage.stages, f.stages, runs, strict=True)
    ]
    return Statement(f.lineage.name, tag_of(f.whole, runs[-1]), _lead(f, report), stages)


def _lead(f: LineageFindings, report: Report) -> str:
    """One sentence: the diversity that is left, where it was lost and since when, and how accuracy changed."""
    name, metric = f.lineage.name, (f.whole.primary if f.whole else None) or report.primary
    kept, correct = kept_of(f, f"diversity/{metric}"), kept_of(f, f"correct_diversity/{metric}")
    if kept is None:
        why = f": {NO_METRIC}" if f.whole and f.whole.primary is None else ""
        return f"{name}: diversity could not be compared over the stages{why}."
    start = later_start(f.lineage)
    of = f"the diversity at {start}" if start else "the base's diversity"
    text = f"{name} kept {change(*kept, signed=False)} of {of}"
    if correct is not None and math.isfinite(correct[1]):  # not on too few prompts
        text += f" and {change(*correct, signed=False)} of its diversity among correct answers"
    return text + _where(f, report) + _accuracy(f, report) + "."


def kept_of(f: LineageFindings, key: str) -> tuple[float, float, float] | None:
    """The share of the base's diversity that is left at the end, with its 95 % interval: one plus the change over the
    whole lineage. None if it cannot be compared."""
    status = f.whole.statuses.get(("all", key)) if f.whole else None
    if (
        status is None
        or status.change != status.change
        or f.whole is None
        or f.whole.last_step == f.whole.baseline_step
    ):
        return None
    lo, hi = status.change_interval
    return 1 + status.change, 1 + lo, 1 + hi


def _where(f: LineageFindings, report: Report) -> str:
    """The stage with the largest loss and its onset; empty if no alarm was raised there."""
    a = f.correct_attribution or f.attribution
    if a is None:
        return ""
    largest = min(a.share, key=lambda stage: a.share[stage])
    assessment = f.stages[f.lineage.stages.index(largest)]
    if a.share[largest] >= 0 or assessment is None or not assessment.collapsed:
        return ""
    lost = sum(min(share, 0.0) for share in a.share.values())
    how = (
        "all of the loss"
        if a.share[largest] / lost > 0.95
        else "most of the loss"
        if a.share[largest] / lost > 0.5
        else "the largest loss"
    )
    text = f"; {how} is at {stage_name(largest)}"
    onset = panel_onset(report, f.lineage.name, f.lineage.stages.index(largest))
    return text if onset is None else f"{text}, from step {onset['step']} on"


def panel_onset(report: Report, lineage: str, number: int) -> dict[str, Any] | None:
    """The onset of the whole panel in one stage: among correct answers if that was flagged, else over all outputs."""
    table = report.tables["onsets"]
    mine = table[(table["lineage"] == lineage) & (table["number"] == number) & (table["task"] == "all")]
    return None if mine.empty else mine.sort_values("key").iloc[0].to_dict()


def _accuracy(f: LineageFindings, report: Report) -> str:
    table = report.tables["stages"]
    levels = table.loc[table["lineage"] == f.lineage.name, "accuracy"].dropna()
    if len(levels) < 2:
        return ""
    return f"; accuracy went from {percent(levels.iloc[0], signed=False)} to {percent(levels.iloc[-1], signed=False)}"


def share_text(a: StageAttribution, stage: str) -> str:
    """'SFT −48 % [−51, −45]'."""
    lo, hi = a.interval[stage] if a.interval else (None, None)
    return f"{stage_name(stage)} {change(a.share[stage], lo, hi)}"


def later_start(lineage: Lineage) -> str:
    """The look that changes are counted from, such as 'DPO step 30'; empty if that is the base."""
    place = first_comparable(lineage.runs)
    looks = lineage.runs[0].looks["step"]
    if place is None or len(looks) == 0:
        return ""
    number, step = place
    if (number, step) == (0, int(looks.min())) and not parent_missing(lineage.runs[0]):
        return ""
    return f"{stage_name(lineage.stages[number])} step {step}"


def cautions(report: Report) -> list[str]:
    """Why a number may mislead: failed and incomparable looks, few prompts, settings that differ between stages."""
    lines = [*_looks(report), *_few_prompts(report), *_outputs(report), *_unreadable(report)]
    for f in report.findings:
        lines += _differences(f)
        for run, stage in zip(f.lineage.runs, f.lineage.stages, strict=True):
            if unfinished(run):
                at = f"the last look is at step {int(run.looks['step'].max())} of {run.max_steps}"
                lines.append(f"{f.lineage.name}, {stage_name(stage)}: still running or ended early, {at}.")
        start = later_start(f.lineage)
        if start and not parent_missing(f.lineage.runs[0]):
            lines.append(f"{f.lineage.name}: changes count from {start}, the first comparable look, not from the base.")
        if parent_missing(f.lineage.runs[0]):
            where = f.lineage.runs[0].meta["parent"]
            start = stage_name(f.lineage.stages[0])
            lines.append(
                f"{f.lineage.name}: its parent run {where} was not found, so changes count from the start of {start}."
            )
    return [*dict.fromkeys(lines), *report.notes]


def _looks(report: Report) -> Iterable[str]:
    bad = report.looks[report.looks["status"] != "ok"]
    for (lineage, stage, status), looks in bad.groupby(["lineage", "stage", "status"], sort=False):
        steps = ", ".join(str(s) for s in looks["step"][:8]) + (" …" if len(looks) > 8 else "")
        what = {"failed": "failed", "unscored": "stored but not scored"}.get(status, "not comparable")
        reasons = "; ".join(dict.fromkeys(r for r in looks["reason"] if r))
        count = f"{len(looks)} look{'' if len(looks) == 1 else 's'}"
        yield f"{lineage}, {stage_name(stage)}: {count} {what} (step {steps}){': ' + reasons if reasons else ''}."


def _few_prompts(report: Report) -> Iterable[str]:
    key = f"correct_diversity/{report.primary}"
    last = report.curves.groupby(["lineage", "number", "task", "key"], sort=False).tail(1)
    judged = last[(last["key"] == key) & (last["task"] != "all")]
    counts = last[last["key"] == "quality/accuracy"].set_index(["lineage", "number", "task"])["n"]
    for (lineage, stage), rows in judged.groupby(["lineage", "stage"], sort=False):
        few = [
            f"{r.task} ({r.n:.0f} of {counts.get((lineage, r.number, r.task), float('nan')):.0f})"
            for r in rows.itertuples()
            if r.n < FEW_PROMPTS and r.n < 0.5 * counts.get((lineage, r.number, r.task), 0)
        ]
        if few:
            where = f"{lineage}, end of {stage_name(stage)}"
            yield f"{where}: correct-answer numbers rest on few prompts (those with two correct): {', '.join(few)}."


def _outputs(report: Report) -> Iterable[str]:
    """Thoughts that were closed by force, and answers that were not judged."""
    for (lineage, stage), looks in report.looks.groupby(["lineage", "stage"], sort=False):
        where = f"{lineage}, {stage_name(stage)}"
        closed = looks["closed_share"].max()
        if closed >= MANY_CLOSED:
            cut = percent(closed, signed=False)
            yield f"{where}: up to {cut} of the thoughts were closed by force; answers after them may be guesses."
        reasons = unjudged(looks["unjudged"])
        if reasons:
            text = "; ".join(f"{reason} ({count})" for reason, count in reasons[:3])
            yield f"{where}: answers were not judged and count as neither right nor wrong: {text}."


def _unreadable(report: Report) -> Iterable[str]:
    """Stages whose outputs the encoder cannot read."""
    for f in report.findings:
        for run, stage in zip(f.lineage.runs, f.lineage.stages, strict=True):
            scores = run.scores.groupby("step")
            counts = [(unreadable_prompts(look), len(look)) for _, look in scores]
            most, of = max(counts, default=(0, 0))
            if most:
                encoder = settings_of(run).get("encoder")
                yield (
                    f"{f.lineage.name}, {stage_name(stage)}: metrics of embeddings are missing for up to {most} of {of} "
                    f"prompts: their outputs are unknown tokens to encoder {encoder!r}. A multilingual one (watch_encoder), "
                    f"such as {MULTILINGUAL}, reads them."
                )


def unjudged(looks: Iterable[dict[str, int]]) -> list[tuple[str, int]]:
    """Why answers were not judged, over several looks: (reason, count), most frequent first."""
    counts: Counter[str] = Counter()
    for look in looks:
        counts.update(look)
    return counts.most_common()


def _differences(f: LineageFindings) -> Iterable[str]:
    for name in SAMPLING:
        values = list(dict.fromkeys(str(settings_of(run).get(name)) for run in f.lineage.runs))
        if len(values) > 1:
            listing = ", ".join(values)
            yield f"{f.lineage.name}: {name} differs between stages ({listing}), so their numbers cannot be compared."
    prints = {str((run.meta.get("panel") or {}).get("fingerprint")) for run in f.lineage.runs}
    if len(prints) > 1:
        yield f"{f.lineage.name}: the panel differs between stages; only prompts that all stages share are compared."
