"""Verdicts on models that training really broke: lost capability is not called collapse."""

from training import SETTINGS, sft_trainer

import divwatch

WATCH = SETTINGS | {"prompts": 36, "samples": 8, "min_usable": 0.0}


def test_a_model_broken_by_its_learning_rate_is_degenerate_not_collapsed(tmp_path):
    trainer = sft_trainer(tmp_path, steps=16, learning_rate=2e-2, lr_scheduler_type="constant")
    callback = divwatch.watch(trainer, every=4, **WATCH)
    trainer.train()
    assert callback.assessment.verdict.kind == "degeneration", callback.assessment.verdict
    assert "lost capability" in callback.assessment.verdict.sentence
