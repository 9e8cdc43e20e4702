"""The callback in real training: weights stay the same, looks are taken when due and recorded, training never fails."""

import json
import math
import threading

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

import divwatch
from divwatch.errors import DivwatchError
from divwatch.outputs.report import write_report
from divwatch.store.run_directory import RunDirectory
from tests.faults.undisturbed import scoring_processes
from tests.training import SETTINGS, dpo_trainer, load_model, make_alike, sft_trainer, weights_hash

KINDS = {
    "sft": sft_trainer,
    "dpo": dpo_trainer,
    "bf16": lambda out: sft_trainer(out, bf16=True, gradient_checkpointing=True),
}


class NaiveCallback(TrainerCallback):
    """What people write first: `generate` in on_step_end."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.generate(torch.tensor([[1, 5, 9]]), max_new_tokens=4, do_sample=True)


@pytest.mark.parametrize("kind", KINDS)
def test_final_weights_are_bit_identical_with_and_without_the_monitor(kind, tmp_path):
    hashes = {}
    for name in ("off", "watched", "naive"):
        trainer = KINDS[kind](tmp_path / name)
        if name == "watched":
            divwatch.watch(trainer, every=2, **SETTINGS)
        if name == "naive":
            trainer.add_callback(NaiveCallback())
        trainer.train()
        hashes[name] = weights_hash(trainer.model)
    assert hashes["watched"] == hashes["off"]
    assert hashes["naive"] != hashes["off"], "dropout is off: the comparison above shows nothing"


def test_looks_are_taken_recorded_and_logged(tmp_path):
    trainer = sft_trainer(tmp_path, steps=5)
    callback = divwatch.watch(trainer, every=2, **SETTINGS)
    trainer.train()
    run = RunDirectory.of(tmp_path)
    assert [look["step"] for look in run.looks()] == [0, 2, 4, 5]
    assert {look["status"] for look in run.looks()} == {"ok"}
    for look in run.looks():
        assert len(run.completions(look["step"])) == 12 * 4
        scores = run.scores(look["step"])
        mean = look["tasks"]["pair"]["diversity/sbert"]["mean"]
        values = [v for v, task in zip(scores.values["diversity/sbert"], scores.tasks, strict=True) if task == "pair"]
        assert mean == pytest.approx(sum(values) / len(values))
        assert 0 < look["tasks"]["all"]["quality/accuracy"]["mean"] < 1
    info = run.info()
    assert (info["stage"], info["parent"], info["max_steps"]) == ("sft", None, 5)
    assert info["panel"]["name"] == "tiny"
    assert len(info["panel"]["prompts"]) == 12
    logged = {e["step"]: e for e in trainer.state.log_history if "diversity/all/sbert" in e}
    assert sorted(logged) == [0, 2, 4, 5]
    assert logged[4]["diversity/all/sbert"] == pytest.approx(run.looks()[2]["tasks"]["all"]["diversity/sbert"]["mean"])
    names = {"diversity/pair/ead", "correct_diversity/all/vendi", "quality/all/pass_at_k", "collapse/alarm"}
    names |= {"collapse/all/change", "decomposition/all/genuine_narrowing", "watch/seconds", "watch/overhead"}
    assert names <= set(logged[4])
    assert all(math.isfinite(v) for e in logged.values() for v in e.values() if isinstance(v, float))
    assert callback.assessment.baseline_step == 0


def test_the_trainers_own_metrics_are_those_of_an_unwatched_run(tmp_path):
    """TRL picks the metric window by model.training and flushes it in its own log: neither may be disturbed."""
    histories = []
    for watched in (False, True):
        trainer = sft_trainer(tmp_path / str(watched), logging_steps=2)
        if watched:
            divwatch.watch(trainer, every=1, **SETTINGS)
        trainer.train()
        own = [e for e in trainer.state.log_history if "loss" in e]
        histories.append([{k: v for k, v in e.items() if "runtime" not in k and "second" not in k} for e in own])
    assert histories[0] == histories[1]
    assert len(histories[0]) == 2


def test_a_failing_look_is_recorded_and_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    from divwatch.sampling import in_process

    plain = sft_trainer(tmp_path / "plain")
    plain.train()
    trainer = sft_trainer(tmp_path / "failing")
    callback = divwatch.watch(trainer, every=2, **SETTINGS | {"on_error": "record"})
    real = in_process.decode_batch

    def fails_once(model, *rest):
        if trainer.state.global_step == 2:
            raise RuntimeError("no luck\nand more lines")
        return real(model, *rest)

    monkeypatch.setattr(in_process, "decode_batch", fails_once)
    trainer.train()
    looks = RunDirectory.of(tmp_path / "failing").looks()
    assert [(look["step"], look["status"]) for look in looks] == [(0, "ok"), (2, "failed"), (4, "ok")]
    assert looks[1]["reason"] == "RuntimeError: no luck"
    assert callback.assessment.last_step == 4
    assert weights_hash(trainer.model) == weights_hash(plain.model)


def test_a_look_that_cannot_be_stored_never_fails_training(tmp_path, monkeypatch):
    trainer = sft_trainer(tmp_path, steps=2)
    divwatch.watch(trainer, every=1, **SETTINGS | {"on_error": "record"})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDirectory, "append_look", full)
    trainer.train()
    assert trainer.state.global_step == 2


def test_a_model_that_does_not_stop_is_not_comparable_rather_than_diverse(tmp_path):
    trainer = sft_trainer(tmp_path, steps=1)
    callback = divwatch.watch(trainer, every=1, **SETTINGS | {"max_new_tokens": 3})
    trainer.train()
    looks = RunDirectory.of(tmp_path).looks()
    assert {look["status"] for look in looks} == {"not_comparable"}
    assert "finished and readable" in looks[0]["reason"]
    assert callback.assessment.verdict.kind == "not comparable"


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    """Completions and scores of every look are those of an uninterrupted run."""
    whole = sft_trainer(tmp_path / "whole", steps=6)
    divwatch.watch(whole, every=2, **SETTINGS)
    whole.train()
    first = sft_trainer(tmp_path / "cut", steps=6, save_strategy="steps", save_steps=2)
    divwatch.watch(first, every=2, **SETTINGS)

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:  # after the look and the checkpoint at 4
                raise KeyboardInterrupt

    first.add_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = sft_trainer(tmp_path / "cut", steps=6, save_strategy="steps", save_steps=2)
    resumed = divwatch.watch(second, every=2, **SETTINGS)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-2"))
    one, other = RunDirectory.of(tmp_path / "whole"), RunDirectory.of(tmp_path / "cut")
    assert [look["step"] for look in other.looks()] == [0, 2, 4, 6]
    for step in (0, 2, 4, 6):
        assert one.completions(step) == other.completions(step)
        for key, values in one.scores(
            step
        ).values.items():  # embeddings of one text differ by their batch in the last digits
            assert other.scores(step).values[key] == pytest.approx(values, abs=1e-6, nan_ok=True)
    assert resumed.assessment.baseline_step == 0


def test_a_dpo_run_finds_the_sft_run_it_started_from(tmp_path):
    panel = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"What is {a} + 9?", "reference": str(a + 9), "verifier": "gsm8k"} for a in range(4)]
    panel.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = sft_trainer(tmp_path / "sft", steps=1)
    divwatch.watch(sft, every=1, lineage="mine", **SETTINGS | {"panel": str(panel)})
    sft.train()
    sft.save_model()
    panel.unlink()  # the prompts come from the record
    dpo = dpo_trainer(tmp_path / "dpo", steps=1, model=load_model(tmp_path / "sft"))
    divwatch.watch(dpo, every=1, **SETTINGS | {"panel": None})
    dpo.train()
    before, info = (RunDirectory.of(tmp_path / stage).info() for stage in ("sft", "dpo"))
    assert info["parent"] == str((tmp_path / "sft" / "divwatch").resolve())
    assert (info["lineage"], info["stage"]) == ("mine", "dpo")
    assert info["panel"] == before["panel"]


def test_a_run_with_other_prompts_under_the_same_ids_is_not_compared_with_its_parent(tmp_path, capsys):
    sft = sft_trainer(tmp_path / "sft", steps=1)
    sft.eval_dataset = Dataset.from_list([{"prompt": f"What is {a} + 9?"} for a in range(4)])
    divwatch.watch(sft, every=1, **SETTINGS | {"panel": None, "metrics": ["ead"]})
    sft.train()
    sft.save_model()
    other = sft_trainer(tmp_path / "other", steps=1, model=load_model(tmp_path / "sft"))
    other.eval_dataset = Dataset.from_list([{"prompt": f"Tell a story about {a} foxes."} for a in range(4)])
    capsys.readouterr()
    divwatch.watch(other, every=1, **SETTINGS | {"panel": "eval_dataset", "metrics": ["ead"]})
    other.train()
    assert "panel eval_dataset shares no prompt with the run before" in capsys.readouterr().out
    first, second = (RunDirectory.of(tmp_path / name) for name in ("sft", "other"))
    assert [p["id"] for p in first.info()["panel"]["prompts"]] == [p["id"] for p in second.info()["panel"]["prompts"]]
    alone = second.looks()[0]["tasks"]["all"]["diversity/ead"]["mean"]
    assert alone == pytest.approx(np.nanmean(second.scores(0).values["diversity/ead"]))  # not where the first run ended
    page = write_report([tmp_path])
    assert "diversity could not be compared over the stages" in page.read_text()
    assert pd.read_csv(page.with_suffix("") / "stages.csv")["share"].isna().all()


def test_without_a_metric_that_carries_an_alarm_the_start_and_the_verdict_say_so(tmp_path, capsys):
    trainer = sft_trainer(tmp_path, steps=1)
    divwatch.watch(trainer, every=1, **SETTINGS | {"metrics": ["distinct_answers"]})
    trainer.train()
    said = capsys.readouterr().out
    assert "metrics has none of sbert, vendi, ead, so no alarm can be raised" in said
    assert (
        RunDirectory.of(tmp_path).looks()[-1]["verdict"]["sentence"].startswith("No metric that carries an alarm was")
    )


def collapse_from_step_2(monkeypatch, trainer):
    make_alike(monkeypatch, lambda: trainer.state.global_step >= 2)


@pytest.mark.parametrize("action", ["alert", "stop", "save"])
def test_an_alarm_stops_or_saves_only_where_asked_and_is_not_forgotten(tmp_path, action, monkeypatch):
    def watched():
        trainer = sft_trainer(tmp_path, steps=6)
        divwatch.watch(trainer, every=1, on_collapse=action, **SETTINGS | {"prompts": 48, "metrics": ["ead", "sbert"]})
        return trainer

    def alarms():
        return [e for e in RunDirectory.of(tmp_path).events() if (e["task"], e["key"]) == ("all", "diversity/sbert")]

    trainer = watched()
    with monkeypatch.context() as patch:
        collapse_from_step_2(patch, trainer)
        trainer.train()
    (alarm,) = alarms()
    assert alarm["onset_step"] in (0, 1)
    assert alarm["step"] <= 4
    assert "since step" in alarm["message"]
    assert trainer.state.global_step == (alarm["step"] if action == "stop" else 6)
    checkpoints = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert bool(checkpoints) == (action != "alert")
    if action == "save":
        resumed = watched()
        collapse_from_step_2(monkeypatch, resumed)
        resumed.train(resume_from_checkpoint=str(tmp_path / checkpoints[0]))
        assert alarms() == [alarm]


def test_wrong_input_is_an_error_before_training(tmp_path):
    trainer = sft_trainer(tmp_path)
    for settings, says in [
        ({"encoder": str(tmp_path / "nowhere")}, "encoder"),
        ({"panel": str(tmp_path / "nowhere.jsonl")}, "neither a panel"),
        ({"evry": 3}, "unknown setting evry"),
    ]:
        with pytest.raises(DivwatchError, match=says) as error:
            divwatch.watch(trainer, **SETTINGS | settings)
        assert "\n" not in str(error.value)


def test_a_callback_that_is_not_added_starts_and_changes_nothing(tmp_path):
    trainer = sft_trainer(tmp_path, steps=1)
    threads = threading.active_count()
    divwatch.DiversityCallback(trainer, divwatch.WatchConfig(**SETTINGS | {"background": True}))
    assert threading.active_count() == threads
    assert not scoring_processes()
    trainer.train()
    assert not (tmp_path / "divwatch").exists()
    assert not scoring_processes()


def test_the_eval_datasets_prompts_are_watched_by_default(tmp_path):
    from trl import SFTConfig, SFTTrainer

    from tests.training import common, dataset, load_tokenizer

    trainer = SFTTrainer(
        model=load_model(), args=SFTConfig(**common(tmp_path, 1)), train_dataset=dataset("instruct_sft"),
        eval_dataset=dataset("instruct_sft", 80).select(range(64, 80)), processing_class=load_tokenizer(),
    )  # fmt: skip
    divwatch.watch(trainer, every=1, **{k: v for k, v in SETTINGS.items() if k != "panel"})
    trainer.train()
    run = RunDirectory.of(tmp_path)
    assert run.info()["panel"]["name"] == "eval_dataset"
    assert "quality/accuracy" not in run.looks()[0]["tasks"]["all"]
    assert run.looks()[0]["tasks"]["all"]["diversity/sbert"]["mean"] > 0
    json.dumps(run.looks())


def test_diversity_can_choose_the_best_checkpoint(tmp_path):
    """A look that is not due is taken inside evaluate(), and its values come back from it."""
    from trl import SFTConfig, SFTTrainer

    from tests.training import common, dataset, load_tokenizer

    arguments = common(tmp_path, 4, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2)
    arguments |= {"load_best_model_at_end": True, "metric_for_best_model": "correct_diversity/all/sbert"}
    trainer = SFTTrainer(
        model=load_model(), args=SFTConfig(**arguments, greater_is_better=True), processing_class=load_tokenizer(),
        train_dataset=dataset("instruct_sft"), eval_dataset=dataset("instruct_sft", 80).select(range(64, 80)),
    )  # fmt: skip
    divwatch.watch(trainer, every=4, **SETTINGS)
    trainer.train()
    looks = {
        look["step"]: look["tasks"]["all"]["correct_diversity/sbert"]["mean"]
        for look in RunDirectory.of(tmp_path).looks()
    }
    assert sorted(looks) == [0, 2, 4]
    best = max((2, 4), key=looks.get)
    assert trainer.state.best_metric == pytest.approx(looks[best])
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")


def test_a_metric_without_a_value_is_never_the_best_and_ends_no_training(tmp_path, capsys):
    from trl import SFTConfig, SFTTrainer

    from tests.training import common, dataset, load_tokenizer

    arguments = common(tmp_path, 1, save_strategy="best", eval_strategy="steps", eval_steps=1)
    arguments |= {"metric_for_best_model": "correct_diversity/all/sbert", "greater_is_better": True}
    trainer = SFTTrainer(
        model=load_model(), args=SFTConfig(**arguments), processing_class=load_tokenizer(),
        train_dataset=dataset("instruct_sft"), eval_dataset=dataset("instruct_sft", 80).select(range(64, 68)),
    )  # fmt: skip
    panel = [{"prompt": "Tell me a story."}, {"prompt": "Name three animals."}]  # no answer can be judged
    divwatch.watch(trainer, every=1, **SETTINGS | {"panel": panel, "prompts": 2})
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.state.best_model_checkpoint is None
    assert "step 1 has no value of correct_diversity/all/sbert" in capsys.readouterr().out


class Metrics(TrainerCallback):
    """What a callback that stops early sees."""

    def __init__(self):
        self.seen = []

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.seen.append("eval_diversity/all/sbert" in metrics)


def test_a_callback_of_the_constructor_sees_the_metrics_of_a_look(tmp_path):
    """EarlyStoppingCallback stops on the diversity of a look, wherever it was given."""
    from transformers import EarlyStoppingCallback
    from trl import SFTConfig, SFTTrainer

    from tests.training import common, dataset, load_tokenizer

    arguments = common(tmp_path, 8, eval_strategy="steps", eval_steps=1, learning_rate=0.0)
    arguments |= {"metric_for_best_model": "diversity/all/sbert", "greater_is_better": True}
    before, seen = EarlyStoppingCallback(early_stopping_patience=2), Metrics()
    trainer = SFTTrainer(
        model=load_model(), args=SFTConfig(**arguments), processing_class=load_tokenizer(), callbacks=[before, seen],
        train_dataset=dataset("instruct_sft"), eval_dataset=dataset("instruct_sft", 80).select(range(64, 80)),
    )  # fmt: skip
    divwatch.watch(trainer, every=8, **SETTINGS)
    trainer.train()
    assert seen.seen == [True] * 3
    assert trainer.state.global_step == 3  # the first evaluation is the best, and nothing changes after it


def test_a_second_watch_replaces_the_first(tmp_path, capsys):
    trainer = sft_trainer(tmp_path, steps=2)
    old = divwatch.watch(trainer, every=1, **SETTINGS | {"background": True})
    scoring = psutil.Process().children()
    new = divwatch.watch(trainer, every=2, **SETTINGS)
    assert "the new settings replace the old ones" in capsys.readouterr().out
    assert not psutil.wait_procs(scoring, timeout=20)[1]
    callbacks = trainer.callback_handler.callbacks
    assert new in callbacks
    assert old not in callbacks
    trainer.train()
    assert [look["step"] for look in RunDirectory.of(tmp_path).looks()] == [0, 2]
    assert not (tmp_path / "divwatch-1").exists()


def test_of_two_monitors_that_were_added_the_newer_one_looks(tmp_path, capsys):
    trainer = sft_trainer(tmp_path, steps=1)
    asked = ["Say a word.", [{"role": "user", "content": "Count to 3."}], {"prompt": "What is 2 + 2?", "id": "sum"}]
    for changes in ({"every": 1}, {"every": 5, "panel": asked}):
        trainer.add_callback(divwatch.DiversityCallback(trainer, divwatch.WatchConfig(**SETTINGS | changes)))
    trainer.train()
    assert capsys.readouterr().out.count("the new settings replace the old ones") == 1
    run = RunDirectory.of(tmp_path)
    assert run.info()["settings"]["every"] == 5
    assert len(run.looks()) == 2
    prompts = run.info()["panel"]["prompts"]
    assert [(p["id"], p["text"]) for p in prompts] == [
        ("panel/0", "Say a word."), ("panel/1", "Count to 3."), ("sum", "What is 2 + 2?"),
    ]  # fmt: skip
    assert all(p.get("templated") or p["messages"][-1]["role"] == "user" for p in prompts)


def test_every_trial_of_a_search_has_a_run_of_its_own(tmp_path):
    pytest.importorskip("optuna")
    from transformers import Trainer, TrainingArguments

    from tests.training import common, load_tokenizer

    source = sft_trainer(tmp_path)
    trainer = Trainer(
        model_init=lambda: load_model(), args=TrainingArguments(**common(tmp_path, 2), remove_unused_columns=False),
        train_dataset=source.train_dataset, eval_dataset=source.train_dataset.select(range(4)),
        processing_class=load_tokenizer(), data_collator=source.data_collator,
    )  # fmt: skip
    divwatch.watch(trainer, every=2, **SETTINGS | {"panel": "tiny"})
    space = {"learning_rate": [1e-5, 1e-4]}
    trainer.hyperparameter_search(
        lambda trial: {name: trial.suggest_categorical(name, values) for name, values in space.items()},
        n_trials=2, backend="optuna", direction="minimize",
    )  # fmt: skip
    runs = [RunDirectory.of(tmp_path / f"run-{n}") for n in (0, 1)]
    assert not (tmp_path / "divwatch").exists()
    assert [[look["step"] for look in run.looks()] for run in runs] == [[0, 2]] * 2
    assert all(run.info()["trial"]["learning_rate"] in space["learning_rate"] for run in runs)


@pytest.mark.parametrize("background", [False, True])
def test_rare_looks_at_full_length_stand_beside_the_dense_ones(tmp_path, background):
    """Dense looks cut at 8 tokens are not comparable here; the two at full length are, and raise no alarm of their own."""
    trainer = sft_trainer(tmp_path, steps=4)
    settings = SETTINGS | {"max_new_tokens": 8, "full_tokens": 48, "thinking": "both", "background": background}
    divwatch.watch(trainer, every=2, **settings)
    trainer.train()
    run, full = RunDirectory.of(tmp_path), RunDirectory(tmp_path / "divwatch" / "full")
    assert [look["step"] for look in run.looks()] == [0, 2, 4]
    assert [(look["step"], look["status"]) for look in full.looks()] == [(0, "ok"), (4, "ok")]
    assert len(run.completions(2)) == 2 * 12 * 4  # both forms of each prompt
    assert len(full.completions(4)) == 12 * 4
    assert all(look["finished_share"] < 0.9 for look in run.looks())
    assert all(look["finished_share"] > 0.9 for look in full.looks())
    tasks = set(run.looks()[0]["tasks"])
    assert {"pair", "pair-thinking"} <= tasks
    assert "pair-thinking" not in full.looks()[0]["tasks"]
    assert full.info()["settings"]["max_new_tokens"] == 48
    logged = {e["step"]: e for e in trainer.state.log_history if "full/diversity/all/sbert" in e}
    assert sorted(logged) == [0, 4]
    assert not full.events()


def test_save_keeps_checkpoints_from_before_the_fall(tmp_path, monkeypatch):
    """At most two, whatever the trainer's own rotation; weights as without the monitor; resumable; gone without an alarm."""

    def train(name, **changes):
        trainer = sft_trainer(tmp_path / name, **{"steps": 8} | changes)
        if name != "off":
            settings = SETTINGS | {"prompts": 48, "metrics": ["ead", "sbert"], "on_collapse": "save"}
            divwatch.watch(trainer, every=1, **settings)
        if name == "falls":
            make_alike(monkeypatch, lambda: trainer.state.global_step >= 5)
        trainer.train()
        return trainer

    off = train("off", steps=3)
    level = train("level", steps=3, save_strategy="steps", save_steps=2, save_total_limit=1)
    assert weights_hash(level.model) == weights_hash(off.model)
    assert not (tmp_path / "level" / "_before_collapse").exists()
    assert [path.name for path in (tmp_path / "level").glob("checkpoint-*")] == ["checkpoint-3"]
    train("falls")
    (alarm, *_) = [e for e in RunDirectory.of(tmp_path / "falls").events() if e["task"] == "all"]
    folder = tmp_path / "falls" / "_before_collapse"
    kept = sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.iterdir())
    assert 0 < len(kept) <= 2
    early = folder / f"checkpoint-{max(step for step in kept if step <= alarm['onset_interval'][0])}"
    assert alarm["checkpoint"] == str(early)
    assert (early / "trainer_state.json").is_file()
    load_model(early)
    saved = [path.name for path in (tmp_path / "falls").glob("checkpoint-*")]
    assert saved == [f"checkpoint-{alarm['step']}"]


def test_a_model_trained_on_where_it_was_trained_has_its_earlier_run_as_parent(tmp_path):
    for again in (False, True):
        trainer = sft_trainer(tmp_path / "out", steps=1, model=load_model(tmp_path / "out") if again else None)
        divwatch.watch(trainer, every=1, **SETTINGS)
        trainer.train()
        trainer.save_model()
        trainer.processing_class.save_pretrained(tmp_path / "out")
    run = RunDirectory(tmp_path / "out" / "divwatch")
    assert run.info()["parent"] == str((tmp_path / "out" / "divwatch-1").resolve())
    assert [look["step"] for look in run.looks()] == [0, 1]


def test_an_evaluation_before_training_takes_no_look(tmp_path):
    arguments = {"eval_strategy": "no", "metric_for_best_model": "diversity/all/sbert", "greater_is_better": True}
    trainer = sft_trainer(tmp_path, steps=1, **arguments)
    trainer.add_callback(divwatch.DiversityCallback(trainer, divwatch.WatchConfig(every=1, **SETTINGS)))
    assert "eval_loss" in trainer.evaluate(trainer.train_dataset.select([0, 1]))
