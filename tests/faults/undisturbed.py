"""A training that a fault is planted in, held against one that nothing disturbs; and a time limit, for nothing may hang."""

import contextlib
import re
import signal
from functools import cache

import pytest
from transformers import TrainerCallback

import divwatch
from divwatch.store.run_directory import RunDirectory
from tests.training import SETTINGS, sft_trainer, weights_hash

# EAD needs no encoder: a training of three steps with four looks takes a second.
QUICK = SETTINGS | {"metrics": ["ead"], "prompts": 6, "on_error": "record", "every": 1}
LIMIT = 120  # seconds; `@pytest.mark.limit(seconds)` for what needs more


def cell(name, *values, slow=False):
    """A parameter set whose test id is the name of the fault."""
    slug = re.sub(r"\W+", "-", name.lower()).strip("-")
    return pytest.param(*values, id=slug[:60], marks=[pytest.mark.slow] if slow else [])


class Hung(BaseException):
    """Not an Exception: nothing may swallow it."""


@pytest.fixture(autouse=True)
def bounded(request):
    mark = request.node.get_closest_marker("limit")
    seconds = mark.args[0] if mark else LIMIT

    def ring(*_):
        raise Hung(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """`undisturbed(kind, steps)`: the final weights of a training without a monitor, as a hash."""

    @cache
    def weights(kind, steps):
        trainer = kind(tmp_path_factory.mktemp("undisturbed"), steps=steps)
        trainer.train()
        return weights_hash(trainer.model)

    return weights


@pytest.fixture
def survive(tmp_path, undisturbed):
    """`survive(plant)`: trains with `plant(trainer)` called once the monitor is attached; the run directory that is left.

    The final weights must be those of an undisturbed run. `steps`, `kind` (of trainer) and `out` aside, keywords are
    settings of the monitor. `resume`: go on from a checkpoint.
    """

    def run(plant=None, *, kind=sft_trainer, steps=3, out=tmp_path, training=None, resume=None, **settings):
        trainer = kind(out, steps=steps, **(training or {}))
        divwatch.watch(trainer, **QUICK | settings)
        with contextlib.ExitStack() as stack:
            if plant is not None:
                planted = plant(trainer)
                if hasattr(planted, "__enter__"):
                    stack.enter_context(planted)
            trainer.train(resume_from_checkpoint=resume)
        assert weights_hash(trainer.model) == undisturbed(kind, steps)
        return RunDirectory.of(out)

    return run


class At(TrainerCallback):
    """Does something once, before the look of a step."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.what()


def before_the_look(trainer, step, what):
    """Callbacks are called in order: this one is put before the monitor's."""
    trainer.callback_handler.callbacks.insert(0, At(step, what))


def statuses(store):
    """[(step, status)] of the looks on record."""
    return [(look["step"], look["status"]) for look in store.looks()]


def child_processes():
    import psutil

    return psutil.Process().children(recursive=True)


def scoring_processes():
    return [child for child in child_processes() if "divwatch.monitor.background:serve" in child.cmdline()]
