"""Curves, comparisons of runs, the split and stages on simulated data of known truth: bias, false findings, coverage.

    python benchmarks/comparisons.py --runs 400 --write docs/ablations.md

About 20 minutes of one core. Values are those of prompts, or of completions that are drawn one by one where it matters
(curves and split).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from divwatch.analysis.compare import Item, compare_arms
from divwatch.analysis.run_noise import wobble_of_looks

DRAWS = 600


# comparisons of runs


def wobbles(rng: np.random.Generator, shape: tuple[int, ...], sd: Any, rho: float) -> Any:
    """[..., looks] first-order autoregression."""
    w = rng.standard_normal(shape)
    for look in range(1, shape[-1]):
        w[..., look] = rho * w[..., look - 1] + np.sqrt(1 - rho**2) * w[..., look]
    return w * sd


def single_runs(
    seed: int,
    wobble: float,
    looks: int = 21,
    rho: float = 0.0,
    prompts: int = 72,
    times: float = 1.0,
    effect: float = 0.0,
) -> dict[str, bool]:
    """Two arms with one run each. Every prompt's value has noise of its own; all of a look share the wobble."""
    rng = np.random.default_rng(seed)
    tasks = [f"t{i % 6}" for i in range(prompts)]
    level = rng.uniform(0.1, 0.6, prompts)
    tables, noises = {}, {}
    for measure in ("a", "b"):
        shared = wobbles(rng, (2, looks), np.array([[wobble * times], [wobble]]), rho)
        runs = level * (1 + shared[:, :, None]) + 0.03 * rng.standard_normal((2, looks, prompts))
        runs[0, -1] += effect * level
        tables[measure] = runs[:, -1:, :].transpose(0, 1, 2)
        noises[measure, "all"] = [wobble_of_looks(range(looks), series(run, tasks)) for run in runs]
    found = compare_arms(tables, tasks, [Item("b", 1, 0)], draws=DRAWS, wobbles=noises)
    return verdict(found.effects, {"b": -effect * float(level.mean())})


def series(run: Any, tasks: list[str]) -> Any:
    return run


def ablation(
    seed: int, arms: int = 5, seeds: int = 3, wobble: float = 0.01, interaction: float = 0.0, times: float = 1.0,
    noise: float = 0.04, prompts: int = 72, effects: tuple[float, ...] = (),
) -> dict[str, bool]:  # fmt: skip
    """Arms whose runs wobble, with seeds as blocks; `times`: the last arm's wobble is that many times the others'."""
    rng = np.random.default_rng(seed)
    sds = np.full((arms, 1, 1), wobble)
    sds[-1] *= times
    truth = np.array([0.0, *effects]) if effects else np.zeros(arms)
    tables = {}
    for measure in ("a", "b"):
        values = rng.uniform(0.1, 0.6, prompts) + interaction * rng.standard_normal((arms, 1, prompts))
        values = values + sds * rng.standard_normal((arms, seeds, 1)) + wobble * rng.standard_normal((1, seeds, 1))
        tables[measure] = values + noise * rng.standard_normal((arms, seeds, prompts)) + truth[:, None, None]
    items = [Item(f"s{i}", i, 0) for i in range(1, arms)]
    found = compare_arms(tables, [f"t{i % 6}" for i in range(prompts)], items, draws=DRAWS)
    true = {f"s{i}": truth[i] for i in range(arms)}
    return verdict([*found.effects, *found.pairs], true)


def verdict(effects: Any, truth: dict[str, float]) -> dict[str, bool]:
    """finding: any interval without its true value. covered: all intervals hold it."""
    missed = any(not e.lo <= truth[e.name] - (truth[e.other] if e.other else 0.0) <= e.hi for e in effects)
    width = float(np.mean([e.hi - e.lo for e in effects]))
    return {"false": missed, "width": width}
