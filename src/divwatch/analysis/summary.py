"""Per-prompt values in short: a mean and its interval for each task and key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from divwatch.analysis.history import ALL
from divwatch.analysis.intervals import DRAWS, Bounds, Interval, bootstrap_means
from divwatch.metrics.ranges import value_range
from divwatch.records import PromptScores

Summaries = dict[str, dict[str, dict[str, float]]]  # task -> key -> mean, lo, hi, n


def summarise(
    scores: PromptScores, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0, outputs: float = math.inf
) -> Summaries:
    """`{task: {key: {mean, lo, hi, n}}}`, `all` being the equal-weight mean over tasks, resampled within tasks.

    n counts the prompts behind the mean. Keys without any value in a task are left out of that task. Intervals stay in
    the range of their metric; outputs: a prompt's number of outputs, where the scores do not say what they are rarefied
    to.
    """
    keys = list(scores.values)
    if not scores.ids or not keys:
        return {}
    table = np.column_stack([np.asarray(scores.values[key], dtype=float) for key in keys])
    tasks = np.array(scores.tasks)
    options: dict[str, Any] = {
        "level": level,
        "draws": draws,
        "seed": seed,
        "bounds": [bounds_of(scores, key, outputs) for key in keys],
    }
    rows = {task: np.flatnonzero(tasks == task) for task in dict.fromkeys(scores.tasks)}
    summaries = {task: _as_dict(keys, bootstrap_means(table[at], **options)) for task, at in rows.items()}
    summaries[ALL] = _as_dict(keys, bootstrap_means(table, strata=scores.tasks, **options))
    return summaries


def bounds_of(scores: PromptScores, key: str, outputs: float = math.inf) -> Bounds:
    """The range of the mean of `key`, at the number of outputs that it is rarefied to or, if it is not, at `outputs`."""
    sizes = scores.values.get(f"subset/{key.partition('/')[0]}")
    return value_range(key, outputs if sizes is None else float(np.max(sizes)))


def _as_dict(keys: Sequence[str], intervals: Sequence[Interval]) -> dict[str, dict[str, float]]:
    return {key: interval._asdict() for key, interval in zip(keys, intervals, strict=True) if interval.n}
