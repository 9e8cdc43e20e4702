"""The run directory: whole or not at all, readable after a crash, never overwritten, linked to its parent."""

import json

import numpy as np
import pytest

from divwatch.errors import DivwatchError
from divwatch.records import Completion, PromptSamples, PromptScores
from divwatch.store.lineage import lineage_of, steps_before
from divwatch.store.run_directory import RunDirectory
from divwatch.store.search import find_parent


def make(path, **info):
    run = RunDirectory(path / "divwatch")
    run.create({"stage": "sft", "lineage": "line", "max_steps": 10, "parent": None} | info)
    return run


def look(step):
    return {"step": step, "status": "ok", "tasks": {}}


def test_what_is_written_is_read(tmp_path):
    run = make(tmp_path)
    completions = [Completion("a", "t", k, f"<think>x</think>{k}", True, 3) for k in range(2)]
    samples = [PromptSamples("a", "t", ["0", "1"], [True, True], [True, False], ["0", "1"])]
    scores = PromptScores(["a"], ["t"], {"diversity/sbert": np.array([0.25]), "quality/accuracy": np.array([np.nan])})
    run.write_completions(5, completions)
    assert [row["text"] for row in run.completions(5)] == ["<think>x</think>0", "<think>x</think>1"]
    run.write_judged(5, completions, samples)
    assert [(row["answer_text"], row["correct"], row["answer"]) for row in run.completions(5)] == [
        ("0", True, "0"),
        ("1", False, "1"),
    ]
    run.write_scores(5, scores)
    back = run.scores(5)
    assert (back.ids, back.tasks) == (["a"], ["t"])
    np.testing.assert_equal(back.values, scores.values)
    run.append_look(look(5))
    run.append_event({"step": 5})
    assert run.looks() == [look(5)]
    assert run.events() == [{"step": 5}]


def test_a_torn_last_line_is_passed_over_and_the_next_look_still_lands(tmp_path):
    run = make(tmp_path)
    run.append_look(look(0))
    with (run.path / "looks.jsonl").open("a") as file:
        file.write('{"step": 10, "sta')
    assert run.looks() == [look(0)]
    run.append_look(look(20))
    assert run.looks() == [look(0), look(20)]


def test_every_line_is_strict_json(tmp_path):
    """NaN, which JSON has no word for, is null: other programs read these files too."""
    store = RunDirectory(tmp_path / "divwatch")
    store.create({})
    store.append_look({"step": 0, "status": "failed", "tasks": {"all": {"mean": 0.5, "lo": float("nan")}}})
    store.append_event({"step": 0, "change_interval": [float("-inf"), 0.1]})
    store.resume_at(0)

    def refuse(word):
        raise AssertionError(word)

    for name in ("looks.jsonl", "events.jsonl"):
        line = json.loads((store.path / name).read_text(), parse_constant=refuse)
        assert line["step"] == 0
    assert line["change_interval"] == [None, 0.1]


def test_a_line_damaged_in_the_middle_is_named(tmp_path):
    run = make(tmp_path)
    (run.path / "looks.jsonl").write_text('{"step": 0}\n{oops\n{"step": 2}\n')
    with pytest.raises(DivwatchError, match="line 2 is damaged"):
        run.looks()


def test_an_earlier_record_is_moved_aside_not_overwritten(tmp_path):
    make(tmp_path).append_look(look(0))
    run = make(tmp_path)
    assert run.looks() == []
    assert RunDirectory(tmp_path / "divwatch-1").looks() == [look(0)]


def test_a_half_written_file_of_a_killed_run_is_removed_by_the_next(tmp_path):
    """A run that was killed before its first run.json was whole leaves a draft and no record to resume."""
    draft = tmp_path / "divwatch" / "run.json.1533.tmp"
    draft.parent.mkdir()
    draft.write_text("{")
    make(tmp_path)
    assert not draft.exists()


def test_looks_after_the_checkpoint_are_forgotten_on_resume(tmp_path):
    run = make(tmp_path)
    for step in (0, 10, 20):
        run.append_look(look(step))
        run.append_event({"step": step})
    run.resume_at(10)
    assert [line["step"] for line in run.looks()] == [line["step"] for line in run.events()] == [0, 10]


def test_a_run_finds_its_parent_from_the_model_directory(tmp_path):
    parent = make(tmp_path / "sft")
    (tmp_path / "sft" / "checkpoint-5").mkdir()
    for model in (tmp_path / "sft", tmp_path / "sft" / "checkpoint-5"):
        assert find_parent(model).path.resolve() == parent.path.resolve()
    assert find_parent("allenai/Olmo-3-1025-7B") is None
    child = make(tmp_path / "dpo", parent=str(parent.path))
    assert [run.path for run in lineage_of(child)] == [parent.path, child.path]


def test_the_steps_before_a_stage_are_found_where_the_runs_were_moved(tmp_path):
    """Of a stage without a planned length (-1), its last look counts; damaged lines in its record do not matter."""
    base = make(tmp_path / "here" / "sft", output_dir=str(tmp_path / "here" / "sft"), max_steps=-1)
    (base.path / "looks.jsonl").write_text('{"step": 0}\n{damaged\n{"step": 7}\n')
    middle = {"parent": str(base.path), "output_dir": str(tmp_path / "here" / "dpo"), "max_steps": 20}
    last = {"parent": str(make(tmp_path / "here" / "dpo", **middle).path), "output_dir": str(tmp_path / "here" / "rl")}
    make(tmp_path / "here" / "rl", **last)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = RunDirectory(tmp_path / "there" / "rl" / "divwatch")
    assert [run.path.parent.name for run in lineage_of(moved)] == ["sft", "dpo", "rl"]
    assert steps_before(moved) == 27


def test_a_lineage_that_runs_in_a_circle_is_named(tmp_path):
    run = make(tmp_path / "a", parent=str(tmp_path / "b" / "divwatch"))
    make(tmp_path / "b", parent=str(run.path))
    with pytest.raises(DivwatchError, match="its own ancestor"):
        lineage_of(run)


def test_wrong_directories_are_one_line(tmp_path):
    with pytest.raises(DivwatchError, match="no run directory"):
        RunDirectory(tmp_path).info()
    run = make(tmp_path)
    (run.path / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(DivwatchError, match="format 99"):
        run.info()
    (run.path / "run.json").write_text("{")
    with pytest.raises(DivwatchError, match="damaged"):
        run.info()
