"""Moves weights along a direction and puts them back bit for bit, from a copy.

Works on the tensors that this process holds: whole weights, or its shard of them, when the direction is sharded likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def nudged(parameters: Sequence[Any], direction: Sequence[Any | None], size: float) -> Iterator[None]:
    """Inside: each parameter p is p + size x d. After, exceptions included: p is bit-identical to what it was.

    parameters: tensors, changed in place. direction: a tensor of each parameter's shape, or None to leave it alone.
    Adding and subtracting would not restore a float, so a copy of each changed parameter is kept: as much memory as they
    take. Gradients, the optimizer's state and random states are not touched.
    """
    import torch

    pairs = [
        (_local(p), _local(d)) for p, d in zip(parameters, direction, strict=True) if d is not None and d.numel() > 0
    ]
    copies = [p.detach().clone() for p, _ in pairs]
    try:
        with torch.no_grad():
            for p, d in pairs:
                p.add_(d.to(p.device, p.dtype), alpha=size)
        yield
    finally:
        with torch.no_grad():
            for (p, _), copy in zip(pairs, copies, strict=True):
                p.copy_(copy)


def _local(tensor: Any) -> Any:
    """The part of a sharded tensor (DTensor, as FSDP2 makes them) that this rank holds; the data of any other."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.detach()
