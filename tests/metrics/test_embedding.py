"""Distances and Vendi scores: the obvious loops, the vendi-score package, the paper's code, the invariants."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vendi_score import vendi as package

from divwatch.metrics.embedding import (
    across_input_values,
    gram,
    pair_statistics,
    pairwise_distance,
    rarefied_vendi,
    vendi,
)
from tests.metrics import slow

SHAPES = [(2, 3), (5, 2), (8, 16), (16, 4), (7, 7)]
SETS = st.tuples(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 12))


def _set(seed, k, d):
    vectors = np.random.default_rng(seed).normal(size=(k, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(SETS)
def test_distance_equals_the_loop_over_pairs(shape):
    e = _set(*shape)
    assert pairwise_distance(gram(e)) == pytest.approx(slow.pairwise_distance(e.tolist()), abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("q", [1, 2, 3, np.inf])
def test_vendi_equals_the_vendi_score_package(shape, q):
    e = _set(1, *shape)
    expected = package.score_K(e @ e.T, q="inf" if q == np.inf else q)  # score_X loses q
    assert vendi(gram(e), q) == pytest.approx(expected, abs=1e-9)


def test_vendi_of_an_order_below_1_equals_the_package_where_no_eigenvalue_is_rounding_noise():
    e = _set(1, 6, 12)
    assert vendi(gram(e), 0.5) == pytest.approx(package.score_K(e @ e.T, q=0.5), abs=1e-9)


def test_vendi_of_order_0_is_the_rank():
    assert vendi(gram(np.eye(6)[[0, 1, 1, 2]]), q=0) == 3.0
    assert vendi(gram(np.eye(2)[[0, 1, 1, 0]]), q=0) == 2.0


def test_equals_the_papers_code(paper, minilm):
    sets = [minilm.encode(outputs) for outputs in paper["texts"]]
    assert [pairwise_distance(gram(e)) for e in sets] == pytest.approx(paper["sbert"], abs=2e-4)
    assert [vendi(gram(e)) for e in sets] == pytest.approx(paper["vendi"], abs=2e-4)
    first = np.array([e[0] for e in sets])
    assert pairwise_distance(gram(first)) == pytest.approx(paper["across"]["sbert"], abs=2e-4)
    assert vendi(gram(first)) == pytest.approx(paper["across"]["vendi"], abs=2e-4)


@given(SETS, st.randoms(use_true_random=False))
def test_order_of_outputs_does_not_matter(shape, random):
    e = _set(*shape)
    order = random.sample(range(len(e)), len(e))
    assert pairwise_distance(gram(e[order])) == pytest.approx(pairwise_distance(gram(e)), abs=1e-12)
    assert vendi(gram(e[order])) == pytest.approx(vendi(gram(e)), abs=1e-9)
    assert rarefied_vendi(gram(e[order]), 2) == pytest.approx(rarefied_vendi(gram(e), 2), abs=1e-9)


@given(SETS)
def test_a_batch_gives_what_its_sets_give(shape):
    seed, k, d = shape
    batch = np.stack([_set(seed + i, k, d) for i in range(3)])
    assert pairwise_distance(gram(batch)) == pytest.approx([pairwise_distance(gram(e)) for e in batch], abs=1e-12)
    assert vendi(gram(batch)) == pytest.approx([vendi(gram(e)) for e in batch], abs=1e-9)
    assert rarefied_vendi(gram(batch), 2) == pytest.approx([rarefied_vendi(gram(e), 2) for e in batch], abs=1e-9)


@given(st.integers(2, 12), st.integers(1, 9), st.integers(0, 99))
def test_identical_outputs_have_distance_0_and_vendi_1(k, d, seed):
    e = np.repeat(_set(seed, 1, d), k, axis=0)
    for vectors in (e, e.astype(np.float32)):
        assert pairwise_distance(gram(vectors)) == pytest.approx(0, abs=1e-6)
        assert vendi(gram(vectors)) == pytest.approx(1, abs=1e-5)
        assert rarefied_vendi(gram(vectors), 2) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("k", [2, 5, 16])
def test_orthogonal_outputs_have_distance_1_and_vendi_k(k):
    assert pairwise_distance(gram(np.eye(k))) == pytest.approx(1, abs=1e-12)
    assert vendi(gram(np.eye(k))) == pytest.approx(k, abs=1e-9)
    assert rarefied_vendi(gram(np.eye(k)), 2) == pytest.approx(2, abs=1e-9)


@given(SETS)
def test_repeating_every_output_leaves_vendi_and_lowers_distance(shape):
    e = _set(*shape)
    twice = np.concatenate([e, e])
    assert vendi(gram(twice)) == pytest.approx(vendi(gram(e)), abs=1e-9)
    assert pairwise_distance(gram(twice)) <= pairwise_distance(gram(e)) + 1e-12


@given(SETS)
def test_vendi_lies_between_1_and_what_k_and_d_allow(shape):
    e = _set(*shape)
    assert 1 - 1e-9 <= vendi(gram(e)) <= min(e.shape) + 1e-9
    assert vendi(gram(e), 2) <= vendi(gram(e)) + 1e-9  # Hill numbers fall with their order


@given(SETS, st.integers(1, 9))
def test_rarefied_vendi_is_the_mean_over_all_subsets(shape, m):
    e = _set(*shape)
    if m > len(e):
        assert math.isnan(rarefied_vendi(gram(e), m))
    else:
        expected = slow.over_subsets(list(e), m, lambda rows: package.score_K(np.array(rows) @ np.array(rows).T))
        assert rarefied_vendi(gram(e), m, draws=10_000) == pytest.approx(expected, abs=1e-9)


@given(SETS)
def test_rarefied_to_all_outputs_is_vendi(shape):
    e = _set(*shape)
    assert rarefied_vendi(gram(e), len(e)) == pytest.approx(vendi(gram(e)), abs=1e-9)


def test_bounded_draws_come_close_to_all_subsets_and_are_the_same_each_time():
    e = _set(3, 16, 6)
    exact, drawn = rarefied_vendi(gram(e), 8, draws=20_000), rarefied_vendi(gram(e), 8)
    assert drawn == rarefied_vendi(gram(e), 8)
    assert drawn == pytest.approx(exact, rel=0.01)


def _noisy(rng, k):
    """Outputs around a centre: mean distance about 0.32, noise in 200 dimensions, as in the table of K's effect."""
    vectors = np.sqrt(0.68) * np.eye(201)[0] + np.sqrt(0.32 / 200) * rng.normal(size=(400, k, 201))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_distance_and_rarefied_vendi_keep_their_mean_when_k_changes_and_plain_vendi_does_not():
    rng = np.random.default_rng(0)
    four, sixteen = _noisy(rng, 4), _noisy(rng, 16)
    assert vendi(gram(sixteen)).mean() > vendi(gram(four)).mean() + 1
    for metric in (pairwise_distance, lambda cosines: rarefied_vendi(cosines, 4)):
        values = metric(gram(four)), metric(gram(sixteen))
        error = np.sqrt(sum(v.var() / len(v) for v in values))
        assert abs(values[0].mean() - values[1].mean()) < 4 * error


def test_too_few_outputs_are_missing():
    assert math.isnan(pairwise_distance(gram(np.eye(3)[:1])))
    assert math.isnan(pairwise_distance(gram(np.empty((0, 3)))))
    assert math.isnan(vendi(gram(np.empty((0, 3)))))
    assert vendi(gram(np.eye(3)[:1])) == pytest.approx(1)
    with pytest.raises(ValueError, match="shape"):
        gram([1.0, 0.0])


@given(SETS, st.data())
def test_pair_statistics_split_the_pairs_by_correctness(shape, data):
    e = _set(*shape)
    correct = data.draw(st.lists(st.booleans(), min_size=len(e), max_size=len(e)))
    counts, distances = pair_statistics(gram(e), correct)
    pairs = [(i, j) for i in range(len(e)) for j in range(i)]
    for group, both in enumerate((2, 1, 0)):
        mine = [1 - e[i] @ e[j] for i, j in pairs if correct[i] + correct[j] == both]
        assert counts[group] == len(mine)
        assert np.isnan(distances[group]) if not mine else distances[group] == pytest.approx(np.mean(mine), abs=1e-12)
    assert np.nansum(counts * distances) / len(pairs) == pytest.approx(pairwise_distance(gram(e)), abs=1e-12)


@given(SETS)
def test_the_mean_of_across_input_values_is_the_distance_between_prompts(shape):
    e = _set(*shape)
    assert across_input_values(e).mean() == pytest.approx(pairwise_distance(gram(e)), abs=1e-9)


def test_across_input_values_have_the_spread_of_the_pairwise_mean():
    rng = np.random.default_rng(0)
    sets = rng.normal(size=(400, 30, 3)) + np.array([1.0, 0, 0])
    sets /= np.linalg.norm(sets, axis=-1, keepdims=True)
    values = np.array([across_input_values(e) for e in sets])
    said = np.sqrt(values.var(axis=1, ddof=1) / 30).mean()
    seen = values.mean(axis=1).std()
    assert said == pytest.approx(seen, rel=0.15)


def test_a_missing_prompt_is_left_out_of_the_comparison_across_prompts():
    e = np.eye(4)
    e[1] = np.nan
    assert np.isnan(across_input_values(e)).tolist() == [False, True, False, False]
    assert np.nanmean(across_input_values(e)) == pytest.approx(1.0)
    assert np.isnan(across_input_values(e[:2])).all()
