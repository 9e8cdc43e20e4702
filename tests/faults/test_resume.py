"""Resume: the record goes on where it was, or says why it cannot."""

import json

import pytest
from transformers import TrainerCallback

import divwatch
from divwatch.store.run_directory import RunDirectory
from tests.faults.test_storage import resumed, rows, watched
from tests.faults.undisturbed import QUICK, cell, statuses
from tests.launched.launching import launch
from tests.training import sft_trainer

REFUSED = {
    "samples": 6,
    "temperature": 0.9,
    "top_p": 0.5,
    "max_new_tokens": 20,
    "metrics": ["ead", "distinct_answers"],
    "prompts": 7,
    "seed": 1,
    "form": "plain",
    "thinking": "off",
    "think_tokens": 8,
}
NOTED = {"max_overhead": 0.5, "alpha": 0.01, "min_drop": 0.1, "on_collapse": "log", "background": True, "every": 2}


@pytest.fixture
def half(tmp_path):
    """A run that was stopped after two of its three steps."""
    return watched(tmp_path, checkpoints=True)


@pytest.mark.parametrize("name", [cell(f"another {name} on resume", name, slow=name != "samples") for name in REFUSED])
def test_settings_that_would_break_the_comparison(tmp_path, half, name):
    """Refused before the first step, in one line that names the setting; the record is left as it was."""
    before = {path: path.read_bytes() for path in (tmp_path / "divwatch").rglob("*") if path.is_file()}
    trainer = sft_trainer(tmp_path, steps=3)
    divwatch.watch(trainer, **QUICK | {name: REFUSED[name]})
    with pytest.raises(divwatch.DivwatchError) as error:
        trainer.train(resume_from_checkpoint=half)
    assert "\n" not in str(error.value)
    assert name in str(error.value) or "other prompts" in str(error.value)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", [cell(f"another {name} on resume", name, slow=name != "alpha") for name in NOTED])
def test_settings_that_do_not(tmp_path, half, name):
    """Noted in run.json with both values, and the record goes on."""
    resumed(tmp_path, half, **{name: NOTED[name]})
    store = RunDirectory.of(tmp_path)
    assert [step for step, _ in statuses(store)] == [0, 1, 2, 3]
    (note,) = store.info()["resumed"]
    assert note == {
        "step": 2,
        "changed": {name: [QUICK.get(name, divwatch.WatchConfig().as_dict()[name]), NOTED[name]]},
    }


def test_from_before_the_last_look(tmp_path, half, undisturbed_record):
    """The looks beyond it are taken again; record and verdict are those of an uninterrupted run."""
    resumed(tmp_path, str(tmp_path / "checkpoint-1"))
    assert rows(tmp_path) == undisturbed_record


@pytest.mark.slow
def test_twice(tmp_path, half, undisturbed_record):
    """The record is that of an uninterrupted run both times."""
    for _ in range(2):
        resumed(tmp_path, half)
        assert rows(tmp_path) == undisturbed_record


@pytest.mark.slow
def test_without_a_record(tmp_path, half):
    """A new record begins at the checkpoint's step."""
    import shutil

    shutil.rmtree(tmp_path / "divwatch")
    resumed(tmp_path, half)
    assert statuses(RunDirectory.of(tmp_path)) == [(2, "ok"), (3, "ok")]


@pytest.mark.slow
def test_after_the_alarm(tmp_path, monkeypatch):
    """The alarm is not raised again, and onset and verdict are those of an uninterrupted run."""
    from tests.training import make_alike

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 6

    def train(out, stop, checkpoint=None):
        trainer = sft_trainer(out, steps=8, save_strategy="steps", save_steps=6)
        make_alike(monkeypatch, lambda: trainer.state.global_step >= 2)
        divwatch.watch(trainer, **QUICK | {"prompts": 48})
        if stop:
            trainer.add_callback(Interrupt())
        trainer.train(resume_from_checkpoint=checkpoint)
        monkeypatch.undo()
        return RunDirectory.of(out)

    whole = train(tmp_path / "whole", False)
    train(tmp_path / "cut", True)
    cut = train(tmp_path / "cut", False, str(tmp_path / "cut" / "checkpoint-6"))
    assert whole.events()
    assert cut.events() == whole.events()
    assert [look["verdict"] for look in cut.looks()] == [look["verdict"] for look in whole.looks()]


@pytest.mark.slow
@pytest.mark.limit(420)
def test_with_another_number_of_ranks(tmp_path):
    """The record goes on: the looks so far are kept, each step is there once, and the curves join."""
    training = {"steps": 2, "save_strategy": "steps", "save_steps": 2}
    arms = {"run": {key: QUICK[key] for key in ("metrics", "prompts", "every")}}
    launch("ddp", tmp_path, {"kind": "sft", "training": training, "arms": arms})
    out = tmp_path / "run"
    before = rows(out)
    trainer = sft_trainer(out, steps=4)
    divwatch.watch(trainer, **QUICK)
    trainer.train(resume_from_checkpoint=str(out / "checkpoint-2"))
    after = rows(out)
    assert sorted(after) == [0, 1, 2, 3, 4]
    assert {step: after[step] for step in before} == before
    assert json.loads((out / "divwatch" / "run.json").read_text())["resumed"] == [
        {"step": 2, "changed": {"on_error": ["raise", "record"], "processes": [2, 1]}}
    ]
