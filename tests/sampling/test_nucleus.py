"""The draw: the law of transformers' warpers, without sorting and without a global random number, coupled by its seeds."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare, kstest
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

from divwatch.sampling.noise import exponentials, token_seeds
from divwatch.sampling.nucleus import BLOCK, draw


def reference(logits, temperature, top_p):
    """Probabilities after transformers' own warpers."""
    warped = TemperatureLogitsWarper(float(temperature))(None, logits.clone())
    return (TopPLogitsWarper(top_p)(None, warped) if top_p < 1 else warped).softmax(-1)


@cache
def many_seeds(count, seed=0, at=0):
    """[count, 2]: the seeds of token `at` of as many streams."""
    return torch.tensor(token_seeds(seed, [("p", k) for k in range(count)], at + 1)[:, at])


def p_value(tokens, expected):
    """Of the chi-square test of `tokens` against probabilities; tokens that are hardly expected count as one."""
    counts = torch.bincount(tokens, minlength=len(expected)).double()
    assert not counts[expected == 0].any()
    shares = expected.double() / expected.double().sum()
    rare = shares * len(tokens) < 10
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    shares = torch.cat([shares[~rare], shares[rare].sum()[None]])
    counts, shares = counts[shares > 0], shares[shares > 0]
    return chisquare(counts.numpy(), (len(tokens) * shares).numpy()).pvalue if len(shares) > 1 else 1.0


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize(("sharpness", "vocabulary"), [(0.3, 40), (3.0, 40), (2.0, BLOCK), (1.0, 5 * BLOCK + 7)])
def test_the_law_is_that_of_the_warpers(top_p, sharpness, vocabulary):
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(4)) * sharpness
    expected = reference(logits[None], 0.7, top_p)[0]
    tokens = draw(logits.expand(20_000, -1), many_seeds(20_000), 0.7, top_p)
    assert p_value(tokens, expected) > 1e-4


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 300), st.floats(0.05, 0.99), st.floats(0.2, 3.0))
def test_no_token_outside_the_nucleus_is_drawn(seed, vocabulary, top_p, temperature):
    logits = torch.randn(8, vocabulary, generator=torch.Generator().manual_seed(seed)) * 4
    expected = reference(logits, temperature, top_p)
    tokens = draw(logits, many_seeds(8, seed), temperature, top_p)
    chosen = expected.gather(-1, tokens[:, None])[:, 0]
    total = (logits / temperature).softmax(-1)
    # Rounding decides about a token at the very edge; there ours may keep one that the reference drops.
    edge = [abs(float(total[i][total[i] > total[i, t]].sum()) - top_p) < 1e-5 for i, t in enumerate(tokens.tolist())]
    assert all(p > 0 or at_edge for p, at_edge in zip(chosen.tolist(), edge, strict=True))


def test_where_no_try_is_inside_a_small_nucleus_the_law_is_the_same():
    """Of 1,000 almost equal tokens three are kept: nearly all draws come from the sorted way."""
    logits = torch.zeros(1000)
    logits[[5, 500, 999]] = torch.tensor([0.3, 0.5, 0.4])
    expected = reference(logits[None], 1.0, 0.003)[0]
    assert (expected > 0).sum() == 2
    assert p_value(draw(logits.expand(5000, -1), many_seeds(5000), 1.0, 0.003), expected) > 1e-4


def test_tokens_without_probability_are_never_drawn():
    logits = torch.full((2000, 130), -float("inf"))
    logits[:, [3, 129]] = torch.tensor([0.0, 5.0])
    drawn = draw(logits, many_seeds(2000), 1.0, 1.0)
    assert set(drawn.tolist()) == {3, 129}
    assert set(draw(logits, many_seeds(2000), 1.0, 0.5).tolist()) == {129}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_logits_that_are_not_finite_are_refused(bad, top_p):
    logits = torch.zeros(3, 10)
    logits[1, 4] = bad
    with pytest.raises(RuntimeError, match="not finite"):
        draw(logits, many_seeds(3), 1.0, top_p)


def test_streams_belong_to_seed_prompt_and_sample_alone():
    rows = [("a", 0), ("a", 1), ("b", 0)]
    whole = token_seeds(1, rows, 5)
    assert np.array_equal(token_seeds(1, rows[::-1], 5)[::-1], whole)
    assert np.array_equal(token_seeds(1, rows, 3), whole[:, :3])
    assert len(np.unique(whole)) == whole.size
    assert not np.intersect1d(whole, token_seeds(2, rows, 5)).size


def test_numbers_are_exponential_and_independent():
    """Over many seeds: each number, the least of a race, which one it is, and triples of neighbours and of attempts."""
    seeds = many_seeds(20_000)
    numbers = torch.cat([exponentials(seeds, attempt, 80) for attempt in (0, 1)], -1)
    assert torch.equal(exponentials(seeds, 0, 8), numbers[:, :8])
    assert kstest(numbers[:, ::37].flatten(), "expon").pvalue > 1e-4
    least, place = numbers.min(-1)
    assert kstest(160 * least, "expon").pvalue > 1e-4
    assert chisquare(torch.bincount(place, minlength=160)).pvalue > 1e-4
    quarters = (4 * (1 - torch.exp(-numbers))).long().clamp(max=3)
    for a, b, c in ((0, 1, 2), (3, 40, 79), (0, 80, 159), (7, 87, 88)):
        cells = 16 * quarters[:, a] + 4 * quarters[:, b] + quarters[:, c]
        assert chisquare(torch.bincount(cells, minlength=64)).pvalue > 1e-4


def test_draws_of_other_tokens_and_samples_are_independent():
    logits = torch.linspace(0, 2, 100)
    first = draw(logits.expand(8000, -1), many_seeds(8000), 1.0, 0.9)
    next_token = draw(logits.expand(8000, -1), many_seeds(8000, at=1), 1.0, 0.9)
    next_sample = first.roll(1)
    other_seed = draw(logits.expand(8000, -1), many_seeds(8000, seed=1), 1.0, 0.9)
    for other in (next_token, next_sample, other_seed):
        table = np.zeros((4, 4))
        np.add.at(table, (first.numpy() // 25, other.numpy() // 25), 1)
        table = table[table.any(1)][:, table.any(0)]
        assert chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("size", [0.01, 0.1])
def test_models_that_are_close_draw_the_same_token(size):
    """The optimum for two distributions at total variation tv is 2 tv / (1 + tv); blocks cost a little of it."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8000, 1000, generator=generator) * 3
    close = logits + size * torch.randn(8000, 1000, generator=generator)
    seeds = many_seeds(8000)
    differ = float((draw(logits, seeds, 0.6, 1.0) != draw(close, seeds, 0.6, 1.0)).float().mean())
    apart = ((logits / 0.6).softmax(-1) - (close / 0.6).softmax(-1)).abs().sum(-1) / 2
    assert differ <= 1.1 * float((2 * apart / (1 + apart)).mean())


def test_the_same_tokens_in_half_precision_and_beside_more_tokens():
    """Neither the dtype of the weights nor tokens that were added to the vocabulary change the random numbers."""
    logits = (torch.randn(500, 300, generator=torch.Generator().manual_seed(0)) * 3).bfloat16()
    more = torch.cat([logits.float(), torch.full((500, 77), -1e4)], -1)
    assert torch.equal(draw(logits, many_seeds(500), 0.6, 0.95), draw(more, many_seeds(500), 0.6, 0.95))
