"""From what the checkpoints say to the answer: effects by source and task, the check on itself, rows, a better mix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divwatch.blame.data import TrainingData
from divwatch.blame.estimate import Effects, loss_shares, robust_mean, source_effects
from divwatch.blame.offline import Measured
from divwatch.blame.remix import halving_factors, held_back
from divwatch.blame.trace import Checkpoint
from divwatch.blame.weights import prompt_shares
from divwatch.errors import DivwatchError

Floats = NDArray[np.float64]
ALL = "all"
SHOWN = 10  # rows that narrow most, and as many that narrow least


class Blame(NamedTuple):
    """The answer for a run.

    effects: `all` and each task -> Effects. rows: [rows], effect of training on nothing but copies of this row.
    start:   diversity at the first checkpoint, by task. observed: its change up to the last one; None with a single checkpoint.
    curve:   diversity at each checkpoint (`all`). parts: what each adds to the predicted change of the whole mix.
    first_order: sum of the effects that the rows' own gradients give.
    steps:   optimizer steps that the effects are summed over. factors: source -> factor on its rows; None: no suggestion.
    """

    checkpoints: list[Checkpoint]
    sources: list[str]
    effects: dict[str, Effects]
    rows: Floats
    start: dict[str, float]
    observed: dict[str, float] | None
    curve: list[float]
    parts: list[float]
    first_order: float
    steps: int
    factors: dict[str, float] | None


def conclude(
    checkpoints: Sequence[Checkpoint],
    measured: Sequence[Measured],
    learning: Floats,
    data: TrainingData,
    steps: int,
    seed: int = 0,
) -> Blame:
    """Sums the checkpoints up, each times its `learning` (`share_of_learning`).

    A task counts where every checkpoint has a value for it; `all` is the mean over these tasks (measured without tasks, over
    those of each checkpoint). Raises DivwatchError if there is no such task.
    """
    tasks = [t for t in dict.fromkeys(measured[0].look.tasks) if all(_has_value(m, t) for m in measured)]
    if not tasks:
        raise DivwatchError("no task has a value at every checkpoint: raise --samples, or leave out a checkpoint")
    places = {t: [i for i, task in enumerate(measured[0].look.tasks) if task == t] for t in tasks}
    of_source = [data.sources.index(label) for label in data.labels]
    shares = np.array([data.shares[s] for s in data.sources])
    of_rows = [_with_all(m.rows, tasks) for m in measured]
    of_path = [_with_all(m.path, tasks) for m in measured if m.path is not None]
    influence = _influence(measured, learning, places)

    over_run = {
        t: np.tensordot(learning, np.stack([m[t] for m in of_rows]), axes=1) for t in (ALL, *tasks) if t in of_rows[0]
    }

    def effects(task: str) -> Effects:
        path = sum(m[task] for m in of_path) if of_path else None
        prompts = [places[t] for t in tasks if task in (ALL, t)]
        return source_effects(over_run[task], of_source, shares, influence, prompts, seed, path)

    by_task = {t: effects(t) for t in over_run}
    parts = [learned * _mix_effect(m[ALL], of_source, shares) for m, learned in zip(of_rows, learning, strict=True)]
    first_order = _mix_effect(over_run[ALL], of_source, shares)
    levels = [_levels(m, tasks) for m in measured]
    observed = {t: levels[-1][t] - levels[0][t] for t in levels[0]} if len(measured) > 1 else None
    means = held_back(by_task[ALL].effect / shares, shares)
    factors = halving_factors(means, shares, by_task[ALL].blamed, observed[ALL] if observed else None)
    return Blame(
        list(checkpoints),
        data.sources,
        by_task,
        over_run[ALL] + by_task[ALL].total - first_order,
        levels[0],
        observed,
        [level[ALL] for level in levels],
        [m[ALL] for m in of_path] or parts,
        first_order,
        steps,
        None if factors is None else {s: float(f) for s, f in zip(data.sources, factors, strict=True)},
    )


def _has_value(measured: Measured, task: str) -> bool:
    return any(
        np.isfinite(p.value) for t, p in zip(measured.look.tasks, measured.look.prompts, strict=True) if t == task
    )


def _with_all(values: dict[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """With `all`, the mean over `tasks`, where it was not measured itself."""
    return values if ALL in values else values | {ALL: np.mean([values[t] for t in tasks], axis=0)}


def _mix_effect(rows: Floats, of_source: Sequence[int], shares: Floats) -> float:
    return float(shares @ [robust_mean(rows[np.array(of_source) == s])[0] for s in range(len(shares))])


def _influence(measured: Sequence[Measured], learning: Floats, places: dict[str, list[int]]) -> Floats:
    """[prompts, K, columns], summed over checkpoints sample by sample: looks that share random numbers may err alike.

    The weights' path has no learning rate. A prompt without a value at a checkpoint adds nothing there, and the others of its
    task count for more.
    """
    total = np.zeros_like(measured[0].influence)
    for m, learned in zip(measured, learning, strict=True):
        shares = prompt_shares(m.look.tasks, m.look.values)
        weight = np.full(total.shape[-1], learned)
        if m.path is not None:
            weight[-1] = 1.0
        for task, mine in places.items():
            total[mine] += weight * len(mine) * shares[task][mine, None, None] * m.influence[mine]
    return total


def _levels(measured: Measured, tasks: Sequence[str]) -> dict[str, float]:
    shares = prompt_shares(measured.look.tasks, measured.look.values)
    levels = {t: float(shares[t] @ np.nan_to_num(measured.look.values)) for t in tasks}
    return levels | {ALL: float(np.mean(list(levels.values())))}


def to_json(blame: Blame, data: TrainingData, observed: float | None, shown: int = SHOWN) -> dict[str, Any]:
    """The result as plain values. observed: the change of diversity of the run. shown: rows at either end."""
    whole = blame.effects[ALL]
    sources: dict[str, dict[str, dict[str, Any]]] = {}
    for s, name in enumerate(blame.sources):
        sources[name] = {}
        for task, e in blame.effects.items():
            sources[name][task] = {
                "effect": float(e.effect[s]),
                "ci95": _interval(e.low[s], e.high[s]),
                "share": float(loss_shares(e.effect)[s]),
                "percent": 100 * float(e.effect[s]) / blame.start[task] if blame.start[task] else None,
                "plain": float(e.plain[s]),
                "instead": float(e.instead[s]),
                "instead_ci95": _interval(e.instead_low[s], e.instead_high[s]),
            }
    order = np.argsort(blame.rows)
    ends = [*order[:shown], *(i for i in order[-shown:] if i not in order[:shown])]
    return {
        "checkpoints": [
            {"path": c.path, "step": c.step, "diversity": level, "predicted": part}
            for c, level, part in zip(blame.checkpoints, blame.curve, blame.parts, strict=True)
        ],
        "steps": blame.steps,
        "diversity": blame.start,
        "sources": sources,
        "blamed": [name for name, flag in zip(blame.sources, whole.blamed, strict=True) if flag],
        "explained": {
            "predicted": whole.total,
            "observed": observed,
            "ci95": _interval(whole.total_low, whole.total_high),
            "share": whole.total / observed if observed else None,
            "first_order": blame.first_order,
        },
        "rows": [
            {"source": data.labels[i], "effect": float(blame.rows[i]), "text": row_text(data.rows[int(i)])}
            for i in ends
        ],
        "mix_weight": blame.factors,
    }


def _interval(low: float, high: float) -> list[float | None]:
    return [float(x) if np.isfinite(x) else None for x in (low, high)]


def row_text(row: dict[str, Any]) -> str:
    """A training row as one text: its turns, or its prompt and answers.

    >>> row_text({"prompt": "Why?", "chosen": "So.", "rejected": "No.", "source": "a"})
    'prompt: Why?\\nchosen: So.\\nrejected: No.'
    """
    parts = []
    for name in ("messages", "prompt", "completion", "chosen", "rejected", "text"):
        value = row.get(name)
        if isinstance(value, str):
            parts.append(f"{name}: {value}")
        elif value:
            parts += [f"{_speaker(name, turn)}: {turn.get('content') or ''}" for turn in value]
    return "\n".join(parts)


def _speaker(column: str, turn: dict[str, Any]) -> str:
    return column if column in ("chosen", "rejected") else str(turn.get("role", column))
