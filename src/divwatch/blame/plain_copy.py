"""A plain copy of the model in training, to compute on: its own weights, no hooks, no wrapper's forward.

DDP, DeepSpeed, FSDP2, accelerate and TRL hang hooks on the modules of a model, replace its forward, its parameters or its
class. None of that is copied, so that a forward or a backward pass through the copy reaches nothing of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def plain_copy(model: Any, weight: Callable[[Any], Any]) -> Any:
    """A module tree like `model`, in eval mode, whose parameters are what `weight` returns for each one of `model`.

    weight: parameter -> a tensor to compute with, called once for each parameter. Tied weights stay tied. Buffers are
    copied. Settings that are no tensors are shared with `model`, apart from its lists, sets and dicts.
    """
    import torch

    parameters: dict[int, Any] = {}
    modules: dict[int, Any] = {}

    def of_parameter(p: Any) -> Any:
        if p is None:
            return None
        if id(p) not in parameters:
            parameters[id(p)] = torch.nn.Parameter(weight(p), requires_grad=p.requires_grad)
        return parameters[id(p)]

    def of_module(module: Any) -> Any:
        if module is None:
            return None
        if id(module) not in modules:
            copied = modules[id(module)] = _bare(module)
            copied._parameters = {name: of_parameter(p) for name, p in module._parameters.items()}
            copied._buffers = {
                name: None if b is None else _local(b).detach().clone() for name, b in module._buffers.items()
            }
            copied._modules = {name: of_module(child) for name, child in module._modules.items()}
        return modules[id(module)]

    return of_module(model).eval()


def checkpoint_layers(model: Any) -> None:
    """Lets the layers of a copy compute their activations again in a backward pass, where those of the model do.

    transformers does so in train mode only. The layer alone is set to it, not what it holds, so that nothing is dropped out;
    layers that drop out themselves are left alone.
    """
    from functools import partial

    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[Any] = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        if layer.gradient_checkpointing and not getattr(layer, "dropout", 0.0):
            layer.training = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def _bare(module: Any) -> Any:
    """A module of the same class and settings, without parameters, buffers, children and hooks."""
    import torch

    kind: Any = type(module)
    if _is_fsdp(module):
        kind = kind.__mro__[kind._orig_cls_mro_index]
    bare = kind.__new__(kind)
    own = vars(torch.nn.Module())  # what every module has: empty, hooks included
    settings = {
        name: value.copy() if isinstance(value, dict | list | set) else value
        for name, value in vars(module).items()
        if name not in own and name not in ("forward", "_original_forward")
    }
    bare.__dict__.update(own)
    bare.__dict__.update(settings)
    return bare


def _is_fsdp(module: Any) -> bool:
    import torch.distributed as dist

    if not dist.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def _local(tensor: Any) -> Any:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
