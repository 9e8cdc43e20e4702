"""Answer diversity against enumeration, and unbiased where it says so."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.metrics.answers import distinct, entropy, gini_simpson, rarefied_distinct, rarefied_entropy
from tests.metrics import slow

ANSWERS = st.lists(st.sampled_from("abcd"), min_size=2, max_size=7)


@given(ANSWERS)
def test_plain_values_equal_enumeration(answers):
    assert distinct(answers) == slow.distinct(answers)
    assert entropy(answers) == pytest.approx(slow.entropy(answers), abs=1e-12)
    assert gini_simpson(answers) == pytest.approx(slow.differing_pairs(answers), abs=1e-12)


@given(ANSWERS, st.integers(1, 7))
def test_rarefied_values_equal_the_mean_over_all_subsets(answers, m):
    if m > len(answers):
        assert math.isnan(rarefied_distinct(answers, m))
        assert math.isnan(rarefied_entropy(answers, m))
    else:
        assert rarefied_distinct(answers, m) == pytest.approx(slow.over_subsets(answers, m, slow.distinct), abs=1e-9)
        assert rarefied_entropy(answers, m) == pytest.approx(slow.over_subsets(answers, m, slow.entropy), abs=1e-9)


@given(ANSWERS, st.integers(1, 3))
def test_unparsed_answers_are_left_out(answers, broken):
    for metric in (distinct, entropy, gini_simpson, lambda a: rarefied_distinct(a, 2)):
        assert metric(answers + [None] * broken) == pytest.approx(metric(answers), abs=1e-12)


@given(st.integers(2, 9))
def test_one_answer_is_no_diversity(k):
    same = ["7"] * k
    assert (distinct(same), entropy(same), gini_simpson(same), rarefied_distinct(same, 2)) == (
        1,
        0,
        0,
        pytest.approx(1),
    )


def test_without_answers_everything_is_missing():
    for metric in (
        distinct,
        entropy,
        gini_simpson,
        lambda a: rarefied_distinct(a, 2),
        lambda a: rarefied_entropy(a, 2),
    ):
        assert math.isnan(metric([]))
        assert math.isnan(metric([None]))


@pytest.mark.parametrize(
    "metric",
    [gini_simpson, lambda a: rarefied_distinct(a, 4), lambda a: rarefied_entropy(a, 4)],
    ids=["gini", "distinct", "entropy"],
)
def test_unbiased_values_keep_their_mean_when_k_changes(metric):
    rng = np.random.default_rng(0)
    law = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    values = [[metric(rng.choice(6, size=k, p=law).tolist()) for _ in range(1500)] for k in (4, 16)]
    error = math.sqrt(sum(np.var(v) / len(v) for v in values))
    assert abs(np.mean(values[0]) - np.mean(values[1])) < 4 * error
