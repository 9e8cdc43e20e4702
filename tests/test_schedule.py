"""`watch_every: auto`: looks take the share of the run that they may, come early, and a resumed run keeps its schedule.

The clock is the test's: a training step and a forward pass of a look take as many seconds as the test says.
"""

import json
import shutil

import pytest
from transformers import TrainerCallback
from typer.testing import CliRunner

import divwatch
from divwatch.cli import app
from divwatch.config import WatchConfig
from divwatch.monitor.budget import BudgetTimetable
from divwatch.plan.like import read_like
from divwatch.schedule import spread
from divwatch.store.run_directory import RunDirectory
from divwatch.tiny import BASE_MODEL
from tests.training import SETTINGS, sft_trainer

TINY = SETTINGS | {
    "every": "auto", "max_overhead": 0.03, "metrics": ["ead"], "prompts": 2, "samples": 2, "max_new_tokens": 8,
    "panel": "tiny", "min_usable": 0.0,
}  # fmt: skip


class Clock:
    """Seconds that pass only in forward passes: `step` in one of training, `look` in one of a look."""

    def __init__(self, model, step, look):
        self.now, self.step, self.look = 0.0, step, look
        model.register_forward_pre_hook(self.tick)

    def tick(self, model, *_):
        self.now += self.step if model.training else self.look

    def __call__(self):
        return self.now


def watched(out, steps=60, step=20.0, look=0.25, checkpoint=None, stop=None, training=None, **settings):
    """A run of 20 minutes by its own clock; returns its run directory."""
    more = {"per_device_train_batch_size": 1} | (training or {})
    trainer = sft_trainer(out, steps=steps, **more)
    clock = Clock(trainer.model, step, look)
    trainer.add_callback(divwatch.DiversityCallback(trainer, WatchConfig(**TINY | settings), clock=clock))
    if stop is not None:
        trainer.add_callback(stop)
    trainer.train(resume_from_checkpoint=checkpoint)
    return RunDirectory.of(out)


def looks(run):
    return [look["step"] for look in run.looks()]


def blocked(run):
    """Seconds that looks took, and their share of the whole run."""
    _, training, seconds, _ = run.schedule()["marks"][-1]
    return seconds, seconds / (training + seconds)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return watched(tmp_path_factory.mktemp("whole"), training={"save_strategy": "steps", "save_steps": 10})


def test_looks_take_the_share_that_they_may_and_come_early(whole):
    seconds, share = blocked(whole)
    assert seconds == pytest.approx(sum(look["seconds"]["total"] for look in whole.looks()), abs=0.05)
    assert 0.8 * 0.03 <= share <= 0.03
    steps = looks(whole)
    assert (steps[0], steps[-1]) == (0, 60)
    assert sum(0 < step <= 3 for step in steps) == 2
    assert len(steps) >= 8
    assert sum(step <= 20 for step in steps) > sum(step >= 40 for step in steps)


def test_plan_like_a_finished_run_learns_its_seconds_and_lengths(whole):
    """The looks that it plans for the same run are those that were taken."""

    def plan(*more):
        return json.loads(
            CliRunner().invoke(app, ["plan", "--like", str(whole.path), "--json", *map(str, more)]).stdout
        )

    found = plan()
    assert found["like"]["look_seconds"] == found["seconds"] == pytest.approx(2.0)
    assert found["like"]["step_seconds"] == found["step_seconds"] == pytest.approx(20.0)
    assert found["like"]["longest"] == found["new_tokens"] == 8
    assert set(found["like"]["tokens"]) == {row["task"] for row in whole.completions(0)}
    assert (found["max_steps"], found["prompts"], found["samples"]) == (60, 2, 2)
    assert found["overhead"] == pytest.approx(blocked(whole)[1], rel=0.1)
    assert abs(len(found["looks"]) - len(looks(whole))) <= 1
    assert found["looks"][:4] == pytest.approx(looks(whole)[:4], abs=1)
    shorter = plan("--mean-tokens", 4)
    assert shorter["mean_tokens"] == 4
    assert shorter["seconds"] < found["seconds"]
    assert len(plan("--steps", 600, "--prompts", 4)["looks"]) > 3 * len(found["looks"])


def test_plan_of_a_config_like_a_run_takes_its_lengths_by_task_and_its_clock(whole, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "model_name_or_path: src/divwatch/tiny/base\nwatch_panel: tiny\nwatch_prompts: 4\n"
    )
    words = ["plan", str(tmp_path / "c.yaml"), "--model", str(BASE_MODEL), "--gpus", "1", "--json"]
    assumed = json.loads(CliRunner().invoke(app, words).stdout)
    learned = json.loads(CliRunner().invoke(app, [*words, "--like", str(whole.path)]).stdout)
    assert assumed["mean_tokens"] > learned["mean_tokens"]
    assert learned["prompts"] == 4
    assert (
        assumed["seconds"] < 2 < learned["seconds"]
    )  # a longer look than the run's of two seconds, on the run's clock
    assert learned["step_seconds"] == pytest.approx(20.0)


def test_plan_like_a_run_with_blame_takes_the_look_alone_from_its_clock(whole, tmp_path):
    """A look's seconds hold those of blame, which the plan adds by itself."""
    shutil.copytree(whole.path, tmp_path / "run")
    lines = [look | {"seconds": look["seconds"] | {"total": look["seconds"]["total"] + 30.0}} for look in whole.looks()]
    blames = [{"step": look["step"], "seconds": 30.0, "sources": {"a": {}, "b": {}}} for look in lines]
    for name, rows in (("looks", lines), ("blame", blames)):
        (tmp_path / "run" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain, blamed = read_like(whole.path), read_like(tmp_path / "run")
    assert blamed.look_seconds == pytest.approx(plain.look_seconds)
    assert blamed.step_seconds == plain.step_seconds
    assert (plain.sources, blamed.sources) == (None, 2)


def test_plan_like_a_run_without_looks_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text('{"format": 1}')
    done = CliRunner().invoke(app, ["plan", "--like", str(tmp_path)])
    assert isinstance(done.exception, divwatch.DivwatchError)
    assert "has no look with scores to learn from" in str(done.exception)


class Crash(TrainerCallback):
    """Ends the training in the middle of it, with no hook called at its end."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Stop(Crash):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.step


def test_a_run_that_was_killed_and_resumed_has_the_looks_of_one_that_was_not(whole, tmp_path):
    """Killed after looks that the checkpoint does not know of."""
    saving = {"save_strategy": "steps", "save_steps": 10}
    with pytest.raises(KeyboardInterrupt):
        watched(tmp_path, training=saving, stop=Crash(28))
    planned = RunDirectory.of(tmp_path).schedule()["steps"]
    assert planned == looks(whole)  # known ahead
    run = watched(tmp_path, training=saving, checkpoint=str(tmp_path / "checkpoint-20"))
    assert looks(run) == looks(whole)
    assert blocked(run) == pytest.approx(blocked(whole), rel=0.01)


def test_a_resumed_run_that_became_longer_is_planned_anew(tmp_path, capsys):
    saving = {"save_strategy": "steps", "save_steps": 10}
    watched(tmp_path, steps=20, training=saving)
    run = watched(tmp_path, steps=40, training=saving, checkpoint=str(tmp_path / "checkpoint-20"))
    steps = looks(run)
    assert 20 in steps
    assert steps[-1] == 40
    assert any(20 < step < 40 for step in steps)
    assert 0.8 * 0.03 <= blocked(run)[1] <= 0.03
    assert run.info()["max_steps"] == 40
    assert "40: " in capsys.readouterr().out


def test_a_run_that_is_stopped_has_a_last_look(tmp_path):
    steps = looks(watched(tmp_path, steps=40, stop=Stop(9)))
    assert steps[-1] == 9
    assert steps[:3] == [0, 1, 2]


def test_a_look_that_does_not_fit_leaves_the_first_and_the_last_and_says_what_would(tmp_path, capsys):
    run = watched(tmp_path, steps=12, look=8.0)
    assert looks(run) == [0, 12]
    said = capsys.readouterr().out.splitlines()
    (first,) = [line for line in said if "the first look took" in line]
    assert "took 64 s: 2 prompts x 2 completions of " in first
    line = next(line for line in said if "leaves no room" in line)
    assert "which take 64 s each" in line
    assert "divwatch plan" in line


@pytest.mark.parametrize(("steps", "expected"), [(1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 3])])
def test_very_short_runs(tmp_path, steps, expected):
    assert looks(watched(tmp_path, steps=steps, look=0.001)) == expected


def test_steps_are_optimizer_steps(tmp_path):
    """With gradient accumulation a step takes as many forward passes."""
    run = watched(tmp_path, steps=30, step=10.0, look=0.25, training={"gradient_accumulation_steps": 2})
    assert 0.8 * 0.03 <= blocked(run)[1] <= 0.03


def test_without_a_limit_the_number_of_looks_is_as_asked_and_no_time_matters(tmp_path, capsys):
    run = watched(tmp_path, steps=12, look=8.0, max_overhead=0, looks=6)
    assert looks(run) == [0, *spread(4, 12, early=2), 12]
    said = [line for line in capsys.readouterr().out.splitlines() if "about" in line]
    assert said == [f"divwatch: about 6 looks, at steps {', '.join(map(str, looks(run)))}"]


# The same timetable over thousands of steps, without a model.


def simulate(folder, max_steps, step, look, limit=0.03, **settings):
    """Runs a timetable; step, look: seconds at a step. Returns looks, share of the whole run, and meetings."""
    now = 0.0
    timetable = BudgetTimetable(WatchConfig(max_overhead=limit, **settings), lambda: now)
    (folder / "divwatch").mkdir()
    meetings, steps = [], []

    def take(at):
        nonlocal now
        seconds = look(len(steps))
        now += seconds
        steps.append(at)
        timetable.spent(at, seconds)

    assert timetable.open(RunDirectory(folder / "divwatch"), 0, max_steps, ())
    take(0)
    meeting = timetable.next_meeting(0)
    for at in range(1, max_steps):
        now += step(at)
        if at < meeting:
            timetable.after_step(at)
            continue
        meetings.append(at)
        if timetable.allows(at, False):
            take(at)
        meeting = timetable.next_meeting(at)
        assert meeting > at
    now += step(max_steps)
    take(max_steps)
    timetable.close(max_steps)
    return steps, timetable.pace.overhead, meetings


TIMES = {
    "even": (lambda at: 1.0, lambda n: 2.0),
    "a slow first step and look": (lambda at: 60.0 if at == 1 else 1.0, lambda n: 8.0 if n == 0 else 2.0),
    "steps grow longer": (lambda at: 1.0 + at / 1000, lambda n: 2.0),
    "steps grow shorter": (lambda at: 2.0 - at / 2000, lambda n: 2.0),
    "looks grow longer": (lambda at: 1.0, lambda n: 2.0 + n / 20),
    "looks vary": (lambda at: 1.0, lambda n: 1.0 + (n * 7 % 11) / 5),
    "a pause at every hundredth step": (lambda at: 30.0 if at % 100 == 0 else 0.7, lambda n: 2.0),
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_the_budget_is_kept_and_used_whatever_the_times_are(tmp_path, times):
    steps, overhead, meetings = simulate(tmp_path, 2000, *times)
    assert 0.8 * 0.03 <= overhead <= 0.03
    assert (steps[0], steps[-1]) == (0, 2000)
    assert sum(0 < step <= 100 for step in steps) >= 2
    # Ranks meet to look, once before to plan, and a few times when nothing more fits.
    assert len(meetings) <= len(steps) + 10
    assert sum(step <= 100 for step in steps) > 2 * 0.05 * len(steps)  # of even steps, a twentieth


def test_a_look_that_never_fits_costs_few_meetings(tmp_path):
    steps, _, meetings = simulate(tmp_path, 2000, lambda at: 1.0, lambda n: 100.0)
    assert steps == [0, 2000]
    assert len(meetings) < 15


def test_the_plan_is_said_once_and_again_when_it_changes(tmp_path, capsys):
    simulate(tmp_path, 1000, lambda at: 1.0, lambda n: 2.0)
    said = [line for line in capsys.readouterr().out.splitlines() if "about" in line]
    assert len(said) == 1
    assert "15 looks, at steps 0, " in said[0]
    assert "% of the run (a look takes 2 s, a step 1 s)" in said[0]


def test_a_run_that_was_watched_at_fixed_steps_is_resumed_with_auto(tmp_path):
    watched(tmp_path, steps=10, every=5, max_overhead=0, training={"save_strategy": "steps", "save_steps": 10})
    run = watched(tmp_path, steps=40, checkpoint=str(tmp_path / "checkpoint-10"))
    steps = looks(run)
    assert steps[:3] == [0, 5, 10]
    assert steps[-1] == 40
    assert 4 < len(steps) < 15
    assert blocked(run)[1] <= 0.03


def test_a_damaged_schedule_is_made_anew(tmp_path):
    run = watched(tmp_path, steps=10, training={"save_strategy": "steps", "save_steps": 5})
    (run.path / "schedule.json").write_text(json.dumps({"marks": "none"}))
    assert looks(watched(tmp_path, steps=10, checkpoint=str(tmp_path / "checkpoint-5")))[-1] == 10
