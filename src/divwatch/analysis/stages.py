"""At which stage of a lineage (base, SFT, DPO, RL) diversity went, as shares of the base's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divwatch.analysis.intervals import DRAWS, percentile_interval, resampled_means
from divwatch.analysis.series_fit import PRIOR_WOBBLE
from divwatch.errors import DivwatchError

Floats = NDArray[np.float64]

PRIOR_LOOKS = 4.0  # degrees of freedom of the wobble that is assumed where none is given


@dataclass(frozen=True)
class StageAttribution:
    """Loss of diversity by stage. Shares are of the base: -0.62 = 62 % of the base's diversity went at this stage.

    order:             the stages, base first.
    share:             stage -> mean over tasks of (value - value at the stage before) / value at the base.
    retained:          mean over tasks of value at the last stage / value at the base: 1 + the sum of `share`.
    first_collapse:    the first stage that lost more than `min_drop`, with its whole interval if any; None: no stage.
    task_share:        stage -> task -> share. task_retained: task -> retained.
    interval:          stage -> 95 % interval of `share`, prompts resampled in pairs within tasks; None: bare values.
    retained_interval: the same of `retained`. task_interval: stage -> task -> interval.
    prompts:           task -> prompts that every stage has; None for bare values.
    """

    order: list[str]
    share: dict[str, float]
    retained: float
    first_collapse: str | None
    task_share: dict[str, dict[str, float]]
    task_retained: dict[str, float]
    interval: dict[str, tuple[float, float]] | None
    retained_interval: tuple[float, float] | None
    task_interval: dict[str, dict[str, tuple[float, float]]] | None
    prompts: dict[str, int] | None


def stage_attribution(
    values: Mapping[str, Mapping[str, ArrayLike]],
    order: Sequence[str],
    min_drop: float = 0.05,
    wobble: float | Mapping[str, float] | None = None,
    seed: int = 0,
) -> StageAttribution:
    """Where along `order` diversity was lost.

    values: stage -> task -> one number, or one number a prompt (the same prompts in the same order at every stage, NaN
    where not computable). order: stages from the base on. Only tasks that every stage has count, and of those only the
    prompts that every stage has, so shares add up to retained - 1 exactly. min_drop: relative loss. wobble:
    relative sd of a checkpoint's mean beyond its prompts, of all stages or by stage, in the intervals. One look a stage
    cannot show it: give that of the stages' runs (`CollapseStatus.wobble`), or leave it to the default, `PRIOR_WOBBLE`
    (1 %), taken to be as sure as four looks make it. 0: prompts alone.
    Raises DivwatchError on a missing stage, no task in common, unpaired prompts, or a base that is not positive.
    Source: Karouzos, Tan and Aletras (2026, arXiv 2604.16027), table 1.

    >>> found = stage_attribution({"base": {"a": 0.4}, "sft": {"a": 0.2}, "dpo": {"a": 0.1}}, ["base", "sft", "dpo"])
    >>> found.share, found.retained, found.first_collapse
    ({'sft': -0.5, 'dpo': -0.25}, 0.25, 'sft')
    """
    order = list(order)
    tasks = _common_tasks(values, order)
    tables = {task: _paired_table([values[stage][task] for stage in order], task, order) for task in tasks}
    means = np.array([table.mean(axis=0) for table in tables.values()])
    if not (means[:, 0] > 0).all():
        task = tasks[int(np.argmin(means[:, 0] > 0))]
        raise DivwatchError(
            f"task {task!r} has a mean of {means[:, 0].min():g} at {order[0]!r}: shares need it above 0"
        )
    shares = np.diff(means, axis=1) / means[:, :1]
    later = order[1:]
    share = dict(zip(later, shares.mean(axis=0).tolist(), strict=True))
    intervals = None
    if max(len(table) for table in tables.values()) > 1:
        intervals = _Intervals(tables, _shared(wobble, order, seed + len(tables)), seed)
    reach = {s: intervals.of_share(i)[1] if intervals else share[s] for i, s in enumerate(later)}
    return StageAttribution(
        order=order,
        share=share,
        retained=float((means[:, -1] / means[:, 0]).mean()),
        first_collapse=next((s for s in later if share[s] < -min_drop and not reach[s] >= -min_drop), None),
        task_share={s: dict(zip(tasks, shares[:, i].tolist(), strict=True)) for i, s in enumerate(later)},
        task_retained=dict(zip(tasks, (means[:, -1] / means[:, 0]).tolist(), strict=True)),
        interval={s: intervals.of_share(i) for i, s in enumerate(later)} if intervals else None,
        retained_interval=intervals.of_retained() if intervals else None,
        task_interval={s: intervals.of_tasks(i) for i, s in enumerate(later)} if intervals else None,
        prompts={task: len(table) for task, table in tables.items()} if intervals else None,
    )


def _common_tasks(values: Mapping[str, Mapping[str, ArrayLike]], order: list[str]) -> list[str]:
    if len(order) < 2 or len(set(order)) < len(order):
        raise DivwatchError(f"order is {order}: give the base and at least one stage after it, each once")
    missing = [stage for stage in order if stage not in values]
    if missing:
        raise DivwatchError(f"no values for stage {missing[0]!r}: the stages given are {', '.join(values)}")
    tasks = [task for task in values[order[0]] if all(task in values[stage] for stage in order)]
    if not tasks:
        raise DivwatchError("no task has values at every stage: measure the stages on the same panel")
    return tasks


def _paired_table(columns: list[ArrayLike], task: str, order: list[str]) -> Floats:
    """[prompts, stages], rows that every stage has; one row for bare values."""
    arrays = [np.atleast_1d(np.asarray(column, dtype=float)) for column in columns]
    for stage, array in zip(order, arrays, strict=True):
        if array.shape != arrays[0].shape or array.ndim != 1:
            raise DivwatchError(
                f"task {task!r} has {array.shape} values at {stage!r} and {arrays[0].shape} at {order[0]!r}: "
                "give the same prompts in the same order"
            )
    table = np.column_stack(arrays)
    table = table[np.isfinite(table).all(axis=1)]
    if not len(table):
        raise DivwatchError(f"task {task!r} has no prompt with a value at every stage: leave the task out")
    return table


def _shared(wobble: float | Mapping[str, float] | None, order: list[str], seed: int) -> Floats:
    """[DRAWS, stages] relative errors that all prompts of a stage's checkpoint share."""
    rng = np.random.default_rng(seed)
    if wobble is None:
        return PRIOR_WOBBLE * rng.standard_t(PRIOR_LOOKS, (DRAWS, len(order)))
    sizes = [wobble.get(stage, PRIOR_WOBBLE) if isinstance(wobble, Mapping) else wobble for stage in order]
    return rng.standard_normal((DRAWS, len(order))) * sizes


class _Intervals:
    """Bootstrap over prompts within tasks; checkpoint wobble, common to all tasks of a stage, on top."""

    def __init__(self, tables: dict[str, Floats], shared: Floats, seed: int) -> None:
        self.tasks = list(tables)
        self.sizes = {task: len(table) for task, table in tables.items()}
        self.positive = all((table >= 0).all() for table in tables.values())
        draws = np.stack([resampled_means(t, seed=seed + i) for i, t in enumerate(tables.values())])
        self.draws = draws * (1 + shared)
        self.shares = self._of_base(np.diff(self.draws, axis=2))

    def of_share(self, index: int) -> tuple[float, float]:
        return self._over_tasks(self.shares[:, :, index])

    def of_retained(self) -> tuple[float, float]:
        lo, hi = self._over_tasks(self._of_base(self.draws[:, :, -1:])[:, :, 0])
        return (max(lo, 0.0) if self.positive else lo), hi  # no more than all can be lost

    def of_tasks(self, index: int) -> dict[str, tuple[float, float]]:
        rows = zip(self.tasks, self.shares[:, :, index], strict=True)
        return {task: percentile_interval(row, self.sizes[task]) for task, row in rows}

    def _of_base(self, draws: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):  # a base without diversity: intervals leave the draw out
            return draws / self.draws[:, :, :1]

    def _over_tasks(self, ratios: Floats) -> tuple[float, float]:
        # Tasks of a single prompt cannot be resampled; the others still vary.
        return percentile_interval(ratios.mean(axis=0), sum(self.sizes.values()), strata=len(self.sizes))
