"""Tracking: W&B that raises, hangs, dies or is not there costs its own record and nothing else."""

import json
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
from transformers.integrations import WandbCallback

import divwatch
from tests.faults.undisturbed import QUICK, before_the_look, cell, statuses
from tests.training import sft_trainer

ALL_OK = [(step, "ok") for step in range(4)]


class Run:
    """A W&B run of which one call fails, the first time or always."""

    def __init__(self, fault, act):
        self.id, self.name, self.group, self.project, self.dir = "id", "name", None, "project", "."
        self.fault, self.act, self.called = fault, act, set()
        self.config = types.SimpleNamespace(update=self.call("config"))
        self.summary = types.SimpleNamespace(update=self.call("summary"))
        self.define_metric, self.log, self.alert = self.call("define"), self.call("log"), self.call("alert")

    def call(self, name):
        def called(*_, **__):
            self.called.add(name)
            if name == self.fault:
                self.act()

        return called


class Silent(WandbCallback):
    """The trainer reports to W&B, but its own calls are not what is tested."""

    def setup(self, *_, **__):
        pass

    on_train_begin = on_train_end = on_log = on_save = on_predict = setup


def reporting(trainer):
    trainer.callback_handler.callbacks.append(Silent())


def raises():
    raise ConnectionError("planted\nand more lines")


CALLS = {
    "config": "when settings are written",
    "define": "when names are defined",
    "log": "at every log",
    "summary": "at the end",
}


@pytest.mark.parametrize(
    "fault", [cell(f"W&B raises {when}", fault, slow=fault != "log") for fault, when in CALLS.items()]
)
def test_a_tracker_that_raises(survive, monkeypatch, fault):
    """Every look is in the run directory and in the trainer's log."""
    import wandb

    run = Run(fault, raises)
    monkeypatch.setattr(wandb, "run", run)
    assert statuses(survive(reporting)) == ALL_OK
    assert fault in run.called, "the fault was not met"


@pytest.mark.slow
@pytest.mark.limit(150)
@pytest.mark.parametrize("fault", [cell(f"W&B hangs {CALLS[fault]}", fault) for fault in ("config", "log")])
def test_a_tracker_that_hangs(survive, monkeypatch, fault):
    """Training is held up for a minute at its end and no more, and every look is in the run directory."""
    import wandb

    released = threading.Event()
    monkeypatch.setattr(wandb, "run", Run(fault, released.wait))
    try:
        assert statuses(survive(reporting)) == ALL_OK
    finally:
        released.set()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield wandb
    wandb.finish()


@pytest.mark.slow
def test_disabled(offline, survive, monkeypatch):
    """Every look is in the run directory; nothing is written for W&B."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    store = survive(training={"report_to": "wandb"})
    assert statuses(store) == ALL_OK
    assert not list(store.path.parent.glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_finished_early(offline, survive):
    """Every look is in the run directory."""

    def plant(trainer):
        before_the_look(trainer, 2, lambda: (offline.finish(), trainer.pop_callback(_wandb_callback(trainer))))

    assert statuses(survive(plant, training={"report_to": "wandb"})) == ALL_OK


def test_init_raises_once(offline, survive, monkeypatch):
    """The trainer's own call opens the run, and every look is in the run directory."""
    real, calls = offline.init, []

    def init(*arguments, **named):
        calls.append(1)
        if len(calls) == 1:
            raises()
        return real(*arguments, **named)

    monkeypatch.setattr(offline, "init", init)
    store = survive(training={"report_to": "wandb"})
    assert len(calls) > 1
    assert statuses(store) == ALL_OK
    assert store.info()["wandb"]["id"]


def test_init_raises_always(offline, tmp_path, monkeypatch):
    """The trainer ends with W&B's reason, as it does without the monitor; nothing is half written."""
    monkeypatch.setattr(offline, "init", lambda *_, **__: raises())
    for watched in (False, True):
        trainer = sft_trainer(tmp_path / str(watched), steps=1, report_to="wandb")
        if watched:
            divwatch.watch(trainer, **QUICK)
        with pytest.raises(ConnectionError, match="planted"):
            trainer.train()
    assert not (tmp_path / "True" / "divwatch" / "run.json").exists()


def online(out, mode, limit=200):
    """What a training left that reported to a W&B server of this mode."""
    program = [sys.executable, str(Path(__file__).parent / "online.py"), str(out), mode]
    done = subprocess.run(program, capture_output=True, text=True, timeout=limit, check=True)
    return json.loads(done.stdout.splitlines()[-1])


LATER = {
    "hangs": "takes requests and never answers",
    "fails": "answers every request with status 500",
    "gone": "is gone",
}


@pytest.mark.slow
@pytest.mark.limit(250)
@pytest.mark.parametrize(
    "mode", [cell(f"W&B online, whose server {what} from the second look on", mode) for mode, what in LATER.items()]
)
def test_a_server_that_fails_later(tmp_path, undisturbed, mode):
    """Training is held up for a minute at its end and no more, and every look is in the run directory."""
    found = online(tmp_path, mode)
    assert found["error"] is None
    assert found["weights"] == undisturbed(sft_trainer, 3)
    assert found["looks"] == [list(look) for look in ALL_OK]
    assert found["seconds"] < 100


@pytest.mark.slow
def test_service_killed(tmp_path, undisturbed):
    """Every look is in the run directory; the trainer's own callback is taken out, for it would end any training."""
    found = online(tmp_path, "killed")
    assert found["error"] is None
    assert found["weights"] == undisturbed(sft_trainer, 3)
    assert found["looks"] == [list(look) for look in ALL_OK]


NEVER = {"deaf": "takes the first request and never answers", "absent": "is not there"}


@pytest.mark.slow
@pytest.mark.limit(250)
@pytest.mark.parametrize("mode", [cell(f"W&B online, whose server {what}", mode) for mode, what in NEVER.items()])
def test_a_server_that_never_answers(tmp_path, mode):
    """The trainer ends with W&B's reason after its time limits, as it does without the monitor."""
    found = online(tmp_path, mode)
    assert "CommError" in found["error"]
    assert found["seconds"] < 60


def _wandb_callback(trainer):
    return next(type(c) for c in trainer.callback_handler.callbacks if type(c).__name__ == "WandbCallback")
