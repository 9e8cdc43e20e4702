"""The logged curves of diversity, on the same prompts from look to look.

A prompt has a value only if it has two usable (or two correct) outputs. When accuracy changes, so do the prompts with a
value, and a plain mean would move although no prompt changed. So a curve is an index, as prices are measured with goods
that come and go: the mean at the baseline look, times one plus the change over the prompts that both looks have. Where
all prompts have values it is the plain mean.

Where fewer than half of the prompts are common, the change is that of the two-way fit value = prompt level x look level
to all comparable looks (Poisson likelihood, whose equations are the Geary-Khamis index's: Diewert 1999, in Heston and
Lipsey (eds), International and Interarea Comparisons). It links looks through those in between without the drift of a
chain of neighbours, and for two looks it is the change over their common prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from divwatch.analysis.history import ALL, History
from divwatch.analysis.intervals import UNBOUNDED, Bounds, percentile_interval
from divwatch.analysis.summary import Summaries, bounds_of, summarise
from divwatch.records import PromptScores

Floats = NDArray[np.float64]

PAIRED_GROUPS = ("diversity", "correct_diversity")
DRAWS, FIT_DRAWS = 1000, 200
_ITERATIONS, _TOLERANCE = 200, 1e-7


def summarise_look(
    history: History, scores: PromptScores, logged: Mapping[int, Summaries] | None = None, *, seed: int = 0
) -> Summaries:
    """`summarise` of the last look of a history, with diversity on the prompts of the baseline look.

    scores: the last look's. logged: step -> what was logged of an earlier look, whose level at the baseline the curve
    goes on from (default: the plain mean there). `n` counts the prompts behind the change. A curve begins at the first
    comparable look that has a value; a later look that nothing links to it is left out.
    """
    summaries = summarise(scores, seed=seed)
    tasks = np.array(history.tasks)
    for task, values in summaries.items():
        rows = np.arange(len(tasks)) if task == ALL else np.flatnonzero(tasks == task)
        resamples: Floats | None = None
        for key in [key for key in values if key.split("/", 1)[0] in PAIRED_GROUPS]:
            looks = _looks_to_compare(history, history.values[key][:, rows])
            table = history.values[key][looks][:, rows]
            start = (logged or {}).get(history.steps[looks[0]], {}).get(task, {}).get(key, {}).get("mean")
            if np.array_equal(np.isfinite(table[0]), np.isfinite(table[-1])) and not _moved(
                start, table[0], tasks[rows]
            ):
                continue  # the same prompts: the plain mean
            resamples = _resamples(tasks[rows], seed) if resamples is None else resamples
            if level := paired_level(table, tasks[rows], resamples, start, bounds_of(scores, key)):
                values[key] = level
            else:
                del values[key]
    return summaries


def _moved(start: float | None, first: Floats, tasks: NDArray[np.str_]) -> bool:
    """Whether the level logged at the first look is another than its plain mean."""
    return start is not None and not np.isclose(start, _means(first, tasks, np.ones((1, len(first))))[0])


def _looks_to_compare(history: History, table: Floats) -> list[int]:
    """Indices of the comparable looks that have a value, and of the last look."""
    has: NDArray[np.bool_] = np.asarray(np.isfinite(table).any(axis=1))
    last = len(table) - 1
    return [look for look in range(last) if history.comparable[look] and has[look]] + [last]


def paired_level(
    table: Floats,
    tasks: NDArray[np.str_],
    resamples: Floats,
    start: float | None = None,
    bounds: Bounds = UNBOUNDED,
) -> dict[str, float] | None:
    """mean, lo, hi and n of the last of some looks, on the scale of the first. None: nothing links the two.

    table: [looks, prompts], NaN if missing, the baseline first. tasks: [prompts]; they weigh equally. resamples:
    [draws, prompts], how often each prompt is drawn. start: the level at the first look (default: its mean). bounds: the
    range of the metric, which the level and its interval do not leave.
    """
    first, last = table[0], table[-1]
    weights = np.vstack([np.ones(table.shape[1]), resamples])  # the estimate, then its bootstrap replicates
    common = np.logical_and(np.isfinite(first), np.isfinite(last))
    if 2 * common.sum() >= max(np.isfinite(first).sum(), np.isfinite(last).sum()):
        link = _Link(common, _ratio(first, last, common, tasks, weights))
    else:
        link = _fit(table, tasks, weights[: 1 + FIT_DRAWS])
    means = _means(first, tasks, weights[: len(link.ratios)])
    scale = 1.0 if start is None or not means[0] > 0 else start / means[0]
    levels = scale * means * link.ratios
    if not np.isfinite(levels[0]) and common.any():  # the common prompts are at 0 at the baseline: no ratio to it
        link = _Link(common, link.ratios)
        levels = scale * (means + _means(np.where(common, last - first, np.nan), tasks, weights[: len(means)]))
    if not np.isfinite(levels[0]):
        return None
    n, strata = int(link.prompts.sum()), len(np.unique(tasks[link.prompts]))
    lo, hi = percentile_interval(levels[1:], n, strata=strata, bounds=bounds)
    return {"mean": float(np.clip(levels[0], *bounds)), "lo": lo, "hi": hi, "n": n}


@dataclass(frozen=True)
class _Link:
    """prompts: [N], those of the last look that the change is over. ratios: [1 + draws] level at the last look / at the
    first; NaN where nothing links them."""

    prompts: NDArray[np.bool_]
    ratios: Floats


def _ratio(first: Floats, last: Floats, common: NDArray[np.bool_], tasks: NDArray[np.str_], weights: Floats) -> Floats:
    """Weights of prompts as in the detector's change: 1 / those of its task with a value at the first look."""
    share = common * _task_weights(np.isfinite(first), tasks)
    before, after = (weights @ (np.where(common, values, 0.0) * share) for values in (first, last))
    return np.divide(after, before, out=np.full(len(weights), np.nan), where=before > 0)


def _fit(table: Floats, tasks: NDArray[np.str_], weights: Floats) -> _Link:
    """Look levels of the two-way fit, the last over the first, for every row of weights [draws, prompts].

    The fit is over the prompts that the common ones reach through looks that they share.
    """
    prompts = _linked_prompts(np.isfinite(table))
    linked = np.isfinite(table) & prompts
    if not linked[-1].any():
        return _Link(linked[-1], np.full(len(weights), np.nan))
    table = np.where(linked, table, np.nan)[linked.any(axis=1)]
    there, values = np.isfinite(table).astype(float), np.nan_to_num(table)
    weights = weights * _task_weights(prompts, tasks)
    sums, by_prompt = weights @ values.T, values.sum(axis=0)
    levels = np.ones_like(sums)  # [draws, looks]
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(_ITERATIONS):
            of_prompts = np.divide(by_prompt, levels @ there, out=np.zeros_like(weights), where=prompts)
            new = sums / ((weights * of_prompts) @ there.T)
            new = new / new[:, :1]
            moved = np.abs(new - levels)[np.isfinite(new)]
            levels = np.where(np.isfinite(new), new, levels)
            if not moved.size or moved.max() < _TOLERANCE:
                break
    return _Link(linked[-1], np.where(np.isfinite(new[:, -1]), levels[:, -1], np.nan))


def _linked_prompts(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[prompts]: reached from the prompts of the first look through looks that share a prompt with them."""
    reached = there[0]
    while True:
        more = there[(there & reached).any(axis=1)].any(axis=0)
        if (more == reached).all():
            return reached
        reached = more


def _task_weights(counted: NDArray[np.bool_], tasks: NDArray[np.str_]) -> Floats:
    """[prompts]: 1 / number of counted prompts in the prompt's task."""
    index = np.unique(tasks, return_inverse=True)[1]
    return 1 / np.maximum(np.bincount(index, weights=counted), 1)[index]


def _means(values: Floats, tasks: NDArray[np.str_], weights: Floats) -> Floats:
    """[draws]: equal-weight mean over tasks of their weighted means. A draw without any value of a task takes its mean."""
    there = np.isfinite(values)
    means = []
    for task in np.unique(tasks[there]):
        at = there & (tasks == task)
        counts = weights[:, at].sum(axis=1)
        sums = weights[:, at] @ values[at]
        means.append(np.where(counts > 0, sums / np.maximum(counts, 1), values[at].mean()))
    return np.mean(means, axis=0) if means else np.full(len(weights), np.nan)


def _resamples(tasks: NDArray[np.str_], seed: int) -> Floats:
    """[DRAWS, prompts]: how often each prompt is drawn when prompts are resampled within tasks."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((DRAWS, len(tasks)))
    for task in np.unique(tasks):
        at = np.flatnonzero(tasks == task)
        counts[:, at] = rng.multinomial(len(at), np.full(len(at), 1 / len(at)), size=DRAWS)
    return counts
