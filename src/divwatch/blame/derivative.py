"""How values change when the weights move along a direction: central differences, two forwards and no backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divwatch.blame.nudge import nudged

Floats = NDArray[np.float64]
Move = Callable[[float], AbstractContextManager[Any]]  # inside move(size) the weights are theta + size u
LARGEST = 0.002  # first nudge tried, as a share of the weights' norm
HALVINGS = 5
AGREE = 0.05  # two sizes agree when they differ by so much of the values' root mean square


def central_difference(
    values: Callable[[], Floats], parameters: Sequence[Any], direction: Sequence[Any], size: float
) -> Floats:
    """(values(theta + size u) - values(theta - size u)) / (2 size), [n]; error of order size^2."""
    return difference(values, lambda s: nudged(parameters, direction, s), size)


def difference(values: Callable[[], Floats], move: Move, size: float) -> Floats:
    """The same for weights that `move` moves along u."""
    with move(size):
        up = values()
    with move(-size):
        down = values()
    return (up - down) / (2 * size)


def nudge_size(values: Callable[[], Floats], parameters: Sequence[Any], direction: Sequence[Any]) -> float:
    """The largest of sizes s, s/2, s/4, ... at which half of it gives the same differences; the best one if none does.

    A large nudge bends away from the tangent, a small one drowns in rounding. values: of a few rows, as a probe.
    Returns 0 for a direction of length 0.
    """
    largest = largest_size(norm(parameters), norm(direction))
    return agreeing_size(values, lambda s: nudged(parameters, direction, s), largest)


def largest_size(of_weights: float, of_direction: float) -> float:
    """The first size to try, from the norms of the weights and of the direction; 0 for a direction of length 0."""
    return LARGEST * of_weights / of_direction if of_direction else 0.0


def agreeing_size(values: Callable[[], Floats], move: Move, largest: float) -> float:
    """`nudge_size` for weights that `move` moves along u. largest: the first size tried; 0: returns 0."""
    if not largest:
        return 0.0
    size = largest
    before = difference(values, move, size)
    tried: list[tuple[float, float]] = []
    for _ in range(HALVINGS):
        size /= 2
        now = difference(values, move, size)
        level = float(np.sqrt(np.mean(now**2)))
        gap = float(np.sqrt(np.mean((now - before) ** 2))) / level if level else 0.0
        tried.append((gap, size))
        if gap <= AGREE:
            return size
        before = now
    return min(tried)[1]


def gradient_of_sum(parts: Iterable[Any], parameters: Sequence[Any]) -> list[Any]:
    """The gradient of a sum of scalars, in float32: a tensor for each parameter. `.grad` fields are left alone."""
    import torch

    total = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
    for part in parts:
        for sum_, g in zip(total, torch.autograd.grad(part, list(parameters), allow_unused=True), strict=True):
            if g is not None:
                sum_ += g.float()
    return total


def norm(tensors: Sequence[Any]) -> float:
    """The Euclidean norm over all tensors."""
    return float(sum(float(t.detach().float().square().sum()) for t in tensors) ** 0.5)
