"""Comparison of arms: estimates against a slow reference, intervals against Tukey and Student, errors on simulated truth."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import studentized_range, t

from divwatch.analysis.compare import FEWEST, Item, compare_arms
from divwatch.analysis.run_noise import Wobble, wobble_of_looks

RUNS = 100
# A share of 5 % in RUNS runs, three standard errors up.
AT_MOST = 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)


def sources(arms):
    """Leave one out: arm 0 has all, arm i is without source i."""
    return [Item(f"s{i}", 0, i) for i in range(1, arms)]


def world(seed, arms=5, seeds=3, prompts=72, wobble=0.01, interaction=0.03, noise=0.04, effects=None, missing=0.0):
    """Values [arms, seeds, prompts]: a prompt's level, its own liking of an arm, a run's wobble, a seed's, and noise."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.1, 0.6, prompts) + rng.normal(0, interaction, (arms, 1, prompts))
    values = values + rng.normal(0, wobble, (arms, seeds, 1)) + rng.normal(0, wobble, (1, seeds, 1))
    values = values + rng.normal(0, noise, (arms, seeds, prompts))
    if effects is not None:
        values = values - np.array([0.0, *effects])[:, None, None]  # what a source adds is gone without it
    values[rng.random(values.shape) < missing] = np.nan
    return values


def tasks_of(prompts, count=6):
    return [f"t{i % count}" for i in range(prompts)]


def compare(values, count=6, draws=1000, **options):
    tables = values if isinstance(values, dict) else {"d": values}
    arms, _, prompts = next(iter(tables.values())).shape
    return compare_arms(tables, tasks_of(prompts, count), sources(arms), draws=draws, **options)


def slow_effect(table, tasks, plus, minus, task=None):
    """Prompt by prompt and seed by seed, in plain Python."""
    by_task = {}
    for p in range(table.shape[2]):
        found = [table[plus, s, p] - table[minus, s, p] for s in range(table.shape[1])]
        found = [x for x in found if x == x]
        if found and task in (None, tasks[p]):
            by_task.setdefault(tasks[p], []).append(sum(found) / len(found))
    means = [sum(x) / len(x) for x in by_task.values()]
    return sum(means) / len(means)


# estimates


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_effects_and_differences_are_those_of_the_slow_reference(missing):
    values = world(1, prompts=60, missing=missing)
    found, tasks = compare(values), tasks_of(60)
    for effect, arm in zip(found.effects, range(1, 5), strict=True):
        assert effect.value == pytest.approx(slow_effect(values, tasks, 0, arm))
    for effect in found.by_task:
        assert effect.value == pytest.approx(slow_effect(values, tasks, 0, int(effect.name[1:]), effect.task))
    for pair in found.pairs:
        one, other = int(pair.name[1:]), int(pair.other[1:])
        assert pair.value == pytest.approx(slow_effect(values, tasks, other, one))
    assert len(found.pairs) == 6
    assert len(found.by_task) == 4 * 6


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(-2, 2), st.floats(0.1, 5))
def test_what_all_arms_share_does_not_matter_and_a_unit_scales(seed, shift, unit):
    values = world(seed, arms=3, prompts=24)
    one, other = compare(values, 2, draws=200), compare(unit * values + shift * np.arange(24), 2, draws=200)
    for a, b in zip(one.effects, other.effects, strict=True):
        assert b.value == pytest.approx(unit * a.value, abs=1e-9)
        assert b.hi - b.lo == pytest.approx(unit * (a.hi - a.lo), rel=1e-6)
        assert b.p == a.p


def test_a_measure_that_nothing_has_on_a_task_is_left_out_there():
    values = world(3, arms=3, prompts=60)
    values[:, :, [i for i, t in enumerate(tasks_of(60)) if t == "t0"]] = np.nan
    found = compare(values)
    assert {e.task for e in found.by_task} == {"t1", "t2", "t3", "t4", "t5"}
    assert found.effects[0].n == 50
    assert found.effects[0].value == pytest.approx(slow_effect(values, tasks_of(60), 0, 1))


def test_a_task_with_few_prompts_has_an_effect_and_no_interval():
    values = world(4, arms=3, prompts=FEWEST - 1)
    found = compare(values, 1)
    assert np.isfinite(found.effects[0].value)
    assert np.isnan([found.effects[0].lo, found.effects[0].hi, found.effects[0].p]).all()
    assert set(found.ranks["d"].values()) == {(1, 2)}


def test_arms_that_are_equal_have_no_effect():
    found = compare(np.repeat(world(5, arms=1, seeds=2), 3, axis=0))
    assert {(e.value, e.lo, e.hi, e.p) for e in found.effects} == {(0.0, 0.0, 0.0, 1.0)}


# intervals against known ones


def test_with_run_effects_alone_it_is_tukeys_test_but_for_the_arms_own_variances():
    """All differences among five arms, three seeds: the studentised range on (5 - 1)(3 - 1) degrees of freedom. That
    each arm has a variance of its own makes intervals up to a quarter wider."""
    found = compare(world(6, wobble=0.02, interaction=0, noise=0), draws=20_000)
    reach = np.array([(e.hi - e.value) / e.se for e in (*found.effects, *found.pairs)])
    tukey = studentized_range.ppf(0.95, 5, 8) / np.sqrt(2)
    assert (reach >= 0.97 * tukey).all()
    assert (reach <= 1.25 * tukey).all()
    assert found.run_df == 8


def test_two_arms_with_run_effects_alone_have_the_paired_t_interval_over_seeds():
    values = world(8, arms=2, seeds=4, wobble=0.02, interaction=0, noise=0)
    effect = compare(values, draws=20_000).effects[0]
    differences = (values[0] - values[1]).mean(axis=1)
    assert effect.se == pytest.approx(differences.std(ddof=1) / 2)
    assert (effect.hi - effect.value) / effect.se == pytest.approx(t.ppf(0.975, 3), rel=0.04)


def test_one_difference_of_one_run_each_is_the_paired_t_interval():
    values = world(7, arms=2, seeds=1, prompts=14)
    effect = compare(values, 1, draws=20_000).effects[0]
    difference = values[0, 0] - values[1, 0]
    error = difference.std(ddof=1) / np.sqrt(14)
    assert effect.se == pytest.approx(error)
    assert (effect.hi - effect.value) / error == pytest.approx(t.ppf(0.975, 13), rel=0.04)
    assert effect.p == pytest.approx(2 * t.sf(abs(difference.mean()) / error, 13), abs=0.02)


# known truth


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("as in the experiment", {}),
        ("runs vary, prompts do not", {"wobble": 0.02, "interaction": 0.001, "noise": 0.001}),
        ("one run an arm", {"seeds": 1, "wobble": 0}),
        ("a quarter missing", {"missing": 0.25}),
    ],
)
def test_the_chance_of_any_false_finding_is_bounded(name, how):
    whole = tasks = 0
    for seed in range(RUNS):
        found = compare({"a": world(seed, **how), "b": world(10_000 + seed, **how)})
        whole += any(e.lo > 0 or e.hi < 0 for e in (*found.effects, *found.pairs))
        tasks += any(e.lo > 0 or e.hi < 0 for e in found.by_task)
    assert whole / RUNS <= AT_MOST, name
    assert tasks / RUNS <= AT_MOST, name


@pytest.mark.parametrize("how", [{}, {"wobble": 0, "interaction": 0}, {"wobble": 0.005, "noise": 0.08}])
def test_the_noise_of_sampling_counts_once(how):
    """The standard error is that of simulation; with the noise counted twice it was up to 1.41 times as large."""
    effects = [compare(world(seed, **how), draws=50).effects[0] for seed in range(RUNS)]
    true = np.std([e.value for e in effects])
    assert np.sqrt(np.mean([e.se**2 for e in effects])) == pytest.approx(true, rel=0.2)


def test_an_arm_that_wobbles_three_times_as_much_makes_no_findings():
    found = 0
    for seed in range(RUNS):
        values = world(seed, interaction=0)
        values[4] += np.sqrt(8) * np.random.default_rng(seed).normal(0, 0.01, (3, 1))  # three times as much in all
        result = compare(values, draws=400)
        found += any(e.lo > 0 or e.hi < 0 for e in (*result.effects, *result.pairs))
    assert found / RUNS <= 0.07 + 2 * np.sqrt(0.07 * 0.93 / RUNS)


@pytest.mark.parametrize("wobble", [0.005, 0.02])
def test_single_runs_differ_by_more_than_their_looks_wobble_before_it_is_a_finding(wobble):
    found = known = 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        level = rng.uniform(0.1, 0.6, 72)
        runs = level * (1 + wobble * rng.standard_normal((2, 12, 1))) + 0.01 * rng.standard_normal((2, 12, 72))
        runs[1, -1] *= 0.8 if seed % 2 else 1
        wobbles = {("d", "all"): [wobble_of_looks(range(11), run) for run in runs[:, :11]]}
        effect = compare(runs[:, -1:], 1, draws=400, wobbles=wobbles).effects[0]
        lower = effect.lo > 0  # the effect of s1 is (all) - (without it)
        found += lower and not seed % 2
        known += lower and seed % 2
    assert found / (RUNS / 2) <= 0.1
    assert known / (RUNS / 2) >= 0.95


def test_a_single_look_and_a_series_without_values_have_a_wobble_too():
    assert wobble_of_looks([0], np.full((1, 12), 0.5)).sd > 0
    assert wobble_of_looks([0, 1], np.vstack([np.ones(12), np.full(12, np.nan)])) == Wobble(0.0, 2.0)


def test_without_wobble_of_their_looks_single_runs_are_compared_by_prompts_alone():
    values = world(7, arms=2, seeds=1, prompts=14)
    steady = compare(values, 1, wobbles={("d", "all"): [Wobble(0.0, 5), Wobble(0.0, 5)]}).effects[0]
    moving = compare(values, 1, wobbles={("d", "all"): [Wobble(0.05, 5), Wobble(0.0, 5)]}).effects[0]
    assert steady.se == pytest.approx(compare(values, 1).effects[0].se)
    assert moving.se == pytest.approx(np.hypot(steady.se, 0.05))


def test_all_intervals_together_cover_the_truth():
    truth = np.array([-0.1, 0.0, 0.03, 0.05])
    missed = 0
    for seed in range(RUNS):
        found = compare(world(seed, effects=truth))
        inside = [e.lo <= truth[i] <= e.hi for i, e in enumerate(found.effects)]
        for pair, (i, j) in zip(found.pairs, itertools.combinations(range(4), 2), strict=True):
            inside.append(pair.lo <= truth[i] - truth[j] <= pair.hi)
        missed += not all(inside)
    assert missed / RUNS <= AT_MOST


def test_a_narrow_source_is_ranked_below_all_others_and_equal_ones_are_not_ranked():
    lowest = 0
    for seed in range(30):
        ranks = compare(world(seed, effects=[0, 0, -0.12, 0])).ranks["d"]
        lowest += ranks["s3"] == (1, 1)
    assert lowest == 30
    ranks = compare(world(1)).ranks["d"]
    assert set(ranks.values()) == {(1, 4)}


def test_the_same_data_give_the_same_result():
    assert compare(world(2)).effects == compare(world(2)).effects
