"""Stages of a lineage out of the store: what each kept of the base's diversity, and which was flagged first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from divwatch.analysis.noise import PRIOR_WOBBLE
from divwatch.analysis.stages import StageAttribution, stage_attribution
from divwatch.errors import DivwatchError
from divwatch.records import PromptScores
from divwatch.store.reader import RunReader

Values = dict[str, dict[str, np.ndarray]]


def stage_values(chain: Sequence[RunReader], key: str = "diversity/sbert") -> tuple[Values, list[str]]:
    """({stage: {task: values}}, order): per-prompt values at the base and at the last comparable look of each run.

    `chain` is a lineage, oldest run first (`store.lineage_of`). The base is the first comparable look of its first run.
    Prompts are paired by id. Raises DivwatchError where a run has no comparable look, or less than half of the first's panel.
    """
    base = chain[0].scores(_comparable_steps(chain[0])[0])
    values, order = {"base": _by_task(base, base, key)}, ["base"]
    for run in chain:
        info = run.info()
        if not _comparable_panels(chain[0].info()["panel"], info["panel"]):
            raise DivwatchError(
                f"{run.path} was watched with another panel than {chain[0].path}: use one panel and seed"
            )
        stage = info["stage"] if info["stage"] not in values else f"{info['stage']}-{len(order)}"
        values[stage] = _by_task(base, run.scores(_comparable_steps(run)[-1]), key)
        order.append(stage)
    return values, order


def attribution(chain: Sequence[RunReader], key: str = "diversity/sbert", min_drop: float = 0.05) -> StageAttribution:
    """`stage_attribution` over the runs of a lineage."""
    values, order = stage_values(chain, key)
    return stage_attribution(values, order, min_drop, wobble=PRIOR_WOBBLE)


def flagged_stage(chain: Sequence[RunReader]) -> str | None:
    """The first stage in whose run the whole panel's alarm was raised, as it was raised live; None: in none."""
    for run in chain:
        if any(event["task"] == "all" for event in run.events()):
            return run.info()["stage"]
    return None


def _comparable_panels(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Half of the prompts in common: a stage leaves out those that are in its own training data."""
    first, second = ({(p["id"], p["text"]) for p in panel["prompts"]} for panel in (one, other))
    return 2 * len(first & second) >= min(len(first), len(second))


def _comparable_steps(run: RunReader) -> list[int]:
    steps = [look["step"] for look in run.looks() if look["status"] == "ok"]
    if not steps:
        raise DivwatchError(f"{run.path} has no comparable look: see looks.jsonl for the reasons")
    return steps


def _by_task(base: PromptScores, scores: PromptScores, key: str) -> dict[str, np.ndarray]:
    """Values by task in the base's order of prompts; a task in which nothing can be computed is left out."""
    at = {prompt: i for i, prompt in enumerate(scores.ids)}
    column = np.array([scores.values[key][at[i]] if i in at else np.nan for i in base.ids])
    tasks, known = np.array(base.tasks), np.isfinite(base.values[key])
    return {task: column[tasks == task] for task in dict.fromkeys(base.tasks) if known[tasks == task].any()}
