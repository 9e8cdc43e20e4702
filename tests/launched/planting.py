"""Faults planted in a launched run, on one rank: before, inside and between generate calls."""

import torch
from training import make_alike

from divwatch.ranks import Ranks
from divwatch.sampling import in_process, sampler

_planted = []


def plant(fault, trainer):
    """fault: {"where": before | inside | memory, "rank": ..., "step": ...}, {"where": "alike", "step": ...}, or None."""
    if fault is None:
        return
    if fault["where"] == "alike":
        make_alike(_Patch(), lambda: trainer.state.global_step >= fault["step"])
        return
    ranks = Ranks.of(trainer.accelerator)

    def here():
        return ranks.rank == fault["rank"] and trainer.state.global_step == fault["step"]

    {"before": _before, "inside": _inside, "memory": _memory}[fault["where"]](here)


def remove():
    for module, name, real in _planted:
        setattr(module, name, real)
    _planted.clear()


class _Patch:
    """What `make_alike` takes for pytest's monkeypatch."""

    def setattr(self, module, name, made):
        _replace(module, name, made)


def _replace(module, name, made):
    _planted.append((module, name, getattr(module, name)))
    setattr(module, name, made)


def _before(here):
    real = sampler.make_request

    def fails(*arguments):
        if here():
            raise ValueError("planted before the first collective")
        return real(*arguments)

    _replace(sampler, "make_request", fails)


def _inside(here):
    real, calls = in_process._decode, []

    def fails(*arguments):
        calls.append(1)
        if here() and len(calls) > 1:  # between two batches too: some are done, some are not
            raise RuntimeError("planted inside a batch")
        return real(*arguments)

    _replace(in_process, "_decode", fails)


def _memory(here):
    """Batches above 8 rows do not fit on this rank."""
    real = in_process._decode

    def fails(model, request, batch, any_rank):
        if here() and len(batch) > 8:
            raise torch.OutOfMemoryError("planted: out of memory")
        return real(model, request, batch, any_rank)

    _replace(in_process, "_decode", fails)
