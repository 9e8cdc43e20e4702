"""Thousands of looks: memory, file handles, threads and the time of a look stay flat."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from transformers import TrainerCallback

import divwatch
from divwatch.store.run_directory import RunDirectory
from tests.faults.undisturbed import QUICK, scoring_processes
from tests.launched.launching import launch
from tests.training import sft_trainer

SMALL = QUICK | {"prompts": 2, "samples": 2, "max_new_tokens": 8, "min_usable": 0.0}


def usage():
    """Of this process and its scoring process: resident MB, file handles, threads."""
    import psutil

    me = psutil.Process()
    return {
        "memory": me.memory_info().rss / 2**20,
        "handles": me.num_fds(),
        "threads": me.num_threads(),
        "worker": sum(worker.memory_info().rss for worker in scoring_processes()) / 2**20,
    }


class LongerSteps(TrainerCallback):
    """Steps here take milliseconds, so that scores would fall behind and looks be put off, as they should: they are given
    the time that real steps give them."""

    def __init__(self, watching):
        self.watching = watching

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % 4 == 0:
            assert self.watching.recorder.poll(60)


class Gauge(TrainerCallback):
    def __init__(self):
        self.taken = []

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % 20 == 0:
            self.taken.append(usage())


def flat(taken, seconds):
    """Compares the last fifth with the second: growth in MB, handles and threads, and the times of a look."""
    fifth = len(taken) // 5
    early, late = taken[fifth : 2 * fifth], taken[-fifth:]
    growth = {key: np.median([t[key] for t in late]) - np.median([t[key] for t in early]) for key in early[0]}
    fifth = len(seconds) // 5
    times = [float(np.median(part)) for part in (seconds[fifth : 2 * fifth], seconds[-fifth:])]
    return growth, times


@pytest.mark.slow
@pytest.mark.limit(5400)
def test_two_thousand_looks(tmp_path, undisturbed):
    """Memory, handles, threads and the time of a look are flat, and every look is on record."""
    steps = int(os.environ.get("DIVWATCH_SOAK", "2000"))
    trainer = sft_trainer(tmp_path, steps=steps, logging_steps=500)
    watching = divwatch.watch(trainer, **SMALL | {"background": True})
    gauge = Gauge()
    trainer.add_callback(gauge)
    trainer.add_callback(LongerSteps(watching))
    trainer.train()
    looks = RunDirectory.of(tmp_path).looks()
    assert [look["step"] for look in looks] == list(range(steps + 1))
    growth, times = flat(gauge.taken, [look["seconds"]["total"] for look in looks])
    assert growth["memory"] < 60
    assert growth["worker"] < 60
    assert growth["handles"] <= 2
    assert growth["threads"] <= 1
    assert times[1] < 1.5 * times[0] + 0.02


@pytest.mark.slow
@pytest.mark.limit(3600)
def test_two_hundred_looks_under_zero3(tmp_path):
    """Memory, handles, threads and the time of a look are flat on both ranks, and every look is on record."""
    settings = {key: SMALL[key] for key in ("metrics", "prompts", "samples", "max_new_tokens", "min_usable")}
    arms = {"soak": settings | {"every": 1, "background": True}}
    launch("zero3", tmp_path, {"kind": "sft", "training": {"steps": 200}, "arms": arms, "gauge": True}, limit=3000)
    looks = RunDirectory.of(tmp_path / "soak").looks()
    assert [look["step"] for look in looks] == list(range(201))
    for rank in range(2):
        taken = json.loads(Path(tmp_path / f"gauge-{rank}.json").read_text())
        growth, times = flat(taken, [look["seconds"]["total"] for look in looks])
        assert growth["memory"] < 60
        assert growth["handles"] <= 2
        assert growth["threads"] <= 1
        assert times[1] < 1.5 * times[0] + 0.05
