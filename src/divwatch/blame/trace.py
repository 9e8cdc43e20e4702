"""What a checkpoint's trainer_state.json says about the run so far: its step, learning rates and gradient norms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divwatch.errors import DivwatchError
from divwatch.files import read_json_object

Floats = NDArray[np.float64]


class Checkpoint(NamedTuple):
    """A model along a run. step: optimizer steps before it. history: the trainer's log up to it."""

    path: str
    step: int
    history: list[dict[str, Any]]
    batch: int | None

    def clipping(self, largest: float) -> float:
        """What clipping to `largest` (0: none) left of the gradients of the last logged steps, in (0, 1]; 1 if not known."""
        if not largest:
            return 1.0
        norms = [float(row["grad_norm"]) for row in self.history if row.get("grad_norm")][-10:]
        return float(np.median([min(1.0, largest / norm) for norm in norms if norm > 0] or [1.0]))


def read_checkpoint(path: str) -> Checkpoint:
    """The checkpoint of a directory or hub name. Without a trainer_state.json it is at step 0, with an empty history."""
    file = Path(path) / "trainer_state.json"
    if not file.is_file():
        return Checkpoint(path, 0, [], None)
    state = read_json_object(file)
    step, batch = state.get("global_step"), state.get("train_batch_size")
    if not isinstance(step, int) or step < 0:
        raise DivwatchError(f"{file} has global_step {step!r}: give a checkpoint that the trainer saved")
    history = [row for row in state.get("log_history") or [] if isinstance(row, dict)]
    return Checkpoint(path, step, history, batch if isinstance(batch, int) else None)


def in_order(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """By step. One of another run, as its log tells, is what the run started from, at step 0.

    Raises DivwatchError if two are of other runs, or at the same step. The run is that of the last one in `checkpoints`.
    """
    others = [c for c in checkpoints if not _same_run(c, checkpoints[-1])]
    if len(others) > 1:
        raise DivwatchError(
            f"{others[1].path} and {checkpoints[-1].path} are of different runs: give checkpoints of one run, and at most one "
            "model that it started from"
        )
    ordered = sorted((Checkpoint(c.path, 0, [], None) if c in others else c for c in checkpoints), key=lambda c: c.step)
    for one, other in pairwise(ordered):
        if one.step == other.step:
            raise DivwatchError(
                f"{one.path} and {other.path} are both at step {one.step}: give checkpoints of one run, "
                "with their trainer_state.json, and at most one model that it started from"
            )
    return ordered


def _same_run(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether the log of one begins with that of the other, as a trainer continues its log."""
    first, second = ([json.dumps(row, sort_keys=True) for row in c.history] for c in (one, other))
    shared = min(len(first), len(second))
    return first[:shared] == second[:shared]


def learning_rates(checkpoints: Sequence[Checkpoint], steps: int, default: float) -> Floats:
    """The learning rate of each of the steps 1 .. `steps`, linear between logged ones; `default` if none is logged."""
    logged = {
        int(row["step"]): float(row["learning_rate"])
        for checkpoint in checkpoints
        for row in checkpoint.history
        if "learning_rate" in row and "step" in row
    }
    if not logged:
        return np.full(steps, default)
    at = sorted(logged)
    return np.interp(np.arange(1, steps + 1), at, [logged[step] for step in at])


def share_of_learning(rates: Floats, at: Sequence[int]) -> Floats:
    """Learning rates, summed over the steps that each checkpoint stands for, [checkpoints].

    at: steps of the checkpoints, rising. A step between two checkpoints counts for both by its distance (the trapezoidal rule);
    one before the first or after the last, for that one.

    >>> share_of_learning(np.ones(4), [0, 4]).tolist(), share_of_learning(np.ones(4), [2]).tolist()
    ([2.5, 1.5], [4.0])
    """
    place = np.interp(np.arange(len(rates)), at, np.arange(len(at)))  # a step starts from the weights before it
    left = np.floor(place).astype(int)
    right = np.minimum(left + 1, len(at) - 1)
    total = np.zeros(len(at))
    np.add.at(total, left, rates * (1 - (place - left)))
    np.add.at(total, right, rates * (place - left))
    return total
