"""The draw: the law of transformers' warpers, without sorting and without a global random number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

from divwatch.sampling.nucleus import TRIES, _sorted_draw, draw, uniforms


def reference(logits, temperature, top_p):
    """Probabilities after transformers' own warpers."""
    warped = TemperatureLogitsWarper(float(temperature))(None, logits.clone())
    return (TopPLogitsWarper(top_p)(None, warped) if top_p < 1 else warped).softmax(-1)


def many_uniforms(count, seed=0):
    return torch.tensor(uniforms(seed, [("p", k) for k in range(count)], 1)[:, 0])


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("sharpness", [0.3, 3.0])
def test_the_law_is_that_of_the_warpers(top_p, sharpness):
    logits = torch.randn(40, generator=torch.Generator().manual_seed(4)) * sharpness
    expected = reference(logits[None], 0.7, top_p)[0]
    draws = 20_000
    tokens = draw(logits.expand(draws, -1), many_uniforms(draws), 0.7, top_p)
    counts = torch.bincount(tokens, minlength=40)
    assert not counts[expected == 0].any()
    kept = expected > 0
    if kept.sum() > 1:
        shares = expected[kept].double() / expected[kept].double().sum()
        assert chisquare(counts[kept].numpy(), (draws * shares).numpy()).pvalue > 1e-4


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 300), st.floats(0.05, 0.99), st.floats(0.2, 3.0))
def test_no_token_outside_the_nucleus_is_drawn(seed, vocabulary, top_p, temperature):
    logits = torch.randn(8, vocabulary, generator=torch.Generator().manual_seed(seed)) * 4
    expected = reference(logits, temperature, top_p)
    tokens = draw(logits, many_uniforms(8, seed), temperature, top_p)
    chosen = expected.gather(-1, tokens[:, None])[:, 0]
    total = (logits / temperature).softmax(-1)
    # Rounding decides about a token at the very edge; there ours may keep one that the reference drops.
    edge = [abs(float(total[i][total[i] > total[i, t]].sum()) - top_p) < 1e-5 for i, t in enumerate(tokens.tolist())]
    assert all(p > 0 or at_edge for p, at_edge in zip(chosen.tolist(), edge, strict=True))


def test_the_sorted_way_has_the_same_law():
    probabilities = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    tokens = _sorted_draw(probabilities.expand(20_000, -1), many_uniforms(20_000)[:, 0], 0.6)
    counts = torch.bincount(tokens, minlength=5).tolist()
    assert counts[0] == counts[2] == counts[4] == 0
    assert chisquare([counts[1], counts[3]], [20_000 * 4 / 7, 20_000 * 3 / 7]).pvalue > 1e-4


def test_the_edges_of_the_unit_interval_give_tokens_of_the_nucleus():
    logits = torch.tensor([[0.0, 5.0, -float("inf")]]).expand(2, -1)
    uniform = torch.tensor([[0.0] * TRIES, [1 - 2**-24] * TRIES])
    assert draw(logits, uniform, 1.0, 1.0).tolist() == [0, 1]
    assert draw(logits, uniform, 1.0, 0.5).tolist() == [1, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_logits_that_are_not_finite_are_refused(bad, top_p):
    logits = torch.zeros(3, 10)
    logits[1, 4] = bad
    with pytest.raises(RuntimeError, match="not finite"):
        draw(logits, many_uniforms(3), 1.0, top_p)


def test_streams_belong_to_seed_prompt_and_sample_alone():
    rows = [("a", 0), ("a", 1), ("b", 0)]
    whole = uniforms(1, rows, 5)
    assert np.array_equal(uniforms(1, rows[::-1], 5)[::-1], whole)
    assert np.array_equal(uniforms(1, rows, 3), whole[:, :3])
    assert len(np.unique(whole)) == whole.size
    assert not np.intersect1d(whole, uniforms(2, rows, 5)).size
    assert 0.4 < uniforms(3, [("x", k) for k in range(500)], 4).mean() < 0.6
