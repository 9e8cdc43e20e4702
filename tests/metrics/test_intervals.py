"""Bootstrap intervals: seeded, paired, clustered by prompt, and of the coverage they claim also for few prompts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from divwatch.analysis.intervals import (
    FEWEST,
    bootstrap_mean,
    bootstrap_means,
    bootstrap_ratio,
    jackknife,
    percentile_interval,
    resampled_means,
)

VALUES = st.lists(st.floats(-5, 5), min_size=FEWEST, max_size=20)


@given(VALUES, st.integers(0, 99))
def test_the_same_seed_gives_the_same_interval_around_the_mean(values, seed):
    one, two = (bootstrap_mean(values, draws=200, seed=seed) for _ in range(2))
    assert one == two
    assert one.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert one.lo - 1e-12 <= one.mean <= one.hi + 1e-12 or np.std(values) > 0


@given(VALUES)
def test_a_missing_prompt_is_not_counted(values):
    assert bootstrap_mean([*values, math.nan]).n == len(values)
    assert bootstrap_mean([*values, math.nan], draws=50).mean == pytest.approx(np.mean(values), abs=1e-12)


def test_equal_values_leave_no_doubt_and_one_value_leaves_all():
    assert bootstrap_mean([2.0] * 5)[:3] == (2.0, 2.0, 2.0)
    mean, lo, hi, n = bootstrap_mean([2.0])
    assert (mean, n) == (2.0, 1)
    assert math.isnan(lo)
    assert math.isnan(hi)


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_nothing_has_no_mean(values):
    interval = bootstrap_mean(values)
    assert interval.n == 0
    assert all(math.isnan(x) for x in interval[:3])


@pytest.mark.parametrize("n", [5, 7, 9, 12, 60])
def test_a_95_percent_interval_holds_the_mean_in_about_95_of_100_samples(n):
    rng = np.random.default_rng(n)
    held = 0
    for seed in range(1000):
        interval = bootstrap_mean(rng.normal(0.3, 0.1, size=n), draws=400, seed=seed)
        held += interval.lo <= 0.3 <= interval.hi
    assert 920 <= held <= 985


@pytest.mark.parametrize("n", range(1, FEWEST))
def test_too_few_prompts_have_a_mean_and_no_interval(n):
    values = np.linspace(0.2, 0.9, n)
    interval = bootstrap_mean(values)
    assert interval.mean == pytest.approx(values.mean())
    assert np.isnan(interval[1:3]).all()
    assert np.isnan(percentile_interval(np.random.default_rng(0).normal(size=99), n)).all()
    ratio = bootstrap_ratio(np.column_stack([values, values + 1]), [1, 0], [0, 1])
    assert math.isfinite(ratio.mean)
    assert math.isnan(ratio.lo)
    assert math.isnan(jackknife(lambda at: float(values[at].mean()), n).lo)
    tasks = ["few"] * n + ["more"] * 3
    assert math.isnan(bootstrap_mean([*values, 0.1, 0.2, 0.3], strata=tasks).lo) == (n + 3 - 2 < FEWEST - 1)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.9, 1.0]), min_size=FEWEST, max_size=12), st.integers(0, 9))
def test_an_interval_stays_in_the_range_of_its_values(values, seed):
    share, distance, unbounded = bootstrap_means(
        np.column_stack([values, values, values]), draws=200, seed=seed, bounds=[(0, 1), (0, 2), (-math.inf, math.inf)]
    )
    assert 0 <= share.lo <= share.mean <= share.hi <= 1
    assert (share.lo, distance.lo) == (max(0, unbounded.lo), max(0, unbounded.lo))
    assert (share.hi, distance.hi) == (min(1, unbounded.hi), min(2, unbounded.hi))
    cut = jackknife(lambda at: float(np.mean(np.array(values)[at])), len(values), bounds=(0, 1))
    assert 0 <= cut.lo <= cut.hi <= 1


def test_student_intervals_of_metrics_hold_the_mean_as_often_as_the_page_says():
    """The simulation behind FEWEST: shares of 16 outputs, of a panel of easy and hard prompts."""
    rng = np.random.default_rng(0)
    held = {}
    for n in (2, 3, FEWEST):
        values = rng.binomial(16, rng.beta(0.3, 0.3, size=(600, n))) / 16
        reach = student.ppf(0.975, n - 1) * values.std(axis=1, ddof=1) / math.sqrt(n)
        held[n] = float(np.mean(np.abs(values.mean(axis=1) - 0.5) <= reach + 1e-12))
    assert held[2] < held[3] < 0.9 < held[FEWEST]


def test_a_task_of_many_prompts_weighs_as_much_as_a_task_of_few():
    values, tasks = [1.0] * 30 + [3.0] * 3, ["many"] * 30 + ["few"] * 3
    interval = bootstrap_mean(values, strata=tasks)
    assert interval == (2.0, 2.0, 2.0, 33)  # resampled within tasks: no task can be lost by chance


def test_an_interval_over_tasks_covers_too():
    rng = np.random.default_rng(1)
    tasks = ["a"] * 6 + ["b"] * 6 + ["c"] * 20
    held = 0
    for seed in range(600):
        values = np.concatenate([rng.normal(mu, 0.2, size=n) for mu, n in ((0.1, 6), (0.5, 6), (0.9, 20))])
        interval = bootstrap_mean(values, strata=tasks, draws=400, seed=seed)
        held += interval.lo <= 0.5 <= interval.hi
    assert 550 <= held <= 594


def test_columns_share_their_resamples():
    values = np.random.default_rng(0).normal(size=(15, 1))
    means = resampled_means(np.hstack([values, values + 1]), draws=50)
    assert means[:, 1] - means[:, 0] == pytest.approx(np.ones(50), abs=1e-12)


def test_many_prompts_are_resampled_in_blocks_with_the_same_result():
    """4,000 prompts are more than one block holds: the result is that of one resample after the other."""
    values = np.random.default_rng(0).normal(size=4000)
    rng = np.random.default_rng(3)
    one_by_one = [values[rng.integers(0, 4000, size=4000)].mean() for _ in range(100)]
    assert resampled_means(values, draws=100, seed=3)[:, 0] == pytest.approx(one_by_one, abs=1e-12)


def test_a_paired_difference_is_narrower_than_its_sides():
    rng = np.random.default_rng(0)
    before = rng.normal(0.5, 0.3, size=40)
    after = before - 0.1 + rng.normal(0, 0.02, size=40)
    change, level = bootstrap_mean(after - before), bootstrap_mean(before)
    assert change.mean == pytest.approx(np.mean(after - before), abs=1e-12)
    assert change.hi < 0
    assert change.hi - change.lo < (level.hi - level.lo) / 5
    assert bootstrap_mean([*(after - before), math.nan]).n == 40


def _ratio(top, bottom, **options):
    return bootstrap_ratio(np.column_stack([top, bottom]), [1, 0], [0, 1], **options)


def test_a_ratio_covers_its_truth_and_has_no_interval_where_the_denominator_may_be_zero():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        bottom = rng.normal(1.0, 0.3, size=40)
        interval = _ratio(0.5 * bottom + rng.normal(0, 0.1, 40), bottom, draws=300, seed=seed)
        held += interval.lo <= 0.5 <= interval.hi
    assert 366 <= held <= 396
    unsure = _ratio(rng.normal(1, 1, 40), rng.normal(0, 1, 40))
    assert math.isfinite(unsure.mean)
    assert math.isnan(unsure.lo)
    assert math.isnan(_ratio([1.0, 2.0], [0.0, 0.0]).mean)


def test_a_ratio_of_contrasts_uses_the_rows_that_each_column_has():
    table = np.array([[1.0, 3.0, 2.0], [1.0, 3.0, math.nan], [4.0, 6.0, 4.0]])
    assert bootstrap_ratio(table, [0, 0, 1], [-1, 1, 0]).mean == pytest.approx(3 / 2)


def test_the_jackknife_of_a_mean_is_its_students_interval():
    values = np.random.default_rng(0).normal(size=20)
    interval = jackknife(lambda at: float(values[at].mean()), 20)
    from scipy.stats import t

    reach = t.ppf(0.975, 19) * values.std(ddof=1) / math.sqrt(20)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.hi - interval.mean == pytest.approx(reach, rel=1e-9)


def test_a_jackknife_of_one_has_no_interval():
    assert math.isnan(jackknife(lambda at: 1.0, 1).lo)


def test_an_expanded_interval_approaches_the_percentile_interval():
    replicates = np.random.default_rng(0).normal(size=100_000)
    assert percentile_interval(replicates, 100_000) == pytest.approx((-1.96, 1.96), abs=0.03)
    assert percentile_interval(replicates, 12)[1] > 2.2
