"""Scores come from a process of its own: the same numbers, on the look's own step, none lost when the process dies."""

import time

import psutil
import pytest
from transformers import TrainerCallback

import divwatch
from divwatch.config import WatchConfig
from divwatch.monitor.background import Background
from divwatch.monitor.pace import Pace
from divwatch.store.run_directory import RunDirectory
from tests.faults.undisturbed import scoring_processes
from tests.training import SETTINGS, sft_trainer, weights_hash

BACKGROUND = SETTINGS | {"background": True, "metrics": ["ead"], "prompts": 6}  # no encoder: starts fast


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training unwatched, scored inline and in the background."""
    found = {}
    for name in ("off", "inline", "background"):
        folder = tmp_path_factory.mktemp(name)
        trainer = sft_trainer(folder, steps=6)
        if name != "off":
            divwatch.watch(trainer, every=2, **SETTINGS | {"background": name == "background"})
        trainer.train()
        found[name] = (trainer, RunDirectory.of(folder))
    return found


def test_background_scores_equal_inline_ones(runs):
    inline, background = runs["inline"][1], runs["background"][1]
    assert [look["step"] for look in background.looks()] == [0, 2, 4, 6]
    for step in (0, 2, 4, 6):
        assert background.completions(step) == inline.completions(step)
        one, other = background.scores(step).values, inline.scores(step).values
        assert one.keys() == other.keys()
        for key, values in one.items():
            assert values == pytest.approx(other[key], abs=1e-6, nan_ok=True), key


def test_late_scores_are_logged_on_their_own_step_and_training_is_as_it_was(runs):
    logged = [e["step"] for e in runs["background"][0].state.log_history if "diversity/all/sbert" in e]
    assert logged == [0, 2, 4, 6]
    hashes = {name: weights_hash(trainer.model) for name, (trainer, _) in runs.items()}
    assert hashes["background"] == hashes["inline"] == hashes["off"]


class KillTheScorer(TrainerCallback):
    """SIGKILL to the scoring process once it holds the look at step 2 and before it can score it."""

    def __init__(self, watcher, store, times):
        self.watcher, self.store, self.times = watcher, store, times

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.wait_while(lambda: len(self.store.looks()) < 1)  # the earlier look is not this fault's
            self.stop_and_take()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            for _ in range(self.times):
                process = self.process or self.stop_and_take()
                process.kill()
                self.process = None
                self.wait_while(lambda killed=process: killed in psutil.Process().children())

    def stop_and_take(self):
        (self.process,) = scoring_processes()
        self.process.suspend()
        return self.process

    def wait_while(self, condition):
        until = time.monotonic() + 60
        while condition() and time.monotonic() < until:
            self.watcher.recorder.poll()
            time.sleep(0.05)


@pytest.mark.parametrize(("times", "status"), [(1, "ok"), (2, "failed")])
def test_a_killed_scoring_process_is_restarted_and_the_look_fails_the_second_time(tmp_path, times, status):
    trainer = sft_trainer(tmp_path, steps=4)
    watcher = divwatch.watch(trainer, every=2, **BACKGROUND | {"on_error": "record"})
    trainer.add_callback(KillTheScorer(watcher, RunDirectory.of(tmp_path), times))
    trainer.train()
    looks = RunDirectory.of(tmp_path).looks()
    assert [look["step"] for look in looks] == [0, 2, 4]
    assert [look["status"] for look in looks if look["step"] != 2] == ["ok", "ok"]
    assert looks[1]["status"] == status
    if status == "failed":
        assert "ended with status -9" in looks[1]["reason"]


def test_a_stored_look_that_was_never_scored_is_scored_on_resume(tmp_path):
    first = sft_trainer(tmp_path, steps=4, save_strategy="steps", save_steps=2)
    divwatch.watch(first, every=2, **BACKGROUND)
    first.train()
    store = RunDirectory.of(tmp_path)
    whole = store.looks()
    # As a crash between the storing and the scoring of the look at step 2 leaves it.
    lines = (store.path / "looks.jsonl").read_text().splitlines(keepends=True)
    (store.path / "looks.jsonl").write_text(lines[0])
    (store.path / "scores" / "step-00000002.parquet").unlink()
    assert store.unscored() == [2, 4]
    second = sft_trainer(tmp_path, steps=4, save_strategy="steps", save_steps=2)
    divwatch.watch(second, every=2, **BACKGROUND)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    looks = store.looks()
    assert [look["step"] for look in looks] == [0, 2, 4]
    for one, other in zip(whole, looks, strict=True):
        assert one["tasks"]["all"]["diversity/ead"] == pytest.approx(other["tasks"]["all"]["diversity/ead"], abs=1e-6)


def test_the_process_ends_with_its_owner():
    scorer = Background(WatchConfig(metrics=["ead"]))
    (process,) = scoring_processes()
    del scorer
    process.wait(20)
    assert not process.is_running()


def test_the_pace_keeps_the_limit_and_lets_a_cheap_look_through():
    now = 0.0
    pace = Pace(0.1, clock=lambda: now)
    now += 100  # a hundred seconds of training
    assert pace.allows_another()
    pace.spent(8.0)
    assert not pace.allows_another()  # 16 of 108 would be more than a tenth
    now += 60
    assert pace.allows_another()
    assert pace.overhead == pytest.approx(0.05)
    pace.spent(1.0, recurring=False)  # a look at full length does not predict the next dense one
    now += 1.9
    assert not pace.allows_another()  # 17 of 169.9
    now += 0.2
    assert pace.allows_another()  # 17 of 170.1


def test_looks_are_skipped_to_keep_the_overhead_and_the_first_and_last_are_taken(tmp_path, capsys):
    trainer = sft_trainer(tmp_path, steps=12)
    divwatch.watch(trainer, every=1, **SETTINGS | {"max_overhead": 0.01})
    trainer.train()
    steps = [look["step"] for look in RunDirectory.of(tmp_path).looks()]
    assert steps[0] == 0
    assert steps[-1] == 12
    assert len(steps) < 8
    assert capsys.readouterr().out.count("is skipped") == 1
