"""Imported stages after one another: what `divwatch report` says of them, whatever their names, steps and prompts are."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from divwatch.cli import app
from tests.imports.test_kinds_of_dumps import imported, write_lines


def write_stage(path, words, prompts=range(8), step=None):
    """Completions of `words` different words each: the fewer, the less diverse."""
    rows = [
        {
            "prompt": f"question {i}",
            "completion": f"answer{(k + i) % words}",
            **({} if step is None else {"step": step}),
        }
        for i in prompts
        for k in range(8)
    ]
    write_lines(path, rows)


def report_of(folder):
    """What `divwatch report` prints as JSON, and its page."""
    result = CliRunner().invoke(app, ["report", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    return report, Path(report["page"]).read_text()


def share(report, stage):
    return next(row["share"] for row in report["stages"] if row["stage"] == stage and row["number"] >= 0)


@pytest.mark.parametrize("steps", [(None, None), (500, 0)])
def test_stages_of_one_look_are_compared_with_the_base(tmp_path, steps):
    for name, words, step in zip(("base", "sft"), (8, 2), steps, strict=True):
        write_stage(tmp_path / f"{name}.jsonl", words, step=step)
    imported(tmp_path / "A", tmp_path / "base.jsonl")
    imported(tmp_path / "B", tmp_path / "sft.jsonl", options=["--baseline", tmp_path / "A"])
    report, page = report_of(tmp_path / "B")
    assert share(report, "B") == pytest.approx(-0.5, abs=0.03)
    assert "of the base&#39;s diversity" in page
    assert "could not be compared" not in page


@pytest.mark.parametrize("names", [("pretrained", "base"), ("base", "before base")])
def test_a_stage_may_be_called_base(tmp_path, names):
    before = []
    for name, words in zip(names, (8, 2), strict=True):
        write_stage(tmp_path / f"{name}.jsonl", words)
        imported(tmp_path / name, tmp_path / f"{name}.jsonl", options=before)
        before = ["--baseline", tmp_path / name]
    report, _ = report_of(tmp_path / names[-1])
    assert [row["stage"] for row in report["stages"] if row["number"] >= 0] == list(names)
    assert [share(report, name) for name in names] == pytest.approx([0, -0.5], abs=0.03)


def test_stages_with_other_prompts_as_well_are_compared_on_those_that_they_share(tmp_path):
    write_stage(tmp_path / "base.jsonl", 8, range(12))
    write_stage(tmp_path / "sft.jsonl", 2, range(4, 16))
    imported(tmp_path / "A", tmp_path / "base.jsonl")
    run, _ = imported(tmp_path / "B", tmp_path / "sft.jsonl", options=["--baseline", tmp_path / "A"])
    ids = [prompt["id"] for prompt in run.info()["panel"]["prompts"]]
    assert len(set(ids)) == 12
    report, page = report_of(tmp_path / "B")
    assert share(report, "B") == pytest.approx(-0.5, abs=0.03)
    assert "could not be compared" not in page
