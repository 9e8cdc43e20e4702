"""Runs on disk as arms: which are paired, what is left out and noted, and one line for what cannot be compared."""

import csv
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from divwatch.ablation.launch import FINISHED, RECORD
from divwatch.ablation.read import read_arms
from divwatch.cli import app
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.records import PromptScores
from divwatch.store.run_directory import RunDirectory

TASKS = ["sums", "stories"] * 8
IDS = [f"p{i}" for i in range(16)]


def write_run(out, seed=0, level=0.5, ids=IDS, steps=(0, 10), statuses=("ok", "ok"), **settings):
    """A watched run whose last look has diversity `level` and a little of its own; stories are not judged."""
    rng = np.random.default_rng([seed, int(1000 * level)])
    run = RunDirectory(out / "divwatch")
    info = {"stage": "sft", "lineage": "a", "settings": WatchConfig(**settings).as_dict(), "seeds": {"train": seed}}
    run.create(info)
    tasks = [TASKS[IDS.index(i)] if i in IDS else "sums" for i in ids]
    for step, status in zip(steps, statuses, strict=True):
        values = level + 0.01 * rng.standard_normal(len(ids)) if step else np.full(len(ids), 0.5)
        judged = np.where(np.array(tasks) == "stories", np.nan, 0.75)
        keys = {"diversity/sbert": values, "diversity/ead": 2 * values, "correct_diversity/sbert": values / 2}
        run.write_scores(step, PromptScores(list(ids), tasks, {**keys, "quality/accuracy": judged}))
        run.append_look({"step": step, "status": status, "tasks": {}})
    return out


def write_ablation(folder, levels, seeds=(0, 1, 2), unfinished=()):
    """full and an arm a source, named by the source."""
    arms = [{"name": "full", "changes": {}, "left_out": None}]
    arms += [{"name": f"without-{s}", "changes": {}, "left_out": s} for s in levels if s != "full"]
    folder.mkdir()
    (folder / RECORD).write_text(json.dumps({"arms": arms, "seeds": list(seeds)}))
    for arm in arms:
        for seed in seeds:
            place = folder / arm["name"] / f"seed-{seed}"
            write_run(place, seed, levels[arm["left_out"] or "full"])
            if (arm["name"], seed) not in unfinished:
                (place / FINISHED).write_text("{}")
    return folder


def test_an_ablation_gives_effects_of_its_sources(tmp_path):
    folder = write_ablation(tmp_path / "a", {"full": 0.4, "narrow": 0.6, "broad": 0.4})
    arms = read_arms([folder])
    assert arms.names == ["full", "without-narrow", "without-broad"]
    assert (arms.sources, arms.seeds) == (True, [0, 1, 2])
    assert {k: v.shape for k, v in arms.values.items()} == {
        "diversity/sbert": (3, 3, 16), "correct_diversity/sbert": (3, 3, 16), "quality/accuracy": (3, 3, 16),
    }  # fmt: skip
    effect = arms.values["diversity/sbert"][0].mean() - arms.values["diversity/sbert"][1].mean()
    done = CliRunner().invoke(app, ["compare", str(folder), "--json"])
    result = json.loads(done.stdout)
    narrow = next(
        e for e in result["effects"] if (e["name"], e["task"], e["measure"]) == ("narrow", "all", "diversity/sbert")
    )
    assert narrow["difference"] == pytest.approx(effect)
    assert narrow["per_cent"] == pytest.approx(100 * effect / arms.values["diversity/sbert"][0].mean())
    assert narrow["hi"] < 0
    assert (narrow["rank_lo"], narrow["rank_hi"]) == (1, 1)
    assert (
        result["findings"][0]
        == "diversity (sbert): narrow lowers it; narrow is below all others and broad is above all others"
    )
    assert result["run_df"] == 4
    rows = list(csv.DictReader((folder / "comparison.csv").open()))
    assert {row["kind"] for row in rows} == {"source", "pair"}
    assert float(rows[0]["difference"]) == pytest.approx(result["effects"][0]["difference"])


def test_the_terminal_shows_ranks_findings_and_files(tmp_path):
    folder = write_ablation(tmp_path / "a", {"full": 0.4, "narrow": 0.6, "broad": 0.4})
    done = CliRunner().invoke(app, ["compare", str(folder)])
    assert done.exit_code == 0
    assert "3 arms x 3 seeds, 16 prompts of 2 tasks; effect of a source: full - without it" in done.stdout
    assert "narrow lowers it" in done.stdout
    assert str(folder / "comparison.png") in done.stdout.replace("\n", "")


def test_unfinished_runs_are_left_out_and_named(tmp_path):
    folder = write_ablation(
        tmp_path / "a",
        {"full": 0.4, "x": 0.5, "y": 0.4},
        unfinished=[("without-x", 2), *[("without-y", s) for s in range(3)]],
    )
    arms = read_arms([folder])
    assert (arms.names, arms.seeds) == (["full", "without-x"], [0, 1])
    assert "without-x seed 2 is not finished and is left out" in arms.notes
    assert "full: seed 2 is left out, not every arm has it" in arms.notes
    assert sum("without-y" in note for note in arms.notes) == 3


def test_runs_are_compared_by_the_first_metric_that_has_values(tmp_path):
    """An encoder that cannot read the outputs leaves its metric without any."""
    for arm, level in (("one", 0.5), ("two", 0.3)):
        run = RunDirectory(write_run(tmp_path / arm / "3", 3, level) / "divwatch")
        for step in (0, 10):
            scores = run.scores(step)
            for group in ("diversity", "correct_diversity"):
                scores.values[f"{group}/sbert"] = np.full(16, np.nan)
            run.write_scores(step, scores)
    arms = read_arms([tmp_path / "one", tmp_path / "two"])
    assert list(arms.values) == ["diversity/ead", "quality/accuracy"]


def test_folders_are_arms_and_the_runs_below_their_seeds(tmp_path):
    for arm, level in (("one", 0.5), ("two", 0.3)):
        for seed in (3, 5):
            write_run(tmp_path / "runs" / arm / str(seed), seed, level)
    arms = read_arms([tmp_path / "runs/one", tmp_path / "runs/two"])
    assert (arms.names, arms.seeds, arms.sources) == (["one", "two"], [3, 5], False)
    assert [(i.name, i.plus, i.minus) for i in arms.items] == [("two", 1, 0)]
    turned = read_arms([tmp_path / "runs/one", tmp_path / "runs/two"], against="two", metric="ead")
    assert turned.names == ["two", "one"]
    assert next(iter(turned.values)) == "diversity/ead"


def test_two_single_runs_are_paired_whatever_their_seeds_and_a_note_says_so(tmp_path):
    write_run(tmp_path / "a", 1, 0.5)
    write_run(tmp_path / "b", 2, 0.4)
    done = CliRunner().invoke(
        app, ["compare", str(tmp_path / "a"), str(tmp_path / "b" / "divwatch"), "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.exception
    assert "one run an arm" in done.stdout
    assert "b lowers it; one difference, nothing to rank" in done.stdout
    assert (tmp_path / "comparison.png").is_file()


def test_the_interval_of_single_runs_holds_how_much_their_looks_move(tmp_path):
    """Ten looks each; the last ones are equal. Runs that jump from look to look have wider intervals."""
    widths = {}
    for name, jump in (("steady", 0.0), ("jumping", 0.05)):
        paths = [tmp_path / name / run for run in ("a", "b")]
        for seed, path in enumerate(paths):
            run = RunDirectory(write_run(path, seed, steps=(), statuses=()) / "divwatch")
            rng = np.random.default_rng(seed)
            for step in range(10):
                moved = 0.5 + (0 if step == 9 else jump * (-1) ** step)
                values = moved + 0.01 * rng.standard_normal(len(IDS))
                run.write_scores(step, PromptScores(IDS, TASKS, {"diversity/sbert": values}))
                run.append_look({"step": step, "status": "ok", "tasks": {}})
        done = CliRunner().invoke(app, ["compare", *map(str, paths), "--json", "--out", str(tmp_path)])
        (effect,) = [e for e in json.loads(done.stdout)["effects"] if e["task"] == "all"]
        widths[name] = effect["hi"] - effect["lo"]
    assert widths["jumping"] > 2 * widths["steady"]


def test_prompts_that_only_some_runs_have_are_left_out(tmp_path):
    write_run(tmp_path / "a", ids=IDS)
    write_run(tmp_path / "b", ids=[*reversed(IDS[:12]), "q"])
    arms = read_arms([tmp_path / "a", tmp_path / "b"])
    assert arms.values["diversity/sbert"].shape == (2, 1, 12)
    theirs = RunDirectory.of(tmp_path / "b").scores(10)
    column = dict(zip(theirs.ids, theirs.values["diversity/sbert"], strict=True))
    assert arms.values["diversity/sbert"][1, 0].tolist() == [column[i] for i in IDS[:12]]
    assert arms.tasks == TASKS[:12]


def test_looks_at_different_steps_are_noted(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", steps=(0, 5, 10), statuses=("ok", "ok", "not_comparable"))
    notes = read_arms([tmp_path / "a", tmp_path / "b"]).notes
    assert any("step 5 is taken" in note for note in notes)
    assert "the last looks are at different steps (a: 10; b: 5)" in notes


def test_a_measure_without_values_is_not_shown(tmp_path):
    stories = [i for i, task in zip(IDS, TASKS, strict=True) if task == "stories"]
    write_run(tmp_path / "a", ids=stories)
    write_run(tmp_path / "b", ids=stories, level=0.4)
    done = CliRunner().invoke(
        app, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json", "--out", str(tmp_path)]
    )
    result = json.loads(done.stdout)
    assert {e["measure"] for e in result["effects"]} == {"diversity/sbert", "correct_diversity/sbert"}
    assert not any(isinstance(v, float) and math.isnan(v) for e in result["effects"] for v in e.values())


def test_what_cannot_be_compared_is_one_line(tmp_path):
    a = write_run(tmp_path / "a")
    same_seed = tmp_path / "twice"
    for name in ("x", "y"):
        write_run(same_seed / name, seed=1)
    seeds = tmp_path / "seeds"
    for seed in (7, 8):
        write_run(seeds / str(seed), seed=seed)
    cases = [
        ([a], {}, "1 arm with a run"),
        ([a, a], {}, "the same run is given twice"),
        ([a, tmp_path / "nowhere"], {}, "no such directory"),
        ([a, same_seed], {}, "two runs with the same seed"),
        ([a, seeds], {}, "no seed in common (a: 0; seeds: 7, 8)"),
        ([a, write_run(tmp_path / "k", samples=4)], {}, "was watched with samples 4"),
        ([a, write_run(tmp_path / "p", ids=[f"q{i}" for i in range(16)])], {}, "share 0 of 16 prompts"),
        ([a, write_run(tmp_path / "n", statuses=("failed", "failed"))], {}, "has no comparable look"),
        ([a, write_run(tmp_path / "b")], {"against": "full"}, "no arm 'full' with a finished run: the arms are a, b"),
        ([a, tmp_path / "b"], {"metric": "vendi"}, "metric 'vendi' was not measured: choose from sbert, ead"),
    ]
    for paths, options, says in cases:
        with pytest.raises(DivwatchError) as error:
            read_arms(paths, **options)
        assert says in str(error.value)
        assert "\n" not in str(error.value)
