"""`divwatch import`: other tools' completions give the numbers that a live look of the same completions gives."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import divwatch
from divwatch.cli import app
from divwatch.errors import DivwatchError
from divwatch.store.run_directory import RunDirectory
from tests.training import SETTINGS, grpo_trainer, sft_trainer

PLAIN = ["--encoder", "minilm", "--prompts", "500"]


def imported(out, *paths, options=()):
    """The run directory of `divwatch import`, and what it printed."""
    result = CliRunner().invoke(app, ["import", *map(str, paths), "--out", str(out), *PLAIN, *map(str, options)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return RunDirectory.of(out), result.output


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A watched run, and its completions as (step, prompt, task, text, correct)."""
    folder = tmp_path_factory.mktemp("live")
    trainer = sft_trainer(folder, steps=4, learning_rate=3e-3)
    divwatch.watch(trainer, every=2, **SETTINGS)
    trainer.train()
    run = RunDirectory.of(folder)
    texts = {prompt["id"]: prompt["text"] for prompt in run.info()["panel"]["prompts"]}
    rows = [
        {"step": look["step"], "prompt": texts[row["prompt_id"]], "task": row["task"], "text": row["text"],
         "correct": row["correct"]}
        for look in run.looks()
        for row in run.completions(look["step"])
    ]  # fmt: skip
    return run, rows


def values(run, step, group=("diversity/sbert", "diversity/ead", "correct_diversity/sbert", "quality/accuracy")):
    """Prompt -> its values at a step, the prompts in the order of their texts."""
    texts = {prompt["id"]: prompt["text"] for prompt in run.info()["panel"]["prompts"]}
    scores = run.scores(step)
    columns = [scores.values[key] for key in group]
    return [row for _, row in sorted(zip((texts[i] for i in scores.ids), zip(*columns, strict=True), strict=True))]


def number(flag):
    """The score of a completion; None for a task without a verifier."""
    return None if flag is None else float(flag)


def by_step(rows):
    return {step: [row for row in rows if row["step"] == step] for step in sorted({row["step"] for row in rows})}


def groups(rows):
    """(step, prompt) -> rows."""
    found = {}
    for row in rows:
        found.setdefault((row["step"], row["prompt"]), []).append(row)
    return found


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_verl(folder, rows):
    for step, part in by_step(rows).items():
        write_lines(
            folder / f"{step}.jsonl",
            [
                {"input": r["prompt"], "output": r["text"], "gts": "", "score": number(r["correct"]), "step": step}
                for r in part
            ],
        )


def as_trl(folder, rows):
    folder.mkdir(parents=True)
    for step, part in by_step(rows).items():
        table = {
            "step": [step] * len(part),
            "prompt": [[{"role": "user", "content": r["prompt"]}] for r in part],
            "completion": [[{"role": "assistant", "content": r["text"]}] for r in part],
            "right_answer": [number(r["correct"]) for r in part],
            "advantage": [0.0] * len(part),
        }
        pd.DataFrame(table).to_parquet(folder / f"completions_{step:05d}.parquet")


def as_plain(folder, rows):
    renamed = [{"step": r["step"], "prompt": r["prompt"], "completion": r["text"], "correct": r["correct"], "task": r["task"]}
               for r in rows]  # fmt: skip
    write_lines(folder / "all.jsonl", renamed)


def as_lists(folder, rows):
    """One row a prompt, as NoveltyBench writes it, in the folder of each checkpoint."""
    for (step, prompt), part in groups(rows).items():
        row = {"id": prompt, "prompt": prompt, "model": "m", "generations": [r["text"] for r in part],
               "scores": [number(r["correct"]) for r in part]}  # fmt: skip
        path = folder / f"checkpoint-{step}/generations.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def as_wandb_table(folder, rows):
    folder.mkdir(parents=True)
    columns = ["step", "prompt", "completion", "reward"]
    data = [[r["step"], r["prompt"], r["text"], number(r["correct"])] for r in rows]
    (folder / "completions_1_abc.table.json").write_text(json.dumps({"columns": columns, "data": data, "ncols": 4}))


def as_lm_eval(folder, rows):
    for (step, prompt), part in groups(rows).items():
        path = folder / f"checkpoint-{step}/samples_tiny_2026-01-01.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {"doc_id": 0, "doc": {}, "target": "", "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {}}},
               "resps": [[r["text"] for r in part]], "filtered_resps": [""], "metrics": ["exact_match"],
               "exact_match": 0.5}  # fmt: skip
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def as_lighteval(folder, rows):
    for step in by_step(rows):
        part = [(prompt, own) for (at, prompt), own in groups(rows).items() if at == step]
        table = {
            "__doc__": [{"query": prompt, "task_name": "tiny", "choices": [""]} for prompt, _ in part],
            "__model_response__": [{"input": prompt, "text": [r["text"] for r in own]} for prompt, own in part],
            "__metric__": [{"em": 0.5} for _ in part],
        }
        path = folder / f"step-{step}/details_tiny.parquet"
        path.parent.mkdir(parents=True)
        pd.DataFrame(table).to_parquet(path)


@pytest.mark.parametrize("write", [as_verl, as_trl, as_plain, as_lists, as_wandb_table, as_lm_eval, as_lighteval])
def test_an_imported_look_has_the_values_of_the_live_one(tmp_path, live, write):
    run, rows = live
    write(tmp_path / "dump", rows)
    found, said = imported(tmp_path / "out", tmp_path / "dump")
    assert [look["step"] for look in found.looks()] == [look["step"] for look in run.looks()] == [0, 2, 4]
    assert "12 prompts x 4 completions" in said
    # A metric over several responses says of none of them whether it is correct.
    keys = ["diversity/sbert", "diversity/ead"]
    keys += [] if write in (as_lm_eval, as_lighteval) else ["correct_diversity/sbert", "quality/accuracy"]
    for step in (0, 2, 4):
        np.testing.assert_allclose(values(found, step, keys), values(run, step, keys), rtol=1e-6)
    report = CliRunner().invoke(app, ["report", str(tmp_path / "out")])
    assert report.exit_code == 0, report.output
    assert CliRunner().invoke(app, ["top", "--once", str(tmp_path / "out")]).exit_code == 0


def test_with_tasks_the_levels_and_changes_are_the_live_ones(tmp_path, live):
    run, rows = live
    as_plain(tmp_path / "dump", rows)
    found, _ = imported(tmp_path / "out", tmp_path / "dump", options=["--metrics", "sbert"])
    for mine, theirs in zip(found.looks(), run.looks(), strict=True):
        for key in ("diversity/sbert", "correct_diversity/sbert"):
            assert mine["tasks"]["all"][key]["mean"] == pytest.approx(theirs["tasks"]["all"][key]["mean"])


def test_what_trl_itself_writes(tmp_path):
    trainer = grpo_trainer(tmp_path / "grpo", steps=2, log_completions=True)
    trainer.train()
    found, said = imported(tmp_path / "out", tmp_path / "grpo/completions")
    assert "(trl)" in said
    assert [look["step"] for look in found.looks()] == [1, 2]
    assert "quality/accuracy" in found.looks()[0]["tasks"]["all"]


FILES = Path(__file__).parents[1] / "data/imports"


@pytest.mark.parametrize("tool", ["lm-eval", "lighteval"])
def test_what_lm_eval_and_lighteval_themselves_write(tmp_path, tool):
    found, said = imported(tmp_path / "out", FILES / tool)
    assert f"({tool})" in said
    (look,) = found.looks()
    assert set(look["tasks"]) == {"sums", "all"}
    prompts = found.info()["panel"]["prompts"]
    assert sorted(prompt["text"] for prompt in prompts) == [f"What is {i} + 1?" for i in range(len(prompts))]
    assert {row["correct"] for row in found.completions(0)} == {None}
    assert len(found.completions(0)) == 4 * len(prompts)


def test_of_several_trl_rewards_the_first_is_taken_and_named(tmp_path):
    rows = [
        {"step": 1, "prompt": f"p{i}", "completion": f"{i} {k}", "form": 1.0, "right": -1.0, "advantage": 0.0}
        for i in range(4)
        for k in range(4)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "completions_00001.parquet")
    first, said = imported(tmp_path / "out", tmp_path)
    assert "of the rewards form, right the first is the score" in said
    assert first.looks()[0]["tasks"]["all"]["quality/accuracy"]["mean"] == 1
    second, said = imported(tmp_path / "right", tmp_path / "completions_00001.parquet", options=["--score", "right"])
    assert "of the rewards" not in said
    assert second.looks()[0]["tasks"]["all"]["quality/accuracy"]["mean"] == 0


def test_prompts_that_do_not_recur_are_compared_by_their_means(tmp_path):
    """As rollouts of training are: twenty new prompts at each step, and from step 30 on answers of one kind."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(40)]
    for step in range(0, 80, 10):
        kinds = words if step < 30 else words[:1]
        rows = [
            {
                "input": f"question {step} {i}",
                "output": f"{rng.choice(kinds)} {rng.choice(kinds)}",
                "score": 1.0,
                "step": step,
            }
            for i in range(20)
            for _ in range(4)
        ]
        write_lines(tmp_path / f"dump/{step}.jsonl", rows)
    found, said = imported(tmp_path / "out", tmp_path / "dump")
    assert "prompts do not recur" in said
    changes = [look["tasks"]["all"]["diversity/sbert"]["mean"] for look in found.looks()]
    assert min(changes[:3]) > 0.1 > max(changes[3:])
    assert any(event["task"] == "all" and event["onset_step"] <= 30 for event in found.events())


def test_groups_of_unequal_size_are_compared_at_a_common_one(tmp_path):
    rows = [
        {"step": step, "prompt": f"p{i}", "completion": f"{i} {k} {step}", "score": k % 2}
        for step in (1, 2)
        for i in range(20)
        for k in range(1 if i == 0 else 4 + i % 3)
    ]
    write_lines(tmp_path / "d.jsonl", rows)
    found, said = imported(tmp_path / "out", tmp_path / "d.jsonl")
    assert "19 prompts x 4 completions" in said
    assert "2 groups with fewer than 4 completions are left out" in said
    assert found.info()["settings"]["samples"] == 4
    few, _ = imported(tmp_path / "few", tmp_path / "d.jsonl", options=["--samples", 2, "--correct-above", 0])
    assert few.info()["settings"]["samples"] == 2
    assert few.looks()[0]["tasks"]["all"]["quality/accuracy"]["mean"] == 0.5


def test_stages_are_attributed_over_an_imported_run_and_the_one_before(tmp_path, live):
    _, rows = live
    early, late = ([r for r in rows if r["step"] in steps] for steps in ((0, 2), (2, 4)))
    as_plain(tmp_path / "a", early)
    as_plain(tmp_path / "b", late)
    imported(tmp_path / "sft", tmp_path / "a", options=["--lineage", "mine"])
    second, _ = imported(tmp_path / "dpo", tmp_path / "b", options=["--baseline", tmp_path / "sft"])
    assert second.info()["parent"] == str((tmp_path / "sft/divwatch").resolve())
    report = CliRunner().invoke(app, ["report", str(tmp_path / "dpo"), "--json"])
    stages = [row["stage"] for row in json.loads(report.output)["stages"]]
    assert stages[-2:] == ["sft", "dpo"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no completion can be read from .*no rows"),
        (b'{"a": 1}\n', "is in no known format"),
        (b'{"prompt": "x", "completion": "y"}\n' * 1, "no prompt has two completions at a step"),
        (b"\x00\x01\x02", "no completion can be read from .*formats are trl"),
        (b'[{"prompt": "x"}]', "not an object but an array"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b'{"prompt": "x", "completion": "y", "step": -1}\n' * 4, "a step that is no whole number"),
        (b'{"prompt": "x", "completion": "y", "step": 1e300}\n' * 4, "a step that is no whole number"),
        (b'{"arguments": {}, "resps": [["a", "b"]]}\n', "no lm-eval row"),
        (b'{"prompt": 3, "completion": "y"}\n' * 4, "4: no prompt"),
    ],
)
def test_a_file_without_completions_is_one_line(tmp_path, content, says):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DivwatchError, match=says) as raised:
        imported(tmp_path / "out", tmp_path / "x.jsonl")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_odd_rows_are_left_out_and_counted(tmp_path):
    good = [{"step": 1, "prompt": f"p{i}", "completion": f"{i} {k}", "score": 1} for i in range(6) for k in range(4)]
    odd = [b'{"step": 1, "prompt": "p0", "comp', b"\xff\xfe", b"[1]", b'{"step": 1, "prompt": null, "completion": "x"}',
           b'{"step": NaN, "prompt": "p9", "completion": {}, "score": Infinity}', b"null", b'{"step": 1}']  # fmt: skip
    lines = [json.dumps(row).encode() for row in good]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([*lines[:3], *odd, *lines[3:]]) + b"\n")
    found, said = imported(tmp_path / "out", tmp_path / "x.jsonl")
    assert "7 rows are left out" in said
    assert len(found.completions(1)) == 24


@pytest.mark.parametrize("name", ["no.jsonl", "empty", "x.parquet", "x.json", "columns.table.json", "rows.table.json"])
def test_a_wrong_path_is_one_line(tmp_path, name):
    (tmp_path / "columns.table.json").write_text('{"columns": 3, "data": [1]}')
    (tmp_path / "rows.table.json").write_text('{"columns": ["prompt", "completion"], "data": [1]}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DivwatchError) as raised:
        imported(tmp_path / "out", tmp_path / name)
    assert "\n" not in str(raised.value)


def test_files_beside_a_dump_are_passed_over_and_a_file_given_twice_is_read_once(tmp_path):
    for step in (100, 200):
        folder = tmp_path / f"checkpoint-{step}"
        for task in "ab":
            rows = [{"arguments": [[f"{task} {i}"]], "resps": [[f"{i} {k}" for k in range(4)]]} for i in range(4)]
            write_lines(folder / f"samples_{task}_2026-01-01T00.jsonl", rows)
        (folder / "results_2026-01-01.json").write_text('{"results": {}}')
    found, said = imported(tmp_path / "out", tmp_path, tmp_path / "checkpoint-100/samples_a_2026-01-01T00.jsonl")
    assert "2 other files in the folder hold no completions" in said
    assert [look["step"] for look in found.looks()] == [100, 200]
    assert set(found.looks()[0]["tasks"]) == {"a", "b", "all"}
    assert len(found.completions(100)) == 2 * 4 * 4


def test_looks_are_sent_to_wandb(tmp_path, live, monkeypatch):
    import wandb

    _, rows = live
    as_plain(tmp_path / "dump", rows)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    wandb.teardown()  # it reads the environment once a process
    imported(tmp_path / "out", tmp_path / "dump", options=["--wandb"])
    wandb.teardown()
    (record,) = Path(tmp_path).glob("wandb/offline-run-*/run-*.wandb")
    assert b"correct_diversity/all/sbert" in record.read_bytes()


def test_a_run_is_not_overwritten(tmp_path, live):
    as_plain(tmp_path / "dump", live[1])
    imported(tmp_path / "out", tmp_path / "dump")
    with pytest.raises(DivwatchError, match="holds a run already"):
        imported(tmp_path / "out", tmp_path / "dump")
