"""Hybrids and state-space models in training with gradient checkpointing: looks are taken and change no weight."""

import pytest

import divwatch
from divwatch.store.run_directory import RunDirectory
from tests.sampling.test_architectures import make_model
from tests.training import SETTINGS, load_tokenizer, sft_trainer, weights_hash


def trainer_of(kind, out):
    tokenizer = load_tokenizer()
    sizes = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    return sft_trainer(out, steps=2, model=make_model(kind, **sizes), gradient_checkpointing=True, learning_rate=1e-5)


@pytest.mark.parametrize(
    "kind", ["OlmoHybrid", *(pytest.param(k, marks=pytest.mark.slow) for k in ("RecurrentGemma", "Mamba2", "FalconH1"))]
)
def test_training_with_gradient_checkpointing_is_watched_and_unchanged(kind, tmp_path):
    hashes = {}
    for name in ("off", "watched"):
        trainer = trainer_of(kind, tmp_path / name)
        if name == "watched":
            divwatch.watch(trainer, every=1, **SETTINGS | {"max_new_tokens": 8})
        trainer.train()
        hashes[name] = weights_hash(trainer.model)
    assert hashes["watched"] == hashes["off"]
    looks = RunDirectory.of(tmp_path / "watched").looks()
    assert [look["step"] for look in looks] == [0, 1, 2]
    assert "failed" not in {look["status"] for look in looks}, [look["reason"] for look in looks]


def test_a_config_attribute_that_raises_ends_no_training(tmp_path):
    trainer = trainer_of("OlmoHybrid", tmp_path)
    config = trainer.model.config
    own = type(config)

    class Config(own):
        @property
        def max_position_embeddings(self):
            raise ValueError("not in this model")

    divwatch.watch(trainer, every=1, **SETTINGS | {"max_new_tokens": 8, "on_error": "record"})
    config.__class__ = Config
    try:
        trainer.train()
    finally:
        config.__class__ = own
    assert trainer.state.global_step == 2
    assert len(RunDirectory.of(tmp_path).looks()) == 3
