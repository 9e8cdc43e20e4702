"""Trackers, written and read back: exact names, the right axis even for late scores, each look and row once.

W&B is written offline and read with its own `wandb leet inspect`; TensorBoard and trackio with their own readers.
"""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback

import divwatch
from divwatch.monitor.background import Background
from divwatch.outputs import publisher
from divwatch.outputs.names import look_scalars
from divwatch.outputs.other_trackers import OtherTrackers
from divwatch.outputs.tracking import WandbLog, warn_if_shared
from divwatch.store.run_directory import RunDirectory
from tests.training import SETTINGS, dpo_trainer, load_model, make_alike, sft_trainer, weights_hash

CONTRACT = [
    *[f"diversity/{task}/{metric}" for task in ("all", "pair", "story") for metric in ("ead", "sbert", "vendi")],
    *[f"correct_diversity/{task}/{metric}" for task in ("all", "listing") for metric in ("ead", "sbert")],
    *[f"quality/{task}/{q}" for task in ("all", "pair") for q in ("accuracy", "pass_at_k", "majority_at_k")],
    "decomposition/all/quality_control",
    "decomposition/all/genuine_narrowing",
    "decomposition/all/cross_narrowing",
    "decomposition/all/error_narrowing",
    "collapse/all/change",
    "collapse/alarm",
    "watch/seconds",
    "watch/overhead",
]
GROUPS = ("diversity", "correct_diversity", "quality", "decomposition", "collapse", "collapse_correct", "watch")
LOOKS = [0, 2, 4, 6, 8]
LIGHT = SETTINGS | {"metrics": ["ead"], "prompts": 6}  # where the numbers themselves do not matter


def wandb_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def inspect(file: Path) -> list[dict]:
    command = [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", file]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def table_data(folder: Path) -> list[str]:
    files = folder.rglob("*.table.json")
    return [json.dumps(row[:4]) for file in files for row in json.loads(file.read_text())["data"]]


@pytest.fixture(scope="module")
def environment():
    """W&B reads the environment once a process: it is torn down so that each test's own is read."""
    import wandb

    with pytest.MonkeyPatch.context() as patch:

        def use(folder: Path) -> None:
            wandb.teardown()
            for name in ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE"):
                patch.delenv(name, raising=False)
            patch.setenv("WANDB_DIR", str(folder))
            patch.setenv("WANDB_MODE", "offline")

        yield use


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture(scope="module")
def records(tracked, environment):
    """Eight steps with a look at every second one, scored after the last step; samples are identical from step 2."""
    import wandb

    with pytest.MonkeyPatch.context() as patch:
        environment(tracked)
        patch.setattr(Background, "poll", lambda self: [])  # no score arrives before the end
        trackers = {"report_to": ["wandb", "tensorboard", "trackio"], "trackio_static_space_id": False}
        trainer = sft_trainer(tracked / "out", steps=8, project="mine", **trackers)
        divwatch.watch(trainer, every=2, lineage="mine", **SETTINGS | {"prompts": 48, "background": True})
        make_alike(patch, lambda: trainer.state.global_step >= 2)
        trainer.train()
        wandb.finish()
    (tracked / "log_history.json").write_text(json.dumps(trainer.state.log_history))
    (file,) = wandb_files(tracked)
    return inspect(file)


def history(records):
    return [r["history"]["item"] for r in records if r["type"] == "history"]


def looks_in(records):
    return [h for h in history(records) if "collapse/alarm" in h]


def test_every_name_of_the_contract_is_there_once_a_look_on_its_step(records):
    looks = looks_in(records)
    assert [h["train/global_step"] for h in looks] == LOOKS
    for name in CONTRACT:
        # The split needs a second look; once all outputs are alike a task may have no correct ones.
        having = looks if not name.startswith(("correct_", "decomp")) else looks[1:2]
        assert all(name in h for h in having), name
    assert not [name for h in history(records) for name in h if name.startswith("train/diversity")]
    trained = [h["train/global_step"] for h in history(records) if "train/loss" in h]
    assert trained == list(range(1, 9)), "a late look moved the trainer's own points"


def test_every_name_has_an_axis_of_its_own(records):
    defined = {
        m["metric"]["name"]: m["metric"].get("step_metric")
        for m in records
        if m["type"] == "metric" and "name" in m["metric"]
    }
    logged = {n for h in history(records) for n in h if n.split("/")[0] in GROUPS}
    assert len(logged) > 30
    assert {defined[name] for name in logged if not name.startswith("watch/completions")} == {"train/global_step"}


def test_the_alert_says_what_where_and_since_when(records):
    alerts = [r["alert"] for r in records if r["type"] == "alert"]
    assert alerts
    assert all(len(a["title"]) <= 64 for a in alerts)
    assert any("output diversity of the whole panel falls since step" in a["text"] for a in alerts)


def test_the_run_has_the_lineages_group_its_settings_a_verdict_and_the_run_directory(records):
    run = next(r["run"] for r in records if r["type"] == "run")
    assert (run["run_group"], run["job_type"]) == ("mine", "sft")
    assert "max_new_tokens" in json.dumps([r for r in records if r["type"] == "config"])
    assert "divwatch/verdict" in json.dumps([r for r in records if r["type"] == "summary"])
    kept = [r["artifact"] for r in records if r["type"] == "artifact" and r["artifact"]["type"] == "divwatch"]
    assert len(kept) == 1
    paths = [entry["path"] for entry in kept[0]["manifest"]["contents"]]
    assert {"run.json", "looks.jsonl", "completions/step-00000008.parquet"} <= set(paths)


def test_the_table_has_each_row_once(records, tracked):
    counts = [h["watch/completions.nrows"] for h in history(records) if "watch/completions.nrows" in h]
    assert counts == [24, 48, 72, 96, 120]  # a prompt of each of six tasks, four samples, at each of five looks
    rows = table_data(tracked)
    assert len(rows) == len(set(rows)) == 120


def expected(records) -> dict[int, dict[str, float]]:
    """The scalars of each look by step, as W&B has them."""
    scalars = {}
    for look in looks_in(records):
        numbers = {n: v for n, v in look.items() if n.split("/")[0] in GROUPS and isinstance(v, int | float)}
        scalars[look["train/global_step"]] = {n: v for n, v in numbers.items() if not n.startswith("watch/completions")}
    return scalars


def test_online_the_server_receives_each_look_on_its_step(tmp_path):
    """The real client, a stand-in for the server: what is logged live is what is on record."""
    from tests.faults.test_tracking import online

    found = online(tmp_path, "answers")
    assert found["error"] is None
    assert [tuple(group) for group in found["groups"]] == [("lineage", "sft")]
    rows = [row for row in found["history"] if "collapse/alarm" in row]
    recorded = {look["step"]: look["tasks"]["all"] for look in RunDirectory.of(tmp_path).looks()}
    for key, name in (("diversity/ead", "diversity/all/ead"), ("quality/accuracy", "quality/all/accuracy")):
        told = {row["train/global_step"]: row[name] for row in rows}
        assert told == pytest.approx({step: tasks[key]["mean"] for step, tasks in recorded.items()})
    tables = [row for row in found["history"] if "watch/completions" in row]
    assert [row["train/global_step"] for row in tables] == [0, 1, 2, 3]


def test_late_scores_stand_on_their_looks_step_in_the_log_history(records, tracked):
    entries = json.loads((tracked / "log_history.json").read_text())
    stored = {e["step"]: e for e in entries if "diversity/all/sbert" in e}
    assert sorted(stored) == LOOKS
    for step, scalars in expected(records).items():
        assert {name: stored[step][name] for name in scalars} == pytest.approx(scalars)
        assert stored[step]["epoch"] == pytest.approx(step / 16)  # 64 rows, four a step


def test_tensorboard_receives_every_scalar_at_the_looks_own_step(records, tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {file.parent for file in tracked.rglob("events.out.tfevents*")}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    for step, scalars in expected(records).items():
        for name, value in scalars.items():
            (point,) = [e for e in events.Scalars(f"train/{name}") if e.step == step]
            assert point.value == pytest.approx(value, rel=1e-5), name


def test_tensorboard_shows_the_completions_of_every_look(records, tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in (tracked / "out").rglob("events.out.tfevents*")}
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    texts = events.Tensors("watch/completions/text_summary")
    assert [event.step for event in texts] == LOOKS
    rows = texts[0].tensor_proto.string_val[0].decode().split("\n")
    assert rows[0].startswith("| step | task | prompt | sample | completion |")
    assert len(rows) == 2 + len(table_data(tracked)) / len(LOOKS)


def test_trackio_holds_the_completions_too(records, tracked):
    (database,) = Path(os.environ["TRACKIO_DIR"]).glob("mine*.db")
    rows = sqlite3.connect(database).execute("select metrics from metrics").fetchall()
    tables = [row for (text,) in rows if "watch/completions" in (row := json.loads(text))]
    assert [row["train/global_step"] for row in tables] == LOOKS


def test_an_alarm_is_an_alert_in_trackio():
    """From the thread of the trackers, in the run that the trainer's thread opened."""
    import trackio
    from transformers.integrations import TrackioCallback

    trackio.init(project="alerts", name="run")
    callbacks = [object.__new__(TrackioCallback)]
    others = OtherTrackers(SimpleNamespace(callback_handler=SimpleNamespace(callbacks=callbacks)))
    others.alert("Diversity collapse since step 4", "it falls")
    others.close(30)
    trackio.finish()
    (database,) = Path(os.environ["TRACKIO_DIR"]).glob("alerts*.db")
    rows = sqlite3.connect(database).execute("select title, text, level from alerts").fetchall()
    assert rows == [("Diversity collapse since step 4", "it falls", "warn")]


def test_trackio_receives_every_scalar_with_the_looks_own_step_in_the_one_run(records, tracked):
    (database,) = Path(os.environ["TRACKIO_DIR"]).glob("mine*.db")
    rows = sqlite3.connect(database).execute("select run_name, metrics from metrics").fetchall()
    assert len({name for name, _ in rows}) == 1, "late scores opened a second run"
    logged = [json.loads(metrics) for _, metrics in rows]
    found = {m["train/global_step"]: m for m in logged if "train/diversity/all/sbert" in m}
    assert sorted(found) == LOOKS
    for step, scalars in expected(records).items():
        assert {name: found[step][f"train/{name}"] for name in scalars} == pytest.approx(scalars)


# resume, and the next stage


class Interrupt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:  # after the look at 4
            raise KeyboardInterrupt


def cut_short(out: Path, **changes):
    """A run with looks at 0, 2 and 4 that is interrupted at step 5; its checkpoint is of step 2."""
    trainer = sft_trainer(out, steps=6, save_strategy="steps", save_steps=2, report_to="wandb", **changes)
    divwatch.watch(trainer, every=2, lineage="mine", **LIGHT)
    trainer.add_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


def resume(out: Path):
    trainer = sft_trainer(out, steps=6, report_to="wandb")
    divwatch.watch(trainer, every=2, lineage="mine", **LIGHT)
    trainer.train(resume_from_checkpoint=str(out / "checkpoint-2"))
    return trainer


def test_a_resumed_run_and_the_next_stage_are_in_one_group_on_one_pipeline_axis(tmp_path, environment):
    import wandb

    environment(tmp_path)
    cut_short(tmp_path / "sft")
    wandb.finish()
    trainer = resume(tmp_path / "sft")
    trainer.save_model()
    wandb.finish()
    dpo = dpo_trainer(tmp_path / "dpo", steps=2, model=load_model(tmp_path / "sft"), report_to="wandb")
    dpo.add_callback(divwatch.DiversityCallback(dpo, divwatch.WatchConfig(every=1, **LIGHT)))
    dpo.train()
    wandb.finish()
    first, resumed, second = (inspect(file) for file in wandb_files(tmp_path))
    runs = [next(r["run"] for r in one if r["type"] == "run") for one in (first, resumed, second)]
    assert [(run["run_group"], run["job_type"]) for run in runs] == [("mine", "sft"), ("mine", "sft"), ("mine", "dpo")]
    steps = [[h["train/global_step"] for h in looks_in(one)] for one in (resumed, second)]
    assert steps == [[4, 6], [0, 1, 2]]
    pipeline = [h["divwatch/pipeline_step"] for one in (resumed, second) for h in looks_in(one)]
    assert pipeline == [4, 6, 6, 7, 8]
    assert RunDirectory.of(tmp_path / "sft").info()["wandb"]["id"] == runs[1]["run_id"]
    assert RunDirectory.of(tmp_path / "sft").info()["wandb_before"][0]["id"] == runs[0]["run_id"]
    assert sorted(e["step"] for e in trainer.state.log_history if "collapse/alarm" in e) == [0, 2, 4, 6]


def test_a_run_resumed_in_the_same_wandb_run_logs_no_look_and_no_row_twice(tmp_path, environment):
    import wandb

    environment(tmp_path)
    for part in (lambda: cut_short(tmp_path / "sft"), lambda: resume(tmp_path / "sft")):
        wandb.init(id="same", resume="allow")
        part()
        wandb.finish()
    files = [inspect(file) for file in wandb_files(tmp_path)]
    assert [h["train/global_step"] for one in files for h in looks_in(one)] == [0, 2, 4, 6]
    rows = table_data(tmp_path)
    assert len(rows) == len(set(rows)) == 4 * 24


def test_scores_that_a_checkpoint_missed_are_in_the_resumed_log_history(tmp_path, monkeypatch):
    """The checkpoint of step 2 was written before the scores of its looks came."""
    with monkeypatch.context() as patch:
        patch.setattr("divwatch.outputs.publisher.log_to_trainer", lambda *_: None)
        first = sft_trainer(tmp_path, steps=4, save_strategy="steps", save_steps=2)
        divwatch.watch(first, every=1, **LIGHT)
        first.train()
    second = sft_trainer(tmp_path, steps=4)
    divwatch.watch(second, every=1, **LIGHT)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    entries = {e["step"]: e for e in second.state.log_history if "collapse/alarm" in e}
    assert sorted(entries) == [0, 1, 2, 3, 4]
    lines = {look["step"]: look for look in RunDirectory.of(tmp_path).looks()}
    mean = lines[1]["tasks"]["all"]["diversity/ead"]["mean"]
    assert entries[1]["diversity/all/ead"] == pytest.approx(mean)
    assert "collapse/all/change" in entries[2]


# W&B cannot hurt training


class Faulty:
    """A W&B run whose every call raises, or waits for a sign that comes late or never."""

    id, name, group, project, dir = "x", "x", "g", "p", "d"

    def __init__(self, raises: bool = False):
        self.raises, self.sign, self.threads = raises, threading.Event(), set()

    def _call(self, *_, **__):
        self.threads.add(threading.current_thread())
        if self.raises:
            raise ConnectionError("no route to host")
        self.sign.wait()

    define_metric = log = alert = log_artifact = _call

    @property
    def config(self):
        return self

    summary = config
    update = _call


@pytest.mark.parametrize("fault", ["absent", "raises", "hangs"])
def test_wandb_changes_nothing_in_training_and_is_never_called_by_it(tmp_path, fault, monkeypatch, capsys):
    plain = sft_trainer(tmp_path / "plain", steps=2)
    plain.train()
    run = None if fault == "absent" else Faulty(raises=fault == "raises")
    monkeypatch.setattr(publisher, "wandb_run", lambda trainer: run)
    monkeypatch.setattr("divwatch.outputs.publisher.CLOSE_LIMIT", 0.2)
    trainer = sft_trainer(tmp_path / fault, steps=2)
    divwatch.watch(trainer, every=1, **LIGHT)
    trainer.train()
    assert weights_hash(trainer.model) == weights_hash(plain.model)
    looks = RunDirectory.of(tmp_path / fault).looks()
    assert [(look["step"], look["status"]) for look in looks] == [(0, "ok"), (1, "ok"), (2, "ok")]
    assert sorted(e["step"] for e in trainer.state.log_history if "collapse/alarm" in e) == [0, 1, 2]
    if run is not None:
        assert threading.main_thread() not in run.threads
        said = {"raises": "ConnectionError: no route to host", "hangs": "is not waited for (settings, look at step 0"}
        assert capsys.readouterr().out.count(said[fault]) == 1
        run.sign.set()


def test_a_failure_of_wandb_is_logged_once(capsys):
    log = WandbLog()
    log.open(Faulty(raises=True), {})
    for _ in range(4):
        log.alert("title", "text")
    log.close(10)
    assert capsys.readouterr().out.count("W&B rejected the settings: ConnectionError: no route to host") == 1


def test_a_wandb_run_of_two_trainings_is_named(capsys, tmp_path):
    run, other = SimpleNamespace(id="shared"), SimpleNamespace(id="own")
    for path, tracked in (("a", run), ("a", run), ("b", other), ("c", None)):
        warn_if_shared(tracked, tmp_path / path)
    assert not capsys.readouterr().out
    warn_if_shared(run, tmp_path / "d")
    (line,) = capsys.readouterr().out.splitlines()
    assert f"holds the looks of {tmp_path / 'a'} already, and those of {tmp_path / 'd'} are added" in line
    assert "wandb.finish()" in line


def test_a_backlog_is_bounded_and_the_end_waits_so_long_and_no_longer(capsys):
    log, run = WandbLog(pending=2), Faulty()
    log.open(run, {})
    for _ in range(4):
        log.alert("title", "text")
    log.close(0.1)
    said = capsys.readouterr().out
    assert said.count("has fallen behind") == 1
    assert "has not answered for 0 s and is not waited for (settings, alert)" in said
    run.sign.set()


def test_scalars_leave_out_what_is_missing_and_what_is_not_for_people():
    nan = float("nan")
    tasks = {
        "pair": {"diversity/sbert": {"mean": nan}, "quality/accuracy": {"mean": 0.5}, "pairs/cc_count": {"mean": 3.0}}
    }
    assert look_scalars(tasks) == {"quality/pair/accuracy": 0.5}
