"""Looks that draw with the same random numbers: equal checkpoints give equal samples, as long as the run began so."""

import pytest
from transformers import TrainerCallback

import divwatch
from divwatch.config import WatchConfig
from divwatch.sampling.watchable import why_uncoupled
from divwatch.store.run_directory import RunDirectory
from tests.training import SETTINGS, sft_trainer

QUICK = SETTINGS | {"metrics": ["ead"], "prompts": 6, "every": 1}


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def watch_a_still_model(out, stop=None, resume=None, **settings):
    """Watches training with learning rate 0; the completions' texts by look."""
    trainer = sft_trainer(out, steps=2, learning_rate=0.0, save_strategy="steps", save_steps=1)
    divwatch.watch(trainer, **QUICK | settings)
    if stop is not None:
        trainer.add_callback(StopAt(stop))
    trainer.train(resume_from_checkpoint=resume)
    store = RunDirectory.of(out)
    return {step: [c.text for c in store.read_completions(step)] for step in store.completion_steps()}


def test_equal_checkpoints_give_equal_samples(tmp_path):
    coupled = watch_a_still_model(tmp_path / "coupled")
    assert coupled[0] == coupled[1] == coupled[2]
    assert len(set(coupled[0])) > 6
    apart = watch_a_still_model(tmp_path / "apart", coupled=False)
    assert apart[0] != apart[1] != apart[2] != apart[0]
    assert [RunDirectory.of(tmp_path / n).info()["settings"]["coupled"] for n in ("coupled", "apart")] == [True, False]


@pytest.mark.parametrize("began", [True, False, None])
def test_a_resumed_run_continues_as_it_began(tmp_path, began, capsys):
    """None: by a divwatch that knew no coupling."""
    watch_a_still_model(tmp_path, stop=1, coupled=bool(began))
    store = RunDirectory.of(tmp_path)
    info = store.info()
    if began is None:
        del info["settings"]["coupled"]
        store.write_info(info)
    store.release()
    texts = watch_a_still_model(tmp_path, resume=str(tmp_path / "checkpoint-1"), coupled=not began)
    assert set(texts) == {0, 1, 2}
    assert (texts[1] == texts[2]) is bool(began)
    assert f"the run began with coupled {str(bool(began)).lower()} and continues with it" in capsys.readouterr().out
    assert "coupled" not in str(store.info().get("resumed"))


def test_a_record_without_the_setting_was_not_coupled():
    old = WatchConfig(samples=5).as_dict()
    del old["coupled"]
    assert WatchConfig.of_record(old) == WatchConfig(samples=5, coupled=False)
    assert WatchConfig.of_record(WatchConfig().as_dict()).coupled


@pytest.mark.parametrize("backend", ["continuous", "vllm"])
def test_backends_with_their_own_random_numbers_say_so(backend):
    config = WatchConfig(backend=backend)
    assert config.coupled is False
    line = why_uncoupled(config)
    assert f"watch_backend {backend}" in line
    assert "watch_coupled is false" in line
    assert "\n" not in line
    assert why_uncoupled(WatchConfig()) is None
