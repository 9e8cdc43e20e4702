"""`divwatch measure`: checkpoints become stages of a lineage; with --like, on the prompts and settings of a watched run."""

import json

import pytest
from typer.testing import CliRunner

import divwatch
from divwatch.cli import app
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.monitor.measure import checkpoints_of, measure, settings_like
from divwatch.store.attribution import attribute_stages
from divwatch.store.lineage import lineage_of
from divwatch.store.run_directory import RunDirectory
from divwatch.store.tables import lineages, load_runs
from divwatch.tiny import BASE_MODEL
from tests.training import SETTINGS, common, dataset, sft_trainer

CONFIG = WatchConfig(**{k: v for k, v in SETTINGS.items() if k != "on_error"})


def test_models_become_the_stages_of_one_lineage(tmp_path):
    import shutil

    for name in ("sft", "dpo"):
        shutil.copytree(BASE_MODEL, tmp_path / name)
    models = [str(BASE_MODEL), str(tmp_path / "sft"), str(tmp_path / "dpo")]
    runs = measure(models, tmp_path / "out", CONFIG)
    assert [run.info()["stage"] for run in runs] == ["sft", "dpo"]
    assert [[look["step"] for look in run.looks()] for run in runs] == [[0, 1], [0, 1]]
    assert [run.path for run in lineage_of(runs[-1])] == [run.path.resolve() for run in runs[:1]] + [runs[1].path]
    assert runs[1].completions(0) == runs[0].completions(1)
    (chain,) = lineages(load_runs([runs[-1].path]))
    found = attribute_stages(chain, "diversity/sbert")
    assert found.order == ["base", "sft", "dpo"]
    assert set(found.task_share["dpo"]) == {"pair", "expression", "listing", "word_problem", "formatting", "story"}


def test_a_single_model_is_one_look(tmp_path):
    (run,) = measure([str(BASE_MODEL)], tmp_path, CONFIG)
    assert [look["step"] for look in run.looks()] == [0]


def test_settings_and_panel_come_from_the_run_it_is_compared_with(tmp_path):
    trainer = sft_trainer(tmp_path / "sft", steps=1)
    divwatch.watch(trainer, every=1, **SETTINGS)
    trainer.train()
    run = RunDirectory.of(tmp_path / "sft")
    assert settings_like(run, {}).samples == SETTINGS["samples"]
    with pytest.raises(DivwatchError, match="samples 8 instead of 4"):
        settings_like(run, {"samples": 8})
    info = run.info()
    info["panel"]["fingerprint"] = "0" * 16
    run.write_info(info)
    with pytest.raises(DivwatchError, match="its prompts have changed"):
        measure([str(BASE_MODEL)], tmp_path / "out", settings_like(run, {}), like=run)
    assert not (tmp_path / "out").exists()


def test_open_answers_are_measured_on_a_window_and_verified_ones_need_their_end(tmp_path):
    file = tmp_path / "mixed.jsonl"
    rows = [
        {"id": f"o{i}", "prompt": f"Tell of {what}.", "task": "open"} for i, what in enumerate(("a fox", "rain", "tea"))
    ]
    rows += [
        {"id": f"s{i}", "prompt": f"{i} + 4?", "task": "sums", "reference": "7", "verifier": "gsm8k"} for i in range(3)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = WatchConfig(panel=str(file), samples=4, encoder="minilm", max_new_tokens=3, form="plain")
    (run,) = measure([str(BASE_MODEL)], tmp_path / "out", config)
    tasks = run.looks()[0]["tasks"]
    assert tasks["open"]["quality/finished"]["mean"] < 0.5 < tasks["open"]["quality/usable"]["mean"]
    assert tasks["open"]["diversity/sbert"]["n"] == 3
    assert tasks["sums"]["quality/usable"]["mean"] == tasks["sums"]["quality/finished"]["mean"]
    assert tasks["open"]["covariates/entropy"]["mean"] > 0
    assert tasks["open"]["covariates/tokens"]["mean"] <= 3
    assert "covariates/learning_signal_4" in tasks["sums"]
    assert "covariates/learning_signal_4" not in tasks["open"]


def test_the_papers_preset_has_its_limits_which_an_option_still_bounds(tmp_path):
    file = tmp_path / "sums.jsonl"
    rows = [{"prompt": f"{i} + 4?", "task": "gsm8k", "reference": "7", "verifier": "gsm8k"} for i in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["measure", str(BASE_MODEL), "--panel", str(file), "--samples", "2", "--encoder", "minilm"]
    with pytest.raises(DivwatchError, match="32768 more may follow"):
        CliRunner().invoke(app, [*command, "--preset", "paper", "--out", str(tmp_path / "a")], catch_exceptions=False)
    done = CliRunner().invoke(
        app, [*command, "--preset", "paper", "--max-new-tokens", "8", "--out", str(tmp_path / "b"), "--json"]
    )
    assert done.exit_code == 0, done.exception
    (path,) = json.loads(done.stdout)["runs"]
    settings = RunDirectory.of(path).info()["settings"]
    assert (settings["samples"], settings["temperature"], settings["top_p"]) == (2, 0.6, 0.95)
    with pytest.raises(DivwatchError, match="unknown preset 'papers': choose from default, paper"):
        CliRunner().invoke(app, [*command, "--preset", "papers", "--out", str(tmp_path)], catch_exceptions=False)


def test_the_prompts_of_an_eval_dataset_come_from_the_record_with_their_tools(tmp_path):
    """The same weights give the same completions, so what is asked is the same: with the tools that the template shows."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    tokenizer.chat_template = (
        "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    turns = [{"role": "user", "content": "Name a tool."}, {"role": "assistant", "content": "saw"}]
    tool = {"type": "function", "function": {"name": "saw", "parameters": {}}}
    rows = Dataset.from_list([{"messages": turns, "tools": [tool], "reference": "saw", "verifier": "tiny"}] * 2)
    trainer = SFTTrainer(
        model=str(BASE_MODEL),
        args=SFTConfig(**common(tmp_path / "sft", 1)),
        train_dataset=dataset("instruct_sft", 4),
        eval_dataset=rows,
        processing_class=tokenizer,
    )
    divwatch.watch(trainer, every=1, **SETTINGS | {"panel": None})
    trainer.train()
    trainer.save_model()
    run = RunDirectory.of(tmp_path / "sft")
    like = settings_like(run, {})
    (measured,) = measure([str(tmp_path / "sft")], tmp_path / "out", like, like=run)
    assert [c["text"] for c in measured.completions(0)] == [c["text"] for c in run.completions(1)]
    info = run.info()
    del info["panel"]["prompts"][0]["tools"]
    run.write_info(info)
    with pytest.raises(DivwatchError, match="does not hold the eval_dataset's prompts"):
        measure([str(BASE_MODEL)], tmp_path / "out", like, like=run)


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(DivwatchError, match="cannot be loaded") as error:
        measure([str(tmp_path / "none")], tmp_path / "out", CONFIG)
    assert "\n" not in str(error.value)


def test_the_command_scores_a_file_and_reports_a_wrong_one(tmp_path):
    file = tmp_path / "samples.jsonl"
    rows = [
        {"id": str(i), "prompt": "2+2?", "outputs": ["It is 4", "four: 4", "5"], "reference": "4"} for i in range(3)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["score", str(file), "--metrics", "ead", "--verifier", "gsm8k", "--json", str(tmp_path / "out.json")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["is_correct"]["0"] == [True, True, False]
    assert result["quality"]["accuracy_at_1"] == pytest.approx(2 / 3)
    with pytest.raises(DivwatchError, match="unknown verifier 'mind'"):
        CliRunner().invoke(app, ["score", str(file), "--metrics", "ead", "--verifier", "mind"], catch_exceptions=False)


def test_all_checkpoints_of_a_run_are_measured_and_reported_under_their_names(tmp_path):
    import shutil

    for step in (4, 12, 8):
        shutil.copytree(BASE_MODEL, tmp_path / f"run/checkpoint-{step}")
    (tmp_path / "run/checkpoint-16").mkdir()  # a save that was cut off
    settings = ["--panel", "tiny", "--prompts", 6, "--samples", 2, "--encoder", "minilm", "--max-new-tokens", 8]
    out = tmp_path / "my measures"
    done = CliRunner().invoke(
        app, ["measure", str(tmp_path / "run"), "--all-checkpoints", *map(str, settings), "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-12", "checkpoint-8"]
    assert f"now: divwatch report '{out}'" in done.output
    shown = CliRunner().invoke(app, ["report", str(out)])
    assert shown.exit_code == 0, shown.output
    names = [name for name in ("checkpoint-4", "checkpoint-8", "checkpoint-12") if name in shown.output]
    assert names == ["checkpoint-4", "checkpoint-8", "checkpoint-12"]
    assert " base " not in shown.output
    with pytest.raises(DivwatchError, match="holds no checkpoint-N with a model"):
        checkpoints_of(tmp_path)
