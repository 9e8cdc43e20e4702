"""W&B, really written offline and read back: exact names, the right axis, one row a look, the alert, the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training import SETTINGS, make_alike, sft_trainer

import divwatch
from divwatch.tracking import look_scalars

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


def inspect(folder: Path) -> list[dict]:
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", file]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture(scope="module")
def records(tracked):
    """A run of five steps with a look at every second, and outputs made alike from step 2 on, so that it alarms."""
    import wandb

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DIR", str(tracked))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_RUN_GROUP", "mine")
        patch.setenv("WANDB_JOB_TYPE", "sft")
        trainer = sft_trainer(tracked / "out", steps=8, report_to="wandb")
        divwatch.watch(trainer, every=2, lineage="mine", **SETTINGS | {"prompts": 48})
        make_alike(patch, lambda: trainer.state.global_step >= 2)
        trainer.train()
        wandb.finish()
    return inspect(tracked)


def history(records):
    return [r["history"]["item"] for r in records if r["type"] == "history"]


def test_every_name_of_the_contract_is_there_once_a_look_on_its_step(records):
    looks = [h for h in history(records) if "diversity/all/sbert" in h]
    assert [h["train/global_step"] for h in looks] == [0, 2, 4, 6, 8]
    for name in CONTRACT:
        # The split needs a second look; once all outputs are alike a task may have no correct ones.
        having = looks if not name.startswith(("correct_", "decomp")) else looks[1:2]
        assert all(name in h for h in having), name
    assert not [name for h in history(records) for name in h if name.startswith("train/diversity")]


def test_every_name_has_an_axis_of_its_own(records):
    defined = {
        m["metric"]["name"]: m["metric"].get("step_metric")
        for m in records
        if m["type"] == "metric" and "name" in m["metric"]
    }
    logged = {
        n for h in history(records) for n in h if n.split("/")[0] in ("diversity", "quality", "collapse", "watch")
    }
    assert len(logged) > 30
    assert {defined[name] for name in logged if not name.startswith("watch/completions")} == {"train/global_step"}


def test_the_alert_says_what_where_and_since_when(records):
    alerts = [r["alert"] for r in records if r["type"] == "alert"]
    assert alerts
    assert all(len(a["title"]) <= 64 for a in alerts)
    assert any("output diversity of the whole panel falls since step" in a["text"] for a in alerts)


def test_the_run_has_its_group_its_settings_and_a_verdict_to_sort_by(records):
    run = next(r["run"] for r in records if r["type"] == "run")
    assert (run["run_group"], run["job_type"]) == ("mine", "sft")
    assert "max_new_tokens" in json.dumps([r for r in records if r["type"] == "config"])
    assert "divwatch/verdict" in json.dumps([r for r in records if r["type"] == "summary"])


def test_the_table_has_each_row_once(records, tracked):
    counts = [h["watch/completions.nrows"] for h in history(records) if "watch/completions.nrows" in h]
    assert counts == [24, 48, 72, 96, 120]  # a prompt of each of six tasks, four samples, at each of five looks
    rows = [
        json.dumps(row[:4]) for file in tracked.rglob("*.table.json") for row in json.loads(file.read_text())["data"]
    ]
    assert len(rows) == len(set(rows)) == 120


def test_scalars_leave_out_what_is_missing_and_what_is_not_for_people():
    nan = float("nan")
    tasks = {
        "pair": {"diversity/sbert": {"mean": nan}, "quality/accuracy": {"mean": 0.5}, "pairs/cc_count": {"mean": 3.0}}
    }
    assert look_scalars(tasks) == {"quality/pair/accuracy": 0.5}
