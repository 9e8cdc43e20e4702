"""A copy of the model in training on every rank, moved along a direction, and the optimizer's view of a gradient.

The weights that train are only read, whole, one at a time: from this process, or gathered from ZeRO-3's or FSDP2's shards.
Everything is computed on a plain copy in float32, so weights, gradients, optimizer and engine cannot be touched. The price
is memory: 4 bytes for a weight, 4 for its gradient, which becomes the direction, and 2 where it computes in half precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from divwatch.blame.derivative import Move, largest_size, norm
from divwatch.blame.plain_copy import checkpoint_layers, plain_copy
from divwatch.blame.precondition import preconditioned, second_moments
from divwatch.sampling.memory import free_bytes
from divwatch.sampling.ranks import Ranks
from divwatch.sampling.weights import Source


class Shadow:
    """The copy, `model`, in eval mode. Making it, `direction` and the end of `along` are collectives.

    step: optimizer steps taken so far. optimizer: the trainer's.
    """

    def __init__(self, source: Source, optimizer: Any, step: int, ranks: Ranks) -> None:
        self.source, self.ranks, self.device = source, ranks, source.device
        self._optimizer, self._step, self._sharding = optimizer, step, source.sharding
        live = source.unwrapped
        self._trained = [p for p in live.parameters() if p.requires_grad]
        self.model = plain_copy(live, self._copied)
        checkpoint_layers(self.model)
        self._copies = [p for p in self.model.parameters() if p.requires_grad]
        _link_states(optimizer)
        self._half = next((p.dtype for p in live.parameters() if p.is_floating_point() and p.dtype.itemsize == 2), None)

    def computing(self) -> Any:
        """Inside, the model computes as in training: in half precision where that has it."""
        import torch

        if self._half is not None:
            return torch.autocast(self.device.type, dtype=self._half)
        accelerator = self.source.accelerator
        return accelerator.autocast() if accelerator is not None else nullcontext()

    def direction(self, scale: float) -> list[Any]:
        """P g: a tensor for each weight, with g the sum over ranks of the gradients in the copy, which are removed."""
        directions = []
        for p, copied in zip(self._trained, self._copies, strict=True):
            gradient, copied.grad = copied.grad, None
            gradient = _zeros_like(copied) if gradient is None else gradient.float()
            self._sum(gradient)
            v = self._moment(p)
            directions.append(gradient.zero_() if v is None else preconditioned([gradient], [v], scale)[0])
        return directions

    @contextmanager
    def along(self, direction: Sequence[Any]) -> Iterator[Move]:
        """Inside, what it yields moves the copy: weights in training + size x direction. After, the copy is as before.

        Between moves float32 rounds, by far less than a nudge; at the end the weights are read anew.
        """
        import torch

        at = 0.0

        @contextmanager
        def move(size: float) -> Iterator[None]:
            nonlocal at
            with torch.no_grad():
                for copied, d in zip(self._copies, direction, strict=True):
                    copied.add_(d, alpha=size - at)
            at = size
            yield

        yield move
        with torch.no_grad():
            for p, copied in zip(self._trained, self._copies, strict=True):
                copied.copy_(self._whole(p))

    def largest_size(self, direction: Sequence[Any]) -> float:
        """The first size of a nudge to try."""
        return largest_size(norm(self._copies), norm(direction))

    # the weights in training, read only

    def _copied(self, p: Any) -> Any:
        """A tensor of the copy: frozen weights that this process holds whole are shared with the model in training."""
        import torch

        if not p.requires_grad and self._sharding is None:
            return p.detach()
        return own_tensor(self._whole(p), self.device, torch.float32 if p.requires_grad else p.dtype)

    def _whole(self, p: Any) -> Any:
        """The full values of a parameter, however it is sharded."""
        if hasattr(p, "ds_id"):
            import deepspeed

            with deepspeed.zero.GatheredParameters([p]):
                return p.detach().clone()
        return (p.full_tensor() if hasattr(p, "full_tensor") else p).detach()

    def _moment(self, p: Any) -> Any:
        """Adam's v of a parameter, whole, bias-corrected; None if it never had a gradient."""
        if not (hasattr(p, "ds_id") or hasattr(p, "_hp_mapping")):
            moments = second_moments(self._optimizer, [p])
            v: Any = None if moments is None else moments[0]
            return v.full_tensor() if hasattr(v, "full_tensor") else v
        from deepspeed.utils import safe_get_full_optimizer_state

        v = safe_get_full_optimizer_state(p, "exp_avg_sq")
        beta = self._optimizer.param_groups[0]["betas"][1]
        return None if v is None else v.to(self.device) / (1 - beta**self._step)

    def _sum(self, tensor: Any) -> None:
        if self.ranks.world > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)


def own_tensor(weight: Any, device: Any, dtype: Any) -> Any:
    """A weight of the copy, which shares no memory with the one in training."""
    return weight.to(device, dtype, copy=True)


def why_not_copied(source: Source, ranks: Ranks) -> str | None:
    """One line if a copy of the model does not fit next to training on every rank. A collective."""
    live, sharded = source.unwrapped, source.sharding is not None
    needed = 0
    for p in live.parameters():
        count = getattr(p, "ds_numel", p.numel())
        needed += 10 * count if p.requires_grad else sharded * count * p.element_size()
    free = min(ranks.share(free_bytes(source.device)))
    if needed > 0.9 * free:
        return (
            f"a copy of the model and its gradient take {needed / 2**30:.0f} GiB and {free / 2**30:.0f} GiB are free: run "
            "divwatch blame on its checkpoints"
        )
    return None


def holds_second_moments(optimizer: Any) -> bool:
    """Whether the optimizer holds Adam's v. Under DeepSpeed, which shards its state, by its name."""
    inner = optimizer
    while hasattr(inner, "optimizer"):
        inner = inner.optimizer
    if "DeepSpeed" in type(optimizer).__name__:
        return "adam" in type(inner).__name__.lower()
    return any("exp_avg_sq" in state for state in inner.state.values())


def _link_states(optimizer: Any) -> None:
    """Under ZeRO-1 and 2, makes DeepSpeed find the states of all its parameter groups.

    It links them after the step of the first group, when the others have no state yet, and never again (0.19).
    """
    zero: Any = getattr(optimizer, "optimizer", None)
    if hasattr(zero, "single_partition_of_fp32_groups"):
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        for group, partition in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
            lazy_init_hp_params_optimizer_state(group, partition, zero.optimizer.state)


def _zeros_like(parameter: Any) -> Any:
    import torch

    return torch.zeros_like(parameter, dtype=torch.float32)
