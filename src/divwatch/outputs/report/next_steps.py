"""What to do next, from the verdict: change the data, go back, average the weights. Each step names its source."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from divwatch.analysis.assess import Assessment
from divwatch.analysis.history import ALARM_METRICS
from divwatch.outputs.report.findings import LineageFindings
from divwatch.outputs.report.layout import stage_name
from divwatch.store.tables import RunTables

PAPER = "Karouzos, Tan and Aletras 2026, arXiv 2604.16027"
ENSEMBLING = "Dang et al. 2025, arXiv 2504.10478"
NARROWED = ("narrowing among correct answers", "aggregate collapse", "template collapse")
BROKEN = ("degeneration", "false recovery")


@dataclass(frozen=True)
class Step:
    """One thing to do. command: a line for the shell, or empty. source: what says that it helps."""

    what: str
    command: str = ""
    source: str = ""


@dataclass(frozen=True)
class Start:
    """Where training can start again: a path, what it is, and whether it is a checkpoint of the run."""

    path: str
    what: str
    checkpoint: bool


def next_steps(f: LineageFindings) -> list[Step]:
    """What the last stage with an alarm asks for; for a lineage without one, that nothing is to be done."""
    alarmed = [n for n, a in enumerate(f.stages) if a is not None and a.verdict.kind in (*NARROWED, *BROKEN)]
    if not alarmed:
        return list(_without_alarm(f.whole))
    number = alarmed[-1]
    run, assessment = f.lineage.runs[number], f.stages[number]
    assert assessment is not None
    return list(_after_alarm(run, assessment, stage_name(f.lineage.stages[number])))


def _without_alarm(whole: Assessment | None) -> Iterator[Step]:
    kind = whole.verdict.kind if whole else "not comparable"
    if whole is not None and whole.primary is None:
        names = ", ".join(ALARM_METRICS)
        yield Step(f"Add one of {names} to watch_metrics: no alarm can be raised without.", source="docs/detection.md")
    elif kind == "not comparable":
        yield Step("Let more outputs end: raise watch_max_new_tokens, or change watch_form.", source="docs/reading.md")
    else:
        yield Step("Nothing: continue.", source="docs/reading.md")


def _after_alarm(run: RunTables, assessment: Assessment, stage: str) -> Iterator[Step]:
    if not assessment.verdict.confirmed and assessment.verdict.kind in NARROWED:
        yield Step("Wait for the next looks: the alarm is not confirmed.", source="docs/detection.md")
    onset = _onset(assessment)
    start = start_before(run, onset)
    if assessment.verdict.kind in BROKEN:
        yield Step(f"Check the learning rate and the number of steps of {stage}: the model lost capability.")
    elif not stage.startswith("RL"):
        yield Step(f"Find the rows of {stage} that narrow the model, and change their share.", _blame(run), PAPER)
    before = "" if onset is None else f" (the fall begins after step {onset})"
    kept = (
        ""
        if start.checkpoint
        else "; no checkpoint from before the fall is kept: lower save_steps, or on_collapse: save"
    )
    again = f"{run.meta.get('trainer') or 'SFTTrainer'}(model={start.path!r}, ...)" if start.path else ""
    yield Step(f"Go back to {start.what}{before}, and train on from there{kept}.", again, ENSEMBLING)
    final = _shown(run.directory.parent)
    yield Step(
        f"Average the weights with those of {start.what} (WiSE-FT; code in docs/report.md), and measure the average.",
        f"divwatch measure {shlex.quote(start.path)} AVERAGE --like {shlex.quote(final)} --out averaged"
        if start.path
        else "",
        ENSEMBLING,
    )


def start_before(run: RunTables, onset: int | None) -> Start:
    """The last checkpoint of the run at or before `onset`, else the model that the run started from."""
    kept = [Path(path) for event in run.events if isinstance(path := event.get("checkpoint"), str)]  # on_collapse: save
    written = _checkpoints([*run.directory.parent.glob("checkpoint-*"), *kept])
    before = [(step, path) for step, path in written if onset is not None and step <= onset]
    if before:
        step, path = before[-1]
        return Start(_shown(path), f"checkpoint-{step}", True)
    return Start(_model(run), "the model that this stage started from", False)


def _model(run: RunTables) -> str:
    """What the run started from: the output directory of the run before it, wherever that is now, else as recorded."""
    return _shown(run.parent.parent) if run.parent else str(run.meta.get("model") or "")


def _shown(path: Path) -> str:
    """Relative to the working directory, if it is inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _checkpoints(paths: Iterable[Path]) -> list[tuple[int, Path]]:
    """(step, path) of the checkpoints among `paths`, in the order of their steps."""
    names = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in paths if path.is_dir())
    return sorted((int(match[1]), path) for match, path in names if match)


def _onset(assessment: Assessment) -> int | None:
    """Of the whole panel if it was flagged, else of the task that was flagged first."""
    return next((status.onset_step for _, _, status in assessment.alarms if status.onset_step is not None), None)


def _blame(run: RunTables) -> str:
    models = [
        _model(run) or "BASE",
        *(_shown(path) for _, path in _checkpoints(run.directory.parent.glob("checkpoint-*"))),
    ]
    data = "" if isinstance(run.meta.get("mix"), dict) else "--data ROWS.jsonl "  # a run of a recipe records its mix
    return f"divwatch blame {shlex.join(models)} {data}--like {shlex.quote(_shown(run.directory.parent))}"
