"""What the analysis says about each lineage: its stages, the whole of it, and where diversity was lost.

No statistic is computed here. The stages are assessed by the code that assessed them live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from divwatch.analysis.assess import Assessment, assess
from divwatch.analysis.history import History
from divwatch.analysis.stages import StageAttribution
from divwatch.outputs.report.layout import Lineage
from divwatch.records import PromptScores
from divwatch.schedule import AUTO, count_looks
from divwatch.store.attribution import attribute_stages
from divwatch.store.tables import RunTables


@dataclass(frozen=True)
class LineageFindings:
    """The assessment of each stage and of the whole lineage, and the loss by stage.

    stages, whole: None without scores. attribution, correct_attribution: of diversity over all and over correct outputs.
    paper_attribution: as the paper counts, if the lineage starts from another line's checkpoint (`own_stages`).
    """

    lineage: Lineage
    stages: list[Assessment | None]
    whole: Assessment | None
    attribution: StageAttribution | None
    correct_attribution: StageAttribution | None
    paper_attribution: StageAttribution | None


def find(lineages: Sequence[Lineage], primary: str) -> list[LineageFindings]:
    """The findings of each lineage. primary: the metric that losses are counted in."""
    # A run that several lineages share is assessed once.
    assessed = {run.directory: assess_stage(run) for lineage in lineages for run in lineage.runs}
    findings = []
    for lineage in lineages:
        own = own_stages(lineage)
        findings.append(
            LineageFindings(
                lineage=lineage,
                stages=[assessed[run.directory] for run in lineage.runs],
                whole=assess_lineage(lineage),
                attribution=_attribute(lineage, f"diversity/{primary}"),
                correct_attribution=_attribute(lineage, f"correct_diversity/{primary}"),
                paper_attribution=_attribute(lineage, f"diversity/{primary}", own) if own else None,
            )
        )
    return findings


def assess_stage(run: RunTables) -> Assessment | None:
    """The assessment of one stage against its own first look, as it was live. None without scores."""
    looks = [(step, run.prompt_scores(step), ok) for step, ok in run.scored_looks()]
    return (
        assess(History.of(looks), _planned_looks(run), _setting(run, "alpha", 0.05), _setting(run, "min_drop", 0.05))
        if looks
        else None
    )


def assess_lineage(lineage: Lineage) -> Assessment | None:
    """The assessment of all stages joined, against the base. Steps continue from stage to stage."""
    looks: list[tuple[int, PromptScores, bool]] = []
    offset = 0
    for run in lineage.runs:
        scored = run.scored_looks()
        if looks and not _imported_at_0(run):
            # The first look of a later stage is the parent's last model, sampled again.
            scored = [(step, ok) for step, ok in scored if step > 0]
        if looks and scored:  # an imported stage may begin at the step at which the one before ends
            offset = max(offset, looks[-1][0] + 1 - scored[0][0])
        looks += [(offset + step, run.prompt_scores(step), ok) for step, ok in scored]
        offset += run.max_steps
    alpha = _setting(lineage.runs[-1], "alpha", 0.05)
    planned = sum(_planned_looks(run) for run in lineage.runs)
    return assess(History.of(looks), max(planned, len(looks)), alpha, _min_drop(lineage)) if looks else None


def _imported_at_0(run: RunTables) -> bool:
    """Whether the look at step 0 is the only one to judge an imported stage by, as of the completions of one checkpoint."""
    return bool(run.meta.get("imported")) and not any(ok for step, ok in run.scored_looks() if step > 0)


def _planned_looks(run: RunTables) -> int:
    every, looks = (settings_of(run).get(name) for name in ("every", "looks"))
    if every != AUTO and (not isinstance(every, int | float) or every <= 0):
        return len(run.looks)
    most = count_looks(every, run.max_steps, looks if isinstance(looks, int) else None)
    return max(len(run.looks), run.planned_looks() or most)


def _setting(run: RunTables, name: str, default: float) -> float:
    value = settings_of(run).get(name)
    return float(value) if isinstance(value, int | float) else default


def settings_of(run: RunTables) -> dict[str, Any]:
    settings = run.meta.get("settings")
    return settings if isinstance(settings, dict) else {}


def _attribute(lineage: Lineage, key: str, numbers: Sequence[int] | None = None) -> StageAttribution | None:
    return attribute_stages(lineage.runs, key, lineage.stages, numbers, _min_drop(lineage))


def own_stages(lineage: Lineage) -> list[int] | None:
    """The last stage of each kind, if a kind occurs twice (Instruct SFT after Think SFT). None: no kind does."""
    last = {run.stage: number for number, run in enumerate(lineage.runs)}
    return sorted(last.values()) if len(last) < len(lineage.runs) else None


def _min_drop(lineage: Lineage) -> float:
    return _setting(lineage.runs[-1], "min_drop", 0.05)


def parent_missing(run: RunTables) -> bool:
    """Whether the first run of a lineage names a parent that could not be found."""
    return bool(run.meta.get("parent")) and run.parent is None
