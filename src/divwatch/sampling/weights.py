"""The true model on every rank, however its weights are sharded: gathered whole, or forwards in step.

Replicated weights (one process, DDP, ZeRO-1, ZeRO-2, LoRA) need nothing: each rank samples on its own. Sharded ones
(ZeRO-3, FSDP2) are gathered on every rank for the length of a look where they fit; a forward is then local. Where they
do not fit they stay sharded, every forward is a collective, and the ranks decode in step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from divwatch.errors import DivwatchError
from divwatch.sampling.ranks import Ranks


class Source(NamedTuple):
    """What completions are sampled from: the trainer's (wrapped) model and its accelerator; no accelerator: the model."""

    model: Any
    accelerator: Any = None

    @property
    def unwrapped(self) -> Any:
        if self.accelerator is None:
            return self.model
        # A compiled forward would be compiled anew for each length.
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    @property
    def device(self) -> Any:
        """Where to compute: not always where the weights are stored, which may be offloaded."""
        return self.model.device if self.accelerator is None else self.accelerator.device

    @property
    def sharding(self) -> str | None:
        """zero3, fsdp2, or None if every rank holds the whole model."""
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return None
        plugin = self.accelerator.state.deepspeed_plugin
        if plugin is not None:
            return "zero3" if plugin.zero_stage == 3 else None
        if _is_fsdp2(self.unwrapped):
            return "fsdp2"
        if getattr(self.accelerator.state, "fsdp_plugin", None) is not None:
            raise DivwatchError("FSDP version 1 cannot be watched: set fsdp_version: 2 (configs/accelerate/fsdp2.yaml)")
        return None


def fits(source: Source, ranks: Ranks, free_bytes: float) -> bool:
    """Whether the whole model fits on every rank beside what is there (a tenth of the memory is left alone)."""
    needed = sum(_whole_bytes(p) for p in source.unwrapped.parameters())
    return not ranks.any(needed > 0.9 * free_bytes, source.device)


@contextmanager
def reading(source: Source, gather: bool) -> Iterator[None]:
    """Inside, `source.unwrapped` can be called: by each rank alone where `gather` or nothing is sharded, else in step.

    Entering and leaving are collectives where weights are sharded. fp32 weights under autocast are cast once, not at
    every token.
    """
    with source.accelerator.autocast() if source.accelerator is not None else nullcontext():
        if source.sharding == "zero3":
            with _gathered_zero3(source) if gather else _sharded_zero3(source):
                yield
        elif source.sharding == "fsdp2":
            with _gathered_fsdp2(source) if gather else nullcontext():
                yield
        else:
            yield


@contextmanager
def _gathered_zero3(source: Source) -> Iterator[None]:
    import deepspeed
    from trl.models.utils import add_hooks, remove_hooks

    with deepspeed.zero.GatheredParameters(list(source.unwrapped.parameters())):
        try:
            remove_hooks(source.model)
            yield
        finally:
            add_hooks(source.model)


@contextmanager
def _sharded_zero3(source: Source) -> Iterator[None]:
    """DeepSpeed foresees the order in which weights are needed from the forwards it saw; a look's are none of training's.

    It is made to forget them, or the backward of the next step would miss weights.
    """
    try:
        yield
    finally:
        source.model.empty_partition_cache()
        coordinator = source.model.optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()


@contextmanager
def _gathered_fsdp2(source: Source) -> Iterator[None]:
    """Weights stay whole after the first forward, which every rank makes here; then they are sharded again."""
    import torch

    model = source.unwrapped
    modules = [module for module in model.modules() if _is_fsdp2(module)]
    states = [module._get_fsdp_state() for module in modules]
    groups = [group for state in states for group in _groups(state)]
    flags = [state._auto_reshard_after_forward for state in states]
    meshes = [group.post_forward_mesh_info for group in groups]
    try:
        model.set_reshard_after_forward(False)
        model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=source.device), use_cache=False)
        yield
    finally:
        for state, automatic in zip(states, flags, strict=True):
            state._auto_reshard_after_forward = automatic
        for group, mesh in zip(groups, meshes, strict=True):
            group.post_forward_mesh_info = mesh
        for module in modules:
            module.reshard()


def _groups(state: Any) -> list[Any]:
    """A module's parameter groups: one until torch 2.12, a list since."""
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [state._fsdp_param_group] if state._fsdp_param_group is not None else []


def _is_fsdp2(module: Any) -> bool:
    import torch.distributed as dist

    if not dist.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def _whole_bytes(parameter: Any) -> int:
    """Bytes of a parameter once gathered: ZeRO-3 keeps the whole size in ds_numel, a DTensor in its own."""
    return getattr(parameter, "ds_numel", parameter.numel()) * parameter.element_size()
