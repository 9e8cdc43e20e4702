"""Run directories are read as they are found: torn, moved, in part, or not at all."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from divwatch.errors import DivwatchError
from divwatch.store.attribution import attribute_stages
from divwatch.store.reader import RunReader
from divwatch.store.search import find_runs
from divwatch.store.tables import lineages, load_run, load_runs
from tests.report.worlds import INSTRUCT, THINK, Course, write_lineage


@pytest.fixture
def think(tmp_path):
    """Two stages with one task, three looks each."""
    return write_lineage(tmp_path / "runs", "think", THINK, tasks=("pair",), prompts=4, looks=3)


def test_a_run_is_found_by_its_output_its_own_folder_or_a_folder_of_runs(think):
    sft, dpo = think
    assert find_runs([sft]) == find_runs([sft.parent]) == [sft]
    assert find_runs([sft.parent.parent]) == sorted([sft, dpo])
    assert find_runs([sft, sft.parent]) == [sft]


def test_a_parent_that_was_not_named_is_loaded_too(think):
    runs = load_runs([think[1]])
    assert [run.directory for run in lineages(runs)[0]] == think


def test_a_lineage_that_was_moved_still_holds_together(think, tmp_path):
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    chain = lineages(load_runs([tmp_path / "elsewhere"]))
    assert [[run.stage for run in runs] for runs in chain] == [["sft", "dpo"]]


def test_a_stage_that_two_others_continue_is_in_both_lineages(tmp_path):
    think = write_lineage(tmp_path, "think", THINK, tasks=("pair",), prompts=3, looks=2)
    instruct = write_lineage(tmp_path, "instruct", INSTRUCT, tasks=("pair",), prompts=3, looks=2)
    meta = json.loads((instruct[0] / "run.json").read_text())
    (instruct[0] / "run.json").write_text(json.dumps(meta | {"parent": str(think[0])}))
    chains = lineages(load_runs([tmp_path]))
    names = [[run.directory.parent.name for run in chain] for chain in chains]
    assert sorted(names) == [["think-sft", "instruct-sft", "instruct-dpo"], ["think-sft", "think-dpo"]]


def test_a_run_that_is_its_own_ancestor_is_shown_not_followed(think):
    meta = json.loads((think[0] / "run.json").read_text())
    (think[0] / "run.json").write_text(json.dumps(meta | {"parent": str(think[1])}))
    chains = lineages(load_runs(think))
    assert sorted(len(chain) for chain in chains) == [1, 1]


def test_a_torn_last_line_is_left_out_and_noted(think):
    looks = think[0] / "looks.jsonl"
    whole = load_run(think[0])
    looks.write_text(looks.read_text()[:-40])
    torn = load_run(think[0])
    assert list(torn.looks["step"]) == list(whole.looks["step"])[:-1]
    assert torn.notes == ["looks.jsonl: 1 line could not be read and was left out"]


def test_missing_and_damaged_files_are_noted_and_the_rest_is_read(think):
    files = sorted((think[0] / "scores").iterdir())
    files[0].unlink()
    files[1].write_bytes(b"PAR1 torn")
    run = load_run(think[0])
    assert len(run.looks) == 3
    assert set(run.scores["step"]) == {150}
    assert len(run.notes) == 2


def test_a_look_repeated_after_a_resume_counts_once(think):
    looks = think[0] / "looks.jsonl"
    last = json.loads(looks.read_text().splitlines()[-1])
    last["tasks"]["all"]["diversity/sbert"]["mean"] = 0.123
    looks.write_text(looks.read_text() + json.dumps(last) + "\n")
    run = load_run(think[0])
    assert list(run.looks["step"]) == [0, 75, 150]
    means = run.means.query("task == 'all' and key == 'diversity/sbert' and step == 150")["mean"]
    assert list(means) == [0.123]


def test_a_failed_look_has_its_reason_and_no_scores(tmp_path):
    course = Course("sft", 100, status={50: ("failed", "OutOfMemoryError: 3 GB asked")})
    (made,) = write_lineage(tmp_path, "a", [course], tasks=("pair",), prompts=3, looks=3)
    run = load_run(made)
    assert list(run.looks["status"]) == ["ok", "failed", "ok"]
    assert run.looks["reason"][1] == "OutOfMemoryError: 3 GB asked"
    assert run.notes == []


def test_the_length_of_a_stage_is_the_planned_one_or_its_last_look(think):
    assert load_run(think[0]).max_steps == 150
    meta = json.loads((think[0] / "run.json").read_text())
    (think[0] / "run.json").write_text(json.dumps(meta | {"max_steps": -1}))
    assert load_run(think[0]).max_steps == 150
    (think[0] / "run.json").write_text(json.dumps(meta | {"max_steps": 400}))
    assert load_run(think[0]).max_steps == 400


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"stage": '])
def test_a_run_json_that_cannot_be_read_is_one_line(think, content):
    (think[0] / "run.json").write_text(content)
    with pytest.raises(DivwatchError, match=r"run\.json is damaged .*remove it") as error:
        load_runs([think[0]])
    assert "\n" not in str(error.value)


def test_no_such_directory_and_no_run_in_it_are_one_line_each(tmp_path):
    with pytest.raises(DivwatchError, match="no such directory"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(DivwatchError, match="no run in"):
        find_runs([tmp_path])


def test_lines_that_are_no_objects_are_counted(tmp_path):
    reader = RunReader(tmp_path, notes=[])
    (tmp_path / "events.jsonl").write_text('{"step": 1}\n\n[2]\n"three"\n{"step": 4}\n')
    assert reader.events() == [{"step": 1}, {"step": 4}]
    assert reader.notes == ["events.jsonl: 2 lines could not be read and were left out"]


def test_scores_keep_missing_values_missing(think):
    frame = pd.read_parquet(sorted((think[0] / "scores").iterdir())[-1])
    run = load_run(think[0])
    read = run.scores[run.scores["step"] == 150].reset_index(drop=True)
    pd.testing.assert_frame_equal(read[frame.columns], frame)


def test_the_stage_that_lost_diversity_is_found_from_the_stored_runs(think):
    """The report and the lineage experiment use the same function."""
    (runs,) = lineages(load_runs([think[1]]))
    whole = attribute_stages(runs, "diversity/sbert")
    assert whole.order == ["base", "sft", "dpo"]
    assert whole.first_collapse == "sft"
    assert whole.share["sft"] == pytest.approx(-0.42, abs=0.1)
    assert whole.retained == pytest.approx(1 + sum(whole.share.values()))
    assert attribute_stages(runs, "diversity/sbert", numbers=[1]).share["dpo"] == pytest.approx(whole.retained - 1)
    assert attribute_stages(runs, "diversity/unknown") is None
    assert [run.stage for run in runs if any(event["task"] == "all" for event in run.events)] == ["sft", "dpo"]


def test_a_lineage_without_a_comparable_look_has_no_attribution(tmp_path):
    course = Course("sft", 100, status={0: ("failed", ""), 100: ("failed", "")})
    runs = load_runs(write_lineage(tmp_path, "a", [course], tasks=("pair",), prompts=3, looks=2))
    assert attribute_stages(runs, "diversity/sbert") is None
    assert not any(run.events for run in runs)
