"""Verifiers as TRL reward functions and TRL reward functions as verifiers, with the functions that TRL ships."""

import threading
import time

import pytest

from divwatch.errors import DivwatchError
from divwatch.records import Prompt
from divwatch.verify import as_reward, get_verifier
from divwatch.verify.reward_functions import reward_verifier


def said(text):
    return [{"role": "assistant", "content": text}]


def chat(text, reference=None):
    return Prompt(text, "t", text, [{"role": "user", "content": text}], reference)


def plain(text, reference=None):
    return Prompt(text, "t", text, None, reference)


def length(completions, **columns):
    return [len(c) / 10 for c in completions]


class TestVerifiersAsRewards:
    def test_plain_and_conversational_completions_and_thoughts(self):
        reward = as_reward("gsm8k", "answer")
        completions = ["It is 5.", said("It is 6."), "<think>5 or 6</think>So 5.", "<think>It is 5", ""]
        assert reward(completions=completions, answer=["5"] * 5) == [1.0, 0.0, 1.0, 0.0, 0.0]
        assert reward.__name__ == "gsm8k"

    def test_the_whole_row_may_be_the_reference(self):
        reward = as_reward("ifeval", None)
        values = reward(
            prompts=["Say it without commas."] * 2,
            completions=["No, no.", "No."],
            instruction_id_list=[["punctuation:no_comma"]] * 2,
            kwargs=[[{}]] * 2,
            trainer_state=None,
        )
        assert values == [0.0, 1.0]

    def test_a_missing_column_is_one_line(self):
        with pytest.raises(DivwatchError, match="no column 'reference' among answer"):
            as_reward("exact")(completions=["a"], answer=["a"])

    def test_what_cannot_be_said_is_none_as_trl_has_it(self):
        assert as_reward("cruxeval")(completions=["1", "2"], reference=["1", "f("]) == [1.0, None]

    def test_grpo_trains_and_logs_by_one(self, tmp_path):
        """The real trainer, with its own call of the reward, on the shipped base."""
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        from tests.training import common, load_model, load_tokenizer

        rows = [{"prompt": [{"role": "user", "content": f"{n} as a sum"}], "answer": str(n)} for n in range(8)]
        trainer = GRPOTrainer(
            model=load_model(),
            args=GRPOConfig(**common(tmp_path, 1, num_generations=4, max_completion_length=8)),
            train_dataset=Dataset.from_list(rows),
            reward_funcs=[as_reward("gsm8k", "answer")],
            processing_class=load_tokenizer(),
        )
        trainer.train()
        logged = [line["rewards/gsm8k/mean"] for line in trainer.state.log_history if "rewards/gsm8k/mean" in line]
        assert len(logged) == 1
        assert 0 <= logged[0] <= 1


class TestRewardsAsVerifiers:
    def test_trls_own_reward_by_name(self):
        verifier = get_verifier("trl.rewards:accuracy_reward>=1.0")
        answers = [r"So \boxed{\frac{1}{2}}.", r"So \boxed{2}."]
        results = verifier(answers, [chat("?", r"\frac{1}{2}")] * 2)
        assert [j.correct for j in results] == [True, False]

    def test_a_function_and_its_threshold(self):
        assert [j.correct for j in get_verifier(length)(["a" * 4, "a" * 5], [plain("?")] * 2)] == [False, True]
        name = f"{__name__}:length>=0.8"
        assert [j.correct for j in get_verifier(name)(["a" * 5, "a" * 8], [plain("?")] * 2)] == [False, True]

    def test_completions_have_the_form_of_their_prompt(self):
        seen = []

        def reward(prompts, completions, **columns):
            seen.append((prompts, completions))
            return [1.0] * len(completions)

        results = reward_verifier(reward)(["a", "b"], [plain("p"), chat("c")])
        assert [j.correct for j in results] == [True, True]
        assert seen == [(["p"], ["a"]), ([[{"role": "user", "content": "c"}]], [said("b")])]

    def test_references_come_as_the_columns_the_function_wants(self):
        def by_key(completions, target, weight=1.0):
            return [weight * (c == t) for c, t in zip(completions, target, strict=True)]

        def by_only_need(completions, ground_truth, **columns):
            assert columns["reference"] == ground_truth
            return [float(c == g) for c, g in zip(completions, ground_truth, strict=True)]

        results = reward_verifier(by_key)(["a", "b"], [plain("?", {"target": "a"}), plain("?", {"target": "c"})])
        assert [j.correct for j in results] == [True, False]
        results = reward_verifier(by_only_need)(["a", "b"], [plain("?", "a"), plain("?", "c")])
        assert [j.correct for j in results] == [True, False]

    def test_one_answer_that_breaks_it_costs_that_answer_alone(self):
        def reward(completions, **columns):
            return [1 / len(c) for c in completions]

        results = reward_verifier(reward)(["a", "", "ab"], [plain("?")] * 3)
        assert [j.correct for j in results] == [True, None, True]
        assert "ZeroDivisionError" in results[1].reason

    def test_a_reward_of_none_and_a_wrong_number_of_rewards_say_nothing(self):
        results = reward_verifier(lambda completions, **columns: [None] * len(completions))(["a"], [plain("?")])
        assert (results[0].correct, results[0].reason) == (None, "the reward is None")
        results = reward_verifier(lambda completions, **columns: [])(["a"], [plain("?")])
        assert results[0].correct is None
        assert "0 rewards" in results[0].reason

    def test_one_that_hangs_is_left_behind(self):
        release = threading.Event()

        def reward(completions, **columns):
            if any(c.startswith("hang") for c in completions):
                release.wait(60)
            return [1.0] * len(completions)

        started = time.monotonic()
        answers = ["a", "hang", "b", "hang", "c", "hang", "d"]
        results = reward_verifier(reward, seconds=0.3)(answers, [plain("?")] * 7)
        release.set()
        assert [j.correct for j in results] == [True, None, True, None, None, None, None]
        assert "timed out" in results[1].reason
        assert "not tried after 3 calls that hung" in results[4].reason
        assert time.monotonic() - started < 20

    @pytest.mark.parametrize(
        "spec", ["no.such.module:f", "trl.rewards:nothing", "trl.rewards:accuracy_reward>=high", "a:b:c", "math:pi"]
    )
    def test_a_wrong_name_is_one_line(self, spec):
        with pytest.raises(DivwatchError, match=r"module:function>=0\.5") as error:
            get_verifier(spec)
        assert "\n" not in str(error.value)
