"""Run directories that an earlier divwatch wrote (tests/data/format1) open everywhere, moved as they are."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import divwatch
from divwatch.cli import app
from divwatch.store.lineage import steps_before
from divwatch.store.run_directory import RunDirectory
from tests.training import SETTINGS, sft_trainer

DATA = Path(__file__).parent / "data" / "format1"
# The settings with which the stages were watched (see the README beside them).
WATCHED = SETTINGS | {"prompts": 4, "metrics": ["sbert"], "lineage": "format1", "every": 2}


@pytest.fixture
def lineage(tmp_path):
    """A copy of the two stages that may be written to."""
    return Path(shutil.copytree(DATA, tmp_path / "lineage"))


def command(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_report(lineage):
    """The DPO stage alone is asked for: its parent is found where it was moved to."""
    shown = json.loads(command("report", lineage / "dpo", "--out", lineage / "page.html", "--json"))
    assert [row["stage"] for row in shown["stages"]] == ["base", "sft", "dpo"]
    assert shown["stages"][2]["change"] < -0.9
    assert {row["stage"] for row in shown["onsets"]} == {"dpo"}
    assert "could not be read" not in (lineage / "page.html").read_text()


def test_top(lineage):
    sft, dpo = json.loads(command("top", lineage, "--once", "--json"))
    assert [(run["stage"], run["state"], run["looks"], run["failed"]) for run in (sft, dpo)] == [
        ("sft", "ended", 3, 0),
        ("dpo", "ended", 4, 0),
    ]
    assert sft["falling"] == []
    assert dpo["falling"][0]["task"] == "all"
    assert dpo["levels"]["diversity"]["change"] < -0.9


def test_compare(lineage):
    shown = json.loads(command("compare", lineage / "sft", lineage / "dpo", "--json"))
    (effect,) = [row for row in shown["effects"] if row["measure"] == "diversity/sbert" and row["task"] == "all"]
    assert effect["difference"] < 0
    assert effect["prompts"] == 4


def test_the_axis_of_the_lineage(lineage):
    assert steps_before(RunDirectory.of(lineage / "dpo")) == 4


def test_resume(lineage):
    """A checkpoint of the same training resumes the record: earlier looks stay as they are, later ones are added."""
    run = RunDirectory.of(lineage / "sft")
    before = {look["step"]: look for look in run.looks()}
    files = [run.path / "scores" / f"step-{step:08d}.parquet" for step in (0, 2)]
    contents = [file.read_bytes() for file in files]
    sft_trainer(lineage / "sft", save_strategy="steps", save_steps=2).train()
    assert run.looks() == list(before.values())

    trainer = sft_trainer(lineage / "sft")
    callback = divwatch.watch(trainer, **WATCHED)
    trainer.train(resume_from_checkpoint=str(lineage / "sft" / "checkpoint-2"))
    after = {look["step"]: look for look in run.looks()}
    assert list(after) == [0, 2, 4]
    assert [after[0], after[2]] == [before[0], before[2]]
    assert [file.read_bytes() for file in files] == contents
    assert after[4]["time"] > before[4]["time"]
    newer = {"quality/unknown_tokens", *(key for key in after[4]["tasks"]["all"] if key.startswith("covariates/"))}
    assert after[4]["tasks"]["all"].keys() - newer == before[4]["tasks"]["all"].keys()
    assert not run.path.with_name("divwatch-1").exists()
    assert callback.assessment.baseline_step == 0
