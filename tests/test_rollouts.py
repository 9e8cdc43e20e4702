"""Rollouts of GRPO are measured without sampling: their diversity is logged from the reward function, training is unchanged."""

import functools

import pytest
from trl.trainer.utils import is_async_callable

import divwatch
from divwatch.metrics.encoder import load_encoder
from divwatch.monitor.rollouts import rollout_diversity, watch_rollouts
from tests.training import SETTINGS, grpo_trainer, right_answer, weights_hash


def test_group_diversity_is_in_the_trainers_log_and_weights_are_those_of_an_unwatched_run(tmp_path):
    hashes = []
    for watched in (False, True):
        trainer = grpo_trainer(tmp_path / str(watched), per_device_train_batch_size=32)
        if watched:  # in the two steps that `divwatch.watch` takes at once
            trainer.add_callback(divwatch.DiversityCallback(trainer, divwatch.WatchConfig(every=3, **SETTINGS)))
        trainer.train()
        hashes.append(weights_hash(trainer.model))
    logged = [e for e in trainer.state.log_history if "rollouts/diversity/sbert" in e]
    assert len(logged) == 3
    assert all(0 < e["rollouts/diversity/sbert"] < 1 for e in logged)
    assert any("rollouts/correct_diversity/sbert" in e for e in logged)
    assert hashes[0] == hashes[1]
    assert trainer.reward_func_names == ["right_answer"]


def test_identical_rollouts_have_no_diversity_and_a_group_of_one_is_left_out():
    encoder = load_encoder("minilm")
    texts, prompts = ["a cat"] * 4 + ["a dog", "the price of gold rose"] + ["alone"], ["p"] * 4 + ["q"] * 2 + ["r"]
    found = rollout_diversity(prompts[:4], texts[:4], [1.0] * 4, ["sbert"], encoder)
    assert found["rollouts/diversity/sbert"] == pytest.approx(0, abs=1e-6)
    assert found["rollouts/correct_diversity/sbert"] == pytest.approx(0, abs=1e-6)
    mixed = rollout_diversity(prompts, texts, [1.0] * 4 + [0.0, None] + [1.0], ["sbert"], encoder)
    alone = rollout_diversity(prompts[4:6], texts[4:6], [0.0, None], ["sbert"], encoder)
    assert mixed["rollouts/diversity/sbert"] == pytest.approx(alone["rollouts/diversity/sbert"] / 2)
    assert "rollouts/correct_diversity/sbert" not in alone
    assert rollout_diversity(["r"], ["alone"], [1.0], ["sbert"], encoder) == {}


class Awaited:
    async def __call__(self, completions, **columns):
        return [0.0 for _ in completions]


async def _awaited(scale, completions, **columns):
    return [scale for _ in completions]


@pytest.mark.parametrize("reward", [Awaited(), functools.partial(_awaited, 1.0), functools.partial(Awaited())])
def test_rewards_that_the_trainer_awaits_are_left_alone(reward):
    class Trainer:
        def __init__(self):
            self.reward_funcs = [reward]

    trainer = Trainer()
    assert not watch_rollouts(trainer, divwatch.WatchConfig(**SETTINGS), lambda: load_encoder("minilm"))
    assert trainer.reward_funcs == [reward]
    assert is_async_callable(trainer.reward_funcs[0])


def test_a_failing_measure_never_fails_the_reward(capsys):
    class Trainer:
        def __init__(self):
            self.reward_funcs = [right_answer]

    trainer = Trainer()

    def no_encoder():
        raise OSError("no weights")

    assert watch_rollouts(trainer, divwatch.WatchConfig(), no_encoder)
    reference = '{"task": "pair", "content": [14]}'
    logged = []
    for _ in range(2):
        rewards = trainer.reward_funcs[0](
            prompts=["p"], completions=[[{"role": "assistant", "content": "5 and 9."}]], reference=[reference],
            log_metric=lambda *a: logged.append(a),
        )  # fmt: skip
        assert rewards == [1.0]
    assert not logged
    assert capsys.readouterr().out.count("no longer measured: OSError: no weights") == 1
