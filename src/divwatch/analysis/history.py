"""The looks of a run as arrays: what detectors, split and verdict read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divwatch.errors import DivwatchError
from divwatch.records import PromptScores

Floats = NDArray[np.float64]

ALL = "all"
ALARM_METRICS = ("sbert", "vendi", "ead")  # the first that was measured carries the alarm
# Where fewer outputs than RUN_ON end, and later at least LEARNT do, the model did not know yet how to end an answer.
RUN_ON, LEARNT = 0.1, 0.5


@dataclass(frozen=True)
class History:
    """The looks of a run. steps: [L], rising. ids, tasks: [N]. values: key -> [L, N], NaN if missing.
    comparable: [L], False where too few outputs were usable for the look to be held against others, and before the model
    learnt to end its answers."""

    steps: list[int]
    ids: list[str]
    tasks: list[str]
    values: dict[str, Floats]
    comparable: list[bool]

    @classmethod
    def of(cls, looks: Sequence[tuple[int, PromptScores, bool]]) -> History:
        """From (step, scores, comparable) of each look; prompts are matched by id, those of the first look count."""
        if not looks:
            raise DivwatchError("no looks: take at least one before assessing")
        looks = sorted(looks, key=lambda look: look[0])
        first = looks[0][1]
        row = {prompt: i for i, prompt in enumerate(first.ids)}
        keys = {key: None for _, scores, _ in looks for key in scores.values}
        values = {key: np.full((len(looks), len(row)), np.nan) for key in keys}
        for at, (_, scores, _) in enumerate(looks):
            known = [(i, row[prompt]) for i, prompt in enumerate(scores.ids) if prompt in row]
            source, target = np.array(known, dtype=int).reshape(-1, 2).T
            for key, column in scores.values.items():
                values[key][at, target] = np.asarray(column, dtype=float)[source]
        steps = [step for step, _, _ in looks]
        ends = _ends_answers(values, first.tasks, len(steps))
        comparable = [bool(ok) and end for (_, _, ok), end in zip(looks, ends, strict=True)]
        return cls(steps, list(first.ids), list(first.tasks), values, comparable)

    def series(self, key: str, task: str = ALL) -> Floats:
        """[L, n] values of a task's prompts; for `all`, of every prompt, weighted so that tasks weigh equally."""
        return self.series_of(self.values[key], task)

    def series_of(self, table: Floats, task: str = ALL) -> Floats:
        """`series` of any [L, N] values."""
        tasks = np.array(self.tasks)
        if task != ALL:
            return table[:, tasks == task]
        counted = np.isfinite(table[self.baseline]) if self.baseline is not None else np.isfinite(table).any(axis=0)
        names, index = np.unique(tasks, return_inverse=True)
        sizes = np.bincount(index, weights=counted, minlength=len(names))
        weights = counted.sum() / np.maximum(sizes, 1) / max((sizes > 0).sum(), 1)
        return table * weights[index]

    @property
    def baseline(self) -> int | None:
        """Index of the first comparable look."""
        return next((i for i, ok in enumerate(self.comparable) if ok), None)

    @property
    def last(self) -> int | None:
        """Index of the last comparable look."""
        return next((i for i in reversed(range(len(self.steps))) if self.comparable[i]), None)


def alarm_metric(baseline: Mapping[str, ArrayLike]) -> str | None:
    """The first of ALARM_METRICS with a value at the baseline look, from which changes are counted.

    baseline: key -> per-prompt values. If none has a value, the first that has a key. None: none was measured.
    """
    measured = [metric for metric in ALARM_METRICS if f"diversity/{metric}" in baseline]
    known = (m for m in measured if np.isfinite(np.asarray(baseline[f"diversity/{m}"], dtype=float)).any())
    return next(known, measured[0] if measured else None)


def _ends_answers(values: dict[str, Floats], tasks: Sequence[str], looks: int) -> list[bool]:
    """Whether each look came after the model had learnt to end its answers; True as long as no later look shows more.

    An answer without a verifier is measured cut or not, so that usable outputs do not show it.
    """
    if "quality/finished" not in values:
        return [True] * looks
    finished = np.nan_to_num(task_means(values["quality/finished"].T, tasks))
    return [bool(share >= RUN_ON or (finished[i:] < LEARNT).all()) for i, share in enumerate(finished)]


def task_means(table: Floats, tasks: Sequence[str]) -> Floats:
    """Equal-weight mean over tasks of each column's task means, NaN left out."""
    there = np.isfinite(table)
    labels = np.unique(tasks, return_inverse=True)[1]
    member = np.eye(labels.max() + 1)[:, labels]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (member @ np.where(there, table, 0.0)) / (member @ there)
    counted = np.isfinite(means)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(counted, means, 0.0).sum(axis=0) / counted.sum(axis=0)
