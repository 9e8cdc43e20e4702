"""At which stage of a lineage diversity was lost: the one computation behind the report and the lineage experiment."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from divwatch.analysis.history import History
from divwatch.analysis.run_noise import relative_wobble
from divwatch.analysis.series_fit import PRIOR_WOBBLE
from divwatch.analysis.stages import StageAttribution, stage_attribution
from divwatch.store.tables import RunTables


def attribute_stages(
    runs: Sequence[RunTables],
    key: str,
    names: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
    min_drop: float = 0.05,
) -> StageAttribution | None:
    """The loss of `key` by stage, from the base's first comparable look to the last one of each stage.

    runs: a lineage, oldest run first. names: of its stages, each once (default: as recorded). numbers: the stages to
    count (default: all); what happens between two of them then counts to the later one. Prompts are paired by task and
    id; only those with a value at every stage count. Intervals hold the wobble of each stage's own looks. None if there
    are none, or no look is comparable.
    """
    names = [run.stage for run in runs] if names is None else names
    counted = range(len(runs)) if numbers is None else numbers
    ends = [(n, step) for n in counted if (step := runs[n].last_comparable()) is not None]
    base = first_comparable(runs)
    if base is None or not ends:
        return None
    stages = [names[n] for n, _ in ends]
    order = [_base_name(stages), *stages]
    looks = [runs[n].values_at(step, key) for n, step in [base, *ends]]
    table = pd.concat(looks, axis=1, keys=range(len(looks))).dropna()
    tasks = [t for t, part in table.groupby(level="task", sort=False) if part[0].mean() > 0]
    if not tasks:
        return None
    values = {
        stage: {task: table.xs(task, level="task")[i].to_numpy() for task in tasks} for i, stage in enumerate(order)
    }
    wobbles = [_wobble(runs[n], key) for n in (base[0], *(n for n, _ in ends))]
    return stage_attribution(values, order, min_drop=min_drop, wobble=dict(zip(order, wobbles, strict=True)))


def _base_name(stages: Sequence[str]) -> str:
    """A name for the base that no stage has: a model called `base` may be measured or imported as a stage."""
    name = "base"
    while name in stages:
        name = f"before {name}"
    return name


def _wobble(run: RunTables, key: str) -> float:
    """How much the checkpoints of a run wobble, from its comparable looks."""
    history = History.of(
        [(step, run.prompt_scores(step), True) for step, comparable in run.scored_looks() if comparable]
    )
    if key not in history.values:
        return PRIOR_WOBBLE
    return relative_wobble(history.steps, history.series(key))


def first_comparable(runs: Sequence[RunTables]) -> tuple[int, int] | None:
    """(stage number, step) of the look that counts as the base. None: no look is comparable."""
    looks = ((n, step) for n, run in enumerate(runs) for step, comparable in run.scored_looks() if comparable)
    return next(looks, None)
