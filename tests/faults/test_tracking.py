"""Tracking: W&B that raises, hangs, dies or is not there costs its own record and nothing else."""

import threading
import types

import pytest
from faults.recording import cell
from faults.undisturbed import before_the_look, child_processes, statuses
from transformers.integrations import WandbCallback

FAMILY = "Tracking"
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
@pytest.mark.fault("WANDB_MODE=disabled")
def test_disabled(offline, survive, monkeypatch):
    """Every look is in the run directory; nothing is written for W&B."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    store = survive(training={"report_to": "wandb"})
    assert statuses(store) == ALL_OK
    assert not list(store.path.parent.glob("wandb/offline-run-*"))


@pytest.mark.slow
@pytest.mark.fault("the run finished by the user's own code in the middle (wandb.finish)")
def test_finished_early(offline, survive):
    """Every look is in the run directory."""

    def plant(trainer):
        before_the_look(trainer, 2, lambda: (offline.finish(), trainer.pop_callback(_wandb_callback(trainer))))

    assert statuses(survive(plant, training={"report_to": "wandb"})) == ALL_OK


@pytest.mark.slow
@pytest.mark.fault("W&B's service process killed in the middle")
def test_service_killed(offline, survive, saw):
    """Every look is in the run directory; the trainer's own callback is taken out, for it would end any training."""

    def kill():
        for child in child_processes():
            if "wandb-core" in " ".join(child.cmdline()):
                child.kill()

    def plant(trainer):
        before_the_look(trainer, 2, lambda: (trainer.pop_callback(_wandb_callback(trainer)), kill()))

    assert statuses(survive(plant, training={"report_to": "wandb"})) == ALL_OK


def _wandb_callback(trainer):
    return next(type(c) for c in trainer.callback_handler.callbacks if type(c).__name__ == "WandbCallback")
