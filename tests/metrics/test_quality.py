"""Accuracy, pass@k and majority@k against enumeration."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.metrics import paper as paper_way
from divwatch.metrics.quality import accuracy, majority_at_k, pass_at_k
from tests.metrics import slow

FLAGS = st.lists(st.booleans(), min_size=1, max_size=8)
VOTES = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=7)


@given(FLAGS, st.integers(1, 9))
def test_pass_at_k_equals_the_share_of_subsets_with_a_correct_one(correct, k):
    if k > len(correct):
        assert math.isnan(pass_at_k(correct, k))
    else:
        assert pass_at_k(correct, k) == pytest.approx(slow.pass_at_k(correct, k), abs=1e-9)


@given(FLAGS)
def test_pass_at_1_is_accuracy(correct):
    assert pass_at_k(correct, 1) == pytest.approx(accuracy(correct), abs=1e-12)


def _votes(answers, right):
    """Share of correct answers among the most frequent."""
    parsed = [a for a in answers if a is not None]
    if not parsed:
        return 0.0
    top = max(parsed.count(a) for a in parsed)
    tied = {a for a in parsed if parsed.count(a) == top}
    return (right in tied) / len(tied)


@given(VOTES, st.sampled_from("123"))
def test_majority_of_all_is_the_most_frequent_answer_with_ties_shared(answers, right):
    correct = [a == right for a in answers]
    assert majority_at_k(answers, correct) == pytest.approx(_votes(answers, right), abs=1e-12)


@given(VOTES, st.sampled_from("123"), st.integers(1, 7))
def test_majority_at_k_is_the_mean_over_subsets(answers, right, k):
    correct = [a == right for a in answers]
    if k > len(answers):
        assert math.isnan(majority_at_k(answers, correct, k))
    else:
        subsets = list(combinations(answers, k))
        expected = sum(_votes(s, right) for s in subsets) / len(subsets)
        assert majority_at_k(answers, correct, k) == pytest.approx(expected, abs=1e-9)


def test_voting_gains_nothing_where_all_outputs_agree_and_much_where_errors_scatter():
    agreeing, scattered = [True] * 6, [True, True, False, False, False]
    assert majority_at_k(["4"] * 6, agreeing) == accuracy(agreeing)
    assert majority_at_k(["4", "4", "1", "2", "3"], scattered) - accuracy(scattered) == pytest.approx(0.6)


def test_no_outputs_are_missing():
    assert math.isnan(accuracy([]))
    assert math.isnan(majority_at_k([], []))


def test_the_papers_vote_counts_unparsed_answers_and_loses_ties():
    assert paper_way.majority(["4", None, None], [True, False, False]) == 0
    assert majority_at_k(["4", None, None], [True, False, False]) == 1
    assert paper_way.majority(["4", "5", "4", "5"], [True, False, True, False]) == 0
    assert majority_at_k(["4", "5", "4", "5"], [True, False, True, False]) == 0.5


def test_thoughts_are_stripped_as_the_papers_code_strips_them(paper):
    assert {text: paper_way.strip_cot(text) for text in paper["thoughts"]} == paper["thoughts"]
