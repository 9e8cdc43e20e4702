"""`divwatch top`: what it shows is what the run directories hold, whatever state a run is in and while it writes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from divwatch.errors import DivwatchError
from divwatch.outputs import top
from divwatch.outputs.top import Follower, follow, plain_line, table
from tests.report.worlds import INSTRUCT, THINK, write_lineage


@pytest.fixture
def runs(tmp_path):
    """Two lineages of two stages, each in its own folder; the files are the test's to change."""
    write_lineage(tmp_path / "runs", "think", THINK, looks=6)
    write_lineage(tmp_path / "runs", "instruct", INSTRUCT, looks=6)
    return tmp_path / "runs"


def hold_back(run, looks):
    """Takes the last looks out of a run, as if they were not taken yet; returns a function that takes the next one."""
    file = run / "divwatch" / "looks.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-looks]))
    held = lines[-looks:]
    aside = run / "aside"
    for line in held:
        for part in ("scores", "completions"):
            name = f"step-{json.loads(line)['step']:08d}.parquet"
            (aside / part).mkdir(parents=True, exist_ok=True)
            shutil.move(run / "divwatch" / part / name, aside / part / name)

    def take(sampled_only=False):
        name = f"step-{json.loads(held[0])['step']:08d}.parquet"
        for part in ("completions",) if sampled_only else ("completions", "scores"):
            if (aside / part / name).exists():
                shutil.move(aside / part / name, run / "divwatch" / part / name)
        if not sampled_only:
            with file.open("a") as lines:
                lines.write(held.pop(0))

    return take


def test_levels_are_the_stores_and_changes_are_those_of_the_course(runs):
    shown = {Path(one.path).name: one for one in Follower([runs]).snapshots()}
    assert list(shown) == ["think-sft", "think-dpo", "instruct-sft", "instruct-dpo"]
    one = shown["think-sft"]
    last = json.loads((runs / "think-sft" / "divwatch" / "looks.jsonl").read_text().splitlines()[-1])
    assert one.levels["diversity"]["mean"] == last["tasks"]["all"]["diversity/sbert"]["mean"]
    assert one.levels["diversity"]["change_lo"] < THINK[0].retained - 1 < one.levels["diversity"]["change_hi"]
    assert one.falling[0]["task"] == "all"
    assert one.falling[0]["onset_interval"][0] <= one.falling[0]["onset_step"] <= one.falling[0]["onset_interval"][1]
    assert one.verdict["kind"] in ("aggregate collapse", "narrowing among correct answers")
    assert (one.state, one.step, one.max_steps, one.looks) == ("ended", 150, 150, 6)
    assert shown["instruct-sft"].falling == []


def test_a_look_that_is_not_comparable_has_no_change(runs):
    """The change of the look before it is not one of the level shown."""
    file = runs / "think-sft" / "divwatch" / "looks.jsonl"
    looks = [json.loads(line) for line in file.read_text().splitlines()]
    looks[-1]["status"] = "not_comparable"
    file.write_text("".join(json.dumps(look) + "\n" for look in looks))
    (one,) = Follower([runs / "think-sft"]).snapshots()
    assert one.levels["diversity"]["mean"] == looks[-1]["tasks"]["all"]["diversity/sbert"]["mean"]
    assert "change" not in one.levels["diversity"]
    assert f" at step {looks[-2]['step']}" in one.verdict["sentence"]


def test_states_of_a_run(runs):
    run = runs / "think-sft"
    take = hold_back(run, 2)

    def state():
        (one,) = Follower([run]).snapshots()
        return one.state, one.unscored

    assert state() == ("training", [])
    take(sampled_only=True)
    assert state() == ("scoring", [120])
    take()
    assert state() == ("training", [])
    with (run / "divwatch" / "looks.jsonl").open("a") as file:
        file.write('{"step": 150, "sta')  # being written
    assert state() == ("training", [])
    info = json.loads((run / "divwatch" / "run.json").read_text())
    (run / "divwatch" / "run.json").write_text(json.dumps(info | {"ended": "2026-01-01T00:00:00"}))
    assert state() == ("ended", [])
    for name in ("looks.jsonl", "scores", "completions"):
        path = run / "divwatch" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (run / "divwatch" / "run.json").write_text(json.dumps(info))
    assert state() == ("waiting", [])


def test_a_run_whose_process_was_killed_is_not_waited_for(runs, capsys):
    run = runs / "think-dpo"
    hold_back(run, 2)
    program = (
        "import os, sys; from pathlib import Path; from divwatch.store.run_directory import RunDirectory\n"
        "RunDirectory(Path(sys.argv[1])).claim(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(run / "divwatch")]).returncode == -9
    follow([run], every=1)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("demo dpo step 36/60 | killed")
    (run / "divwatch" / ".writer").write_text('{"host": "another machine", "pid": 1, "started": 0}')
    assert Follower([run]).snapshots()[0].state == "training"


def test_without_a_terminal_a_line_is_printed_for_each_look_until_all_runs_have_ended(runs, monkeypatch, capsys):
    take = hold_back(runs / "think-dpo", 2)
    monkeypatch.setattr(top.time, "sleep", lambda seconds: take())
    follow([runs / "think-sft", runs / "think-dpo"], every=5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines] == [
        "demo sft step 150/150", "demo dpo step 36/60", "demo dpo step 48/60", "demo dpo step 60/60",
    ]  # fmt: skip
    assert "| ended | diversity 0." in lines[-1]
    assert "the whole panel -" in lines[0]


def test_json_is_an_array_a_line(runs, capsys):
    follow([runs], every=1, once=True, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert {one["stage"] for one in json.loads(line)} == {"sft", "dpo"}


@pytest.mark.parametrize("width", [60, 100])
def test_the_table_names_what_falls(runs, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(Follower([runs]).snapshots()))
    text = console.export_text()
    assert "demo sft (think-sft): " in text
    assert "since step" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_a_run_that_failed_to_look_is_shown(runs):
    run = runs / "instruct-sft"
    (run / "divwatch" / "looks.jsonl").write_text(
        json.dumps({"step": 0, "status": "failed", "reason": "no memory", "time": 1.0, "seconds": {}}) + "\n"
    )
    for part in ("scores", "completions"):
        shutil.rmtree(run / "divwatch" / part)
    (one,) = Follower([run]).snapshots()
    assert (one.failed, one.levels, one.reason) == (1, {}, "no memory")
    assert plain_line(one, "mine") == "mine step 0/150 | training"


def test_where_no_run_is_one_line_says_so(tmp_path):
    with pytest.raises(DivwatchError, match="no run in"):
        Follower([tmp_path]).snapshots()
