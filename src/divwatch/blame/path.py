"""The change of diversity along the way that the weights took from checkpoint to checkpoint.

Diversity at the end minus diversity at the start is the integral of its gradient along any way between the two models. Here
the way is the straight lines between checkpoints, and the trapezoidal rule makes the integral a sum over checkpoints:

    sum_k <grad D(theta_k), (theta_{k+1} - theta_{k-1}) / 2>,    with theta_k itself where it has no neighbour.

No learning rate, preconditioner or row is in it. So it holds whatever moved the weights: also momentum, weight decay and the
noise of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from divwatch.blame.load import load_model
from divwatch.errors import DivwatchError


def displacement(model: Any, before: str | None, after: str | None) -> list[Any]:
    """Half the way from checkpoint `before` to checkpoint `after`: a tensor for each trainable parameter of `model`.

    None: `model` stands at that end of the run, and counts as its own neighbour. Raises DivwatchError if the weights have
    other shapes.
    """
    way = [p.detach().new_zeros(p.shape) for p in model.parameters() if p.requires_grad]
    for path, sign in ((after, 0.5), (before, -0.5)):
        neighbour = model if path is None else load_model(path, str(model.device))
        weights = [p.detach() for p in neighbour.parameters() if p.requires_grad]
        if [p.shape for p in weights] != [p.shape for p in way]:
            raise DivwatchError(
                f"{path} has weights of other shapes than its neighbour among the checkpoints: give checkpoints of one run, "
                "and the model that it started from with the same tokens"
            )
        for total, p in zip(way, weights, strict=True):
            total.add_(p, alpha=sign)
    return way


def inner_product(one: Sequence[Any], other: Sequence[Any]) -> float:
    """<one, other> over all tensors."""
    return float(sum(float((a * b).sum()) for a, b in zip(one, other, strict=True)))
