"""The result of the search: which prompts overlap the training data, by prompt and by task, and in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.panel.overlap import Matches, PanelIndex
from divwatch.records import Prompt
from divwatch.words import counted


@dataclass(frozen=True)
class TaskOverlap:
    """Overlap of one task.

    prompts, contaminated: number of prompts, and of those that overlap. coverage: mean share of a prompt's words that are
    in an overlap, in [0, 1].
    """

    prompts: int
    contaminated: int
    coverage: float

    @property
    def share(self) -> float:
        """Contaminated prompts as a share of all."""
        return self.contaminated / self.prompts


@dataclass(frozen=True)
class OverlapReport:
    """Overlap of a panel.

    contaminated:   id of each prompt that overlaps -> index of the first training row where it does.
    rows, seconds:  size and duration of the search.
    panel, dataset: fingerprints of what was compared (dataset: None if it has none).
    cached:         read from the cache, not searched again.
    """

    contaminated: dict[str, int]
    by_task: dict[str, TaskOverlap]
    rows: int
    seconds: float
    panel: str
    dataset: str | None = None
    cached: bool = field(default=False, compare=False)

    def held_out(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts without overlap. Raises DivwatchError if none is left."""
        clean = [p for p in prompts if p.id not in self.contaminated]
        if prompts and not clean:
            raise DivwatchError(
                f"all {len(prompts)} prompts of the panel are in the training data: choose another watch_panel, or set "
                "watch_held_out to report"
            )
        return clean

    @property
    def line(self) -> str:
        """The result in one line."""
        overlapping, total = len(self.contaminated), sum(t.prompts for t in self.by_task.values())
        tasks = [f"{task} {t.contaminated}/{t.prompts}" for task, t in self.by_task.items() if t.contaminated]
        where = f": {', '.join(tasks)}" if tasks else ""
        return f"held out: {overlapping} of {counted(total, 'prompt')} overlap the {counted(self.rows, 'training row')}{where}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_report(index: PanelIndex, matches: Matches, seconds: float, panel: str, data: str | None) -> OverlapReport:
    """The report of a search. panel, data: fingerprints of what was compared (data: None if it has none)."""
    by_task: dict[str, TaskOverlap] = {}
    for task in dict.fromkeys(p.task for p in index.prompts):
        indices = [i for i, p in enumerate(index.prompts) if p.task == task]
        coverage = [len(matches.covered.get(i, ())) / max(1, len(index.words[i])) for i in indices]
        by_task[task] = TaskOverlap(
            len(indices), sum(i in matches.first for i in indices), sum(coverage) / len(indices)
        )
    contaminated = {index.prompts[i].id: row for i, row in sorted(matches.first.items())}
    return OverlapReport(contaminated, by_task, matches.rows, round(seconds, 3), panel, data)
