"""Faults planted in a launched run, on one rank: before, inside and between generate calls."""

import contextlib
import os
import shutil
import signal
import threading
from pathlib import Path

import torch

from divwatch import callback
from divwatch.blame import live, shadow
from divwatch.sampling import in_process, sampler
from divwatch.sampling.ranks import Ranks
from tests.faults.undisturbed import scoring_processes
from tests.training import make_alike

_planted = []


def plant(fault, trainer):
    """fault: {"where": ..., "rank": ..., "step": ...}, {"where": "alike", "step": ...}, or None. No rank: all of them."""
    if fault is None:
        return
    if fault["where"] == "alike":
        make_alike(_Patch(), lambda: trainer.state.global_step >= fault["step"])
        return
    ranks = Ranks.of(trainer.accelerator)

    def here():
        return ranks.rank == fault.get("rank", ranks.rank) and trainer.state.global_step == fault["step"]

    where = fault["where"]
    if where in AT_A_LOOK:
        _at_a_look(here, lambda: AT_A_LOOK[where](Path(trainer.args.output_dir)))
    else:
        kinds = {
            "inside": _inside,
            "in_blame": _in_blame,
            "nudge_stays": _nudge_stays,
            "memory": _memory,
            "dies_inside": _dies_inside,
        }
        (kinds | {"tracker_raises": _tracker_raises, "tracker_hangs": _tracker_hangs})[where](here)
    if where == "asleep":
        _replace(callback, "HEARTBEAT", 2.0)


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


def _at_a_look(here, what):
    """Does something on this rank before the look is sampled: before its first collective."""
    real = sampler.make_request

    def disturbed(*arguments):
        if here():
            what()
        return real(*arguments)

    _replace(sampler, "make_request", disturbed)


def _fail(out):
    raise ValueError("planted before the first collective")


def _die(out):
    os.kill(os.getpid(), signal.SIGKILL)


def _send_to_sleep(out):
    """The scoring process sleeps for 40 s."""
    for process in scoring_processes():
        process.suspend()
        threading.Timer(40, process.resume).start()


def _kill_worker(out):
    for process in scoring_processes():
        process.kill()


def _remove_record(out):
    shutil.rmtree(out / "divwatch")


def _fill(out):
    """The file system of `out` until a little after the look."""
    filler = out / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    real = sampler.make_request

    def room_again(*arguments):
        filler.unlink(missing_ok=True)
        return real(*arguments)

    _replace(sampler, "make_request", room_again)


AT_A_LOOK = {
    "before": _fail,
    "dies_before": _die,
    "asleep": _send_to_sleep,
    "worker": _kill_worker,
    "gone": _remove_record,
    "full": _fill,
}


def _inside(here):
    real, calls = in_process.decode_batch, []

    def fails(*arguments):
        calls.append(1)
        if here() and len(calls) > 1:  # between two batches too: some are done, some are not
            raise RuntimeError("planted inside a batch")
        return real(*arguments)

    _replace(in_process, "decode_batch", fails)


def _in_blame(here):
    """This rank cannot read its completions along a source's direction."""
    real = live.all_log_probs

    def fails(*arguments):
        if here():
            raise RuntimeError("planted in blame")
        return real(*arguments)

    _replace(live, "all_log_probs", fails)


def _nudge_stays(here):
    """Blame computes on the weights in training in place of a copy, so that nobody undoes its nudges."""
    real = shadow.own_tensor

    def same(weight, *arguments):
        return weight if here() else real(weight, *arguments)

    _replace(shadow, "own_tensor", same)


def _dies_inside(here):
    real = in_process.decode_batch

    def dies(*arguments):
        if here():
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    _replace(in_process, "decode_batch", dies)


def _tracker_raises(here):
    _in_our_thread(lambda: (_ for _ in ()).throw(ConnectionError("planted")))


def _tracker_hangs(here):
    _in_our_thread(threading.Event().wait)


def _in_our_thread(act):
    """W&B's `run.log` fails for the monitor alone: where it failed for the trainer too, the trainer would end."""
    from wandb.sdk import wandb_run

    real = wandb_run.Run.log

    def log(self, *arguments, **named):
        if threading.current_thread().name.startswith("divwatch"):
            act()
        return real(self, *arguments, **named)

    _replace(wandb_run.Run, "log", log)


def _memory(here):
    """Batches above 8 rows do not fit on this rank."""
    real = in_process.decode_batch

    def fails(model, request, batch, any_rank):
        if here() and len(batch) > 8:
            raise torch.OutOfMemoryError("planted: out of memory")
        return real(model, request, batch, any_rank)

    _replace(in_process, "decode_batch", fails)
