"""Covariates: entropy from the decode loop, length, and the share of groups that GRPO would learn from."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from divwatch.config import WatchConfig
from divwatch.metrics.covariates import covariate_values, learning_signal
from divwatch.outputs.names import look_scalars
from divwatch.panel import choose
from divwatch.records import Completion, PromptSamples
from divwatch.sampling import Source, sample
from divwatch.sampling.in_process import decode_batch
from divwatch.sampling.plan import Row
from divwatch.sampling.refill import Batch
from divwatch.sampling.request import make_request
from divwatch.tiny.panel import panel


def test_the_learning_signal_is_the_share_of_all_groups_with_right_and_wrong_answers():
    for k, c in ((6, 0), (6, 1), (6, 3), (6, 6), (4, 2)):
        correct = [True] * c + [False] * (k - c)
        for size in range(1, k + 1):
            groups = list(combinations(correct, size))
            share = np.mean([any(g) and not all(g) for g in groups])
            assert learning_signal(correct, size) == pytest.approx(share)
    assert np.isnan(learning_signal([True, False], 3))


def test_the_learning_signal_is_unbiased():
    rng, p, size = np.random.default_rng(0), 0.3, 4
    drawn = [learning_signal(rng.random(8) < p, size) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(1 - p**size - (1 - p) ** size, abs=4 * np.std(drawn) / 4000**0.5)


def test_values_are_by_prompt_and_an_unknown_entropy_is_missing():
    samples = [
        PromptSamples("a", "sums", ["1"] * 4, [True] * 4, [True, True, False, False]),
        PromptSamples("b", "story", ["x"] * 4, [True] * 4),
    ]
    told = [
        Completion("a", "sums", k, "1", True, tokens, entropy=h)
        for k, (tokens, h) in enumerate([(1, 2.0), (3, 0.0)] * 2)
    ]
    values = covariate_values(samples, told + [Completion("b", "story", k, "x", True, 5) for k in range(4)])
    assert values["covariates/tokens"].tolist() == [2, 5]
    np.testing.assert_allclose(values["covariates/entropy"], [0.5, np.nan])
    np.testing.assert_allclose(values["covariates/branching_factor"], [np.exp(0.5), np.nan])
    np.testing.assert_allclose(values["covariates/learning_signal_4"], [1, np.nan])
    assert "covariates/learning_signal_8" not in values
    means = {"sums": {key: {"mean": column[0]} for key, column in values.items()} | {"across/sbert": {"mean": 0.4}}}
    assert {"covariates/sums/entropy", "covariates/sums/learning_signal_4", "across/sums/sbert"} <= set(
        look_scalars(means)
    )


@pytest.mark.parametrize("mode", ["eager", "shared"])
def test_entropy_is_that_of_the_models_own_distribution_at_every_token(base, mode):
    model, tokenizer = base
    prompts = choose(panel(), 4, 0)
    request = make_request(model, tokenizer, prompts, WatchConfig(samples=3, max_new_tokens=12), 0, model.device)
    request = replace(request, how=replace(request.how, mode=mode))
    rows = [Row(i, k) for i in range(4) for k in range(3)]
    with torch.no_grad():
        decoded = decode_batch(model, request, Batch(rows, 12), lambda alive: alive)
        for row, ids in zip(rows, decoded, strict=True):
            prompt = request.encoded[row.prompt]
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            expected = torch.distributions.Categorical(logits=logits).entropy().mean()
            assert ids.entropy == pytest.approx(float(expected), abs=1e-3)


def test_a_sharper_model_has_a_lower_entropy_in_the_record(base):
    import copy

    model, tokenizer = base
    sharp = copy.deepcopy(model)
    with torch.no_grad():
        sharp.get_output_embeddings().weight.mul_(3)
    config, prompts = WatchConfig(samples=4, max_new_tokens=16), choose(panel(), 6, 0)
    plain, sharper = (
        np.mean([c.entropy for c in sample(Source(m), tokenizer, prompts, config, 0)]) for m in (model, sharp)
    )
    assert 0 < sharper < 0.8 * plain
