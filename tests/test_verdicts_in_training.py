"""Verdicts on models that training broke: lost capability is not called collapse."""

import pytest

import divwatch
from divwatch.store.run_directory import RunDirectory
from tests.training import SETTINGS, sft_trainer

WATCH = SETTINGS | {"prompts": 36, "samples": 8, "min_usable": 0.0}


def test_a_model_broken_by_its_learning_rate_is_degenerate_not_collapsed(tmp_path):
    trainer = sft_trainer(tmp_path, steps=16, learning_rate=2e-2, lr_scheduler_type="constant")
    callback = divwatch.watch(trainer, every=4, **WATCH)
    trainer.train()
    assert callback.assessment.verdict.kind == "degeneration", callback.assessment.verdict
    assert "lost capability" in callback.assessment.verdict.sentence


@pytest.mark.slow  # two minutes of training; tests/analysis has the verdict on given numbers
def test_a_false_recovery_is_recognised(tmp_path):
    """Think SFT, then preference pairs far from the policy: wrong answers bring aggregate diversity back, nothing else."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from divwatch.tiny.mixes import rows
    from tests.training import common, load_model, load_tokenizer

    batch = {"per_device_train_batch_size": 32, "lr_scheduler_type": "cosine", "save_strategy": "no"}
    sft = SFTTrainer(
        model=load_model(dropout=0.0),
        args=SFTConfig(**common(tmp_path / "sft", 60, **batch, warmup_steps=5)),
        train_dataset=Dataset.from_list(list(rows("think_sft", 0))),
        processing_class=load_tokenizer(),
    )
    sft.train()
    settings = batch | {"learning_rate": 1.5e-3, "loss_type": ["sigmoid_norm"], "beta": 5.0}
    dpo = DPOTrainer(
        model=sft.model,
        args=DPOConfig(**common(tmp_path / "dpo", 60, **settings)),
        train_dataset=Dataset.from_list(list(rows("think_off_policy_dpo", 0))),
        processing_class=load_tokenizer(),
    )
    callback = divwatch.watch(dpo, every=10, **SETTINGS | {"prompts": 72, "samples": 16, "max_new_tokens": 64})
    dpo.train()
    verdicts = [look["verdict"] for look in RunDirectory.of(tmp_path / "dpo").looks()]
    said = [v["sentence"] for v in verdicts if v["kind"] == "false recovery"]
    assert said, verdicts
    assert all("only because of wrong answers" in sentence for sentence in said)
    # Noise may move a look between these kinds; none may believe that diversity is back.
    assert {v["kind"] for v in verdicts[2:]} <= {"false recovery", "degeneration", "narrowing among correct answers"}
    assert callback.assessment.verdict.kind in ("false recovery", "degeneration")
