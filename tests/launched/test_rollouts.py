"""The curves of GRPO's rollouts do not depend on the launch: ranks that hold a part of each group give whole groups."""

import pytest

import divwatch
from tests.launched.launching import launch
from tests.training import SETTINGS, grpo_trainer

# Completions of a group and of a rank, of two: one and a half groups of four, and a single one of a group of two.
ARMS = {"grpo/parts": (4, 6), "grpo/single": (2, 1)}
WATCHED = {"every": 2, "prompts": 2, "samples": 2}
NAMES = [
    f"rollouts/{group}/{metric}" for group in ("diversity", "correct_diversity") for metric in ("sbert", "vendi", "ead")
]


def curves(log):
    return [{name: entry[name] for name in NAMES if name in entry} for entry in log if "loss" in entry]


def training(arm, ranks):
    generations, own = ARMS[arm]
    return {
        "same": True, "steps": 2, "num_generations": generations,
        "per_device_train_batch_size": own * 2 // ranks,
    }  # fmt: skip


def test_two_ranks_log_the_values_of_one(tmp_path):
    results = launch(
        "ddp", tmp_path / "two", {"kind": "grpo", "arms": {a: WATCHED | {"training": training(a, 2)} for a in ARMS}}
    )
    for arm in ARMS:
        trainer = grpo_trainer(tmp_path / arm, **training(arm, 1))
        divwatch.watch(trainer, **SETTINGS | WATCHED)
        trainer.train()
        one, two = curves(trainer.state.log_history), curves(results[arm]["log"])
        assert len(one) == 2
        assert all("rollouts/diversity/sbert" in entry and "rollouts/diversity/ead" in entry for entry in one)
        for at_one, at_two in zip(one, two, strict=True):
            assert at_two == pytest.approx(at_one, rel=1e-4)
