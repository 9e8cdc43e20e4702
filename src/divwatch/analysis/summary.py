"""Per-prompt values in short: a mean and its interval for each task and key."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from divwatch.analysis.history import ALL
from divwatch.analysis.intervals import DRAWS, Interval, bootstrap_means
from divwatch.records import PromptScores

Summaries = dict[str, dict[str, dict[str, float]]]  # task -> key -> mean, lo, hi, n


def summarise(scores: PromptScores, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Summaries:
    """`{task: {key: {mean, lo, hi, n}}}`, `all` being the equal-weight mean over tasks, resampled within tasks.

    n counts the prompts behind the mean. Keys without any value in a task are left out of that task.
    """
    keys = list(scores.values)
    if not scores.ids or not keys:
        return {}
    table = np.column_stack([np.asarray(scores.values[key], dtype=float) for key in keys])
    tasks = np.array(scores.tasks)
    rows = {task: np.flatnonzero(tasks == task) for task in dict.fromkeys(scores.tasks)}
    summaries = {
        task: _as_dict(keys, bootstrap_means(table[at], level=level, draws=draws, seed=seed))
        for task, at in rows.items()
    }
    summaries[ALL] = _as_dict(keys, bootstrap_means(table, strata=scores.tasks, level=level, draws=draws, seed=seed))
    return summaries


def _as_dict(keys: Sequence[str], intervals: Sequence[Interval]) -> dict[str, dict[str, float]]:
    return {key: interval._asdict() for key, interval in zip(keys, intervals, strict=True) if interval.n}
