"""From the gradient of diversity to a direction in which the optimizer moves weights.

Adam's expected step on a batch gradient g is -lr P g with P = 1 / sqrt(v), v the running mean of g^2 that it holds. From a
checkpoint's optimizer.pt where there is one; otherwise v is the mean of g^2 over batches of the mix at this checkpoint, which
leaves out what the run's past left in Adam's state.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# P is capped where v is far below the tensor's own level, as for the embeddings of tokens that the batches did not hold:
# sqrt(v) counts as at least this share of its root mean square over the tensor.
FLOOR = 0.05


def of_optimizer(trainer: Any, checkpoint: Path, parameters: Sequence[Any]) -> list[Any] | None:
    """v of each parameter, bias-corrected, from CHECKPOINT/optimizer.pt; None if it is not there or holds no v.

    The file is read with `torch.load(weights_only=True)`, which runs no code.
    """
    import torch

    path = checkpoint / "optimizer.pt"
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        trainer.create_optimizer()
        trainer.optimizer.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        return None
    return second_moments(trainer.optimizer, parameters)


def second_moments(optimizer: Any, parameters: Sequence[Any]) -> list[Any] | None:
    """Adam's v of each parameter, bias-corrected; None if the optimizer holds none for one of them."""
    beta = {id(p): group.get("betas", (0.0, 0.0))[1] for group in optimizer.param_groups for p in group["params"]}
    moments = []
    for p in parameters:
        state = optimizer.state.get(p, {})
        steps = float(state.get("step", 0))
        if "exp_avg_sq" not in state or steps < 1:
            return None
        moments.append(state["exp_avg_sq"] / (1 - beta[id(p)] ** steps))
    return moments


def of_batches(losses: Any, batches: Sequence[Sequence[int]], parameters: Sequence[Any]) -> list[Any]:
    """v of each parameter: the mean of g^2 over batches of rows."""
    import torch

    total = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
    for rows in batches:
        for sum_, g in zip(total, losses.gradient(rows, parameters), strict=True):
            sum_ += g * g / len(batches)
    return total


def preconditioned(gradient: Sequence[Any], moments: Sequence[Any], scale: float = 1.0) -> list[Any]:
    """P g for each parameter: scale x g / sqrt(v). scale: what gradient clipping leaves of a gradient, in (0, 1]."""
    direction = []
    for g, v in zip(gradient, moments, strict=True):
        root = v.float().sqrt()
        level = root.square().mean().sqrt()
        direction.append(scale * g / (root.clamp(min=FLOOR * float(level)) + 1e-8))
    return direction
