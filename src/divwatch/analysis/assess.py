"""From the stored looks of a run to what they show: detectors on every series, the split, and one verdict.

The assessment follows from the history alone: a resumed run counts no look twice and forgets no alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from divwatch.analysis.alarm import MIN_PROMPTS, MIN_TASK_PROMPTS, tasks_without_alarm
from divwatch.analysis.decompose import Decomposition, PairStats, decompose_pairs
from divwatch.analysis.detector import CollapseDetector, CollapseStatus
from divwatch.analysis.evidence import OtherDetectors
from divwatch.analysis.history import ALL, History, alarm_metric
from divwatch.analysis.verdict import Verdict, classify_change

GROUPS = ("correct_diversity", "diversity")
SPLIT_DRAWS = 1000


@dataclass(frozen=True)
class Assessment:
    """What is known after a look.

    statuses: (task, key) -> CollapseStatus, task "all" first; empty without a comparable look.
    primary: the metric that carries the alarm; None: none was measured. baseline_step, last_step: the first and the last
    comparable look.
    """

    primary: str | None
    baseline_step: int | None
    last_step: int | None
    statuses: dict[tuple[str, str], CollapseStatus]
    verdict: Verdict
    _history: History = field(repr=False)

    @property
    def alarms(self) -> list[tuple[str, str, CollapseStatus]]:
        """(task, key, status) of every series that was flagged: the whole panel first, then by step."""
        alarms = [(task, key, status) for (task, key), status in self.statuses.items() if status.collapsed]
        return sorted(alarms, key=lambda alarm: (alarm[0] != ALL, alarm[2].alarm_step))

    @property
    def collapsed(self) -> bool:
        return bool(self.alarms)

    @cached_property
    def splits(self) -> dict[str, Decomposition]:
        """Task -> split of the change between the two looks, "all" first; empty where pairs were not measured."""
        return {
            task: split
            for task in [ALL, *dict.fromkeys(self._history.tasks)]
            if (split := split_of(self._history, self.statuses, task))
        }

    @property
    def split(self) -> Decomposition | None:
        """The split over the whole panel."""
        return self.splits.get(ALL)


def assess(
    history: History,
    max_looks: int,
    alpha: float = 0.05,
    min_drop: float = 0.05,
    primary: str | None = None,
) -> Assessment:
    """Detectors on every series, the split and the verdict, from the history alone: what `Assessor` says of it."""
    return Assessor(max_looks, alpha, min_drop, primary).assess(history)


class Assessor:
    """Assesses a history that grows: a look more costs one update of each detector, not a replay of the run.

    Watched are `correct_diversity/<primary>` and `diversity/<primary>`, over the whole panel and task by task. Half of
    `alpha` is for the whole panel and half for its tasks, each half shared equally (Bonferroni). A task with fewer than
    8 prompts counts in the panel and takes no share; with one task, or none of 8 prompts, the panel has all.
    """

    def __init__(self, max_looks: int, alpha: float = 0.05, min_drop: float = 0.05, primary: str | None = None) -> None:
        self.max_looks, self.alpha, self.min_drop, self.primary = max_looks, alpha, min_drop, primary
        self._counted: tuple[list[str], list[int]] = ([], [])  # the series watched, the steps counted in
        self._detectors: dict[tuple[str, str], CollapseDetector] = {}
        self._statuses: dict[tuple[str, str], CollapseStatus] = {}
        self._others = OtherDetectors(max_looks, alpha, min_drop)

    def assess(self, history: History) -> Assessment:
        """What the looks show. The result is the same whether the history came at once or look by look."""
        primary = self.primary or alarm_metric(
            {key: table[history.baseline or 0] for key, table in history.values.items()}
        )
        keys = [f"{group}/{primary}" for group in GROUPS if f"{group}/{primary}" in history.values]
        self._count_in(history, keys)
        statuses = dict(self._statuses)
        verdict = classify_change(
            history, statuses, lambda: split_of(history, statuses), self.min_drop, primary, self._others
        )
        first, last = (None if i is None else history.steps[i] for i in (history.baseline, history.last))
        return Assessment(primary, first, last, statuses, verdict, history)

    def _count_in(self, history: History, keys: list[str]) -> None:
        """The looks that are new; all of them where they do not simply follow those that were counted, or counting failed."""
        comparable = np.flatnonzero(history.comparable)
        steps = [history.steps[i] for i in comparable]
        before = len(self._counted[1])
        if self._counted != (keys, steps[:before]):
            before, self._detectors, self._statuses = 0, {}, {}
            self._others = OtherDetectors(self.max_looks, self.alpha, self.min_drop)
        if before < len(steps):
            self._counted = ([], [])
            for (task, key), alpha in self._shares(history, keys).items():
                fewest = MIN_PROMPTS if task == ALL else MIN_TASK_PROMPTS
                fresh = CollapseDetector(self.max_looks, alpha, self.min_drop, fewest)
                detector = self._detectors.setdefault((task, key), fresh)
                values = history.series(key, task)[comparable[before:]]
                self._statuses[task, key] = detector.replay(steps[before:], values)
            if len(tasks := set(history.tasks)) == 1:  # its series is the panel's
                self._statuses |= {(task, key): self._statuses[ALL, key] for task in tasks for key in keys}
        self._counted = (keys, steps)

    def _shares(self, history: History, keys: list[str]) -> dict[tuple[str, str], float]:
        """alpha's share of each series, the whole panel's first; the detector of a small task raises no alarm."""
        sizes = Counter(history.tasks)
        if len(sizes) == 1:
            return {(ALL, key): self.alpha / len(keys) for key in keys}
        large = len(sizes) - len(tasks_without_alarm(history.tasks))
        panel = self.alpha / max(len(keys), 1) / (2 if large else 1)
        task = self.alpha / max(len(keys), 1) / 2 / max(large, 1)
        return {(ALL, key): panel for key in keys} | {(name, key): task for key in keys for name in sizes}


def split_of(
    history: History, statuses: Mapping[tuple[str, str], CollapseStatus], task: str = ALL
) -> Decomposition | None:
    """The split of the change between the first and the last comparable look; None if pairs were not measured.

    Over the whole panel tasks weigh equally, as in the curves. Its intervals hold the wobble of both looks' checkpoints,
    which `statuses` show: that of diversity over all outputs.
    """
    if "pairs/cc_count" not in history.values or history.baseline is None or history.last == history.baseline:
        return None
    rows = np.flatnonzero(np.array(history.tasks) == task) if task != ALL else np.arange(len(history.tasks))
    before, after = (
        PairStats.from_values({key: table[look] for key, table in history.values.items()}, rows)
        for look in (history.baseline, history.last)
    )
    wobble = next((s.wobble for (t, key), s in statuses.items() if t == task and key.startswith("diversity/")), 0.0)
    strata = [history.tasks[i] for i in rows]
    split = decompose_pairs(before, after, draws=SPLIT_DRAWS, wobble=wobble, strata=strata)
    return split if split.n_prompts else None
