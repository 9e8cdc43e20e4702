"""CollapseDetector: what it promises about alarms, changes, intervals and onset."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom
from scipy.stats import t as student

from divwatch import CollapseDetector, DivwatchError
from divwatch.analysis.boundary import EARLY_SHARE, critical_value
from divwatch.analysis.contrast import contrast_at_knees
from divwatch.analysis.series_fit import fit_series
from divwatch.analysis.simulate import simulate, true_change
from divwatch.schedule import MOST


def watch(run, **settings):
    detector = CollapseDetector(len(run.steps), **settings)
    return [detector.update(step, values) for step, values in zip(run.steps, run.values, strict=True)]


def at_most(share: float, runs: int) -> int:
    """More alarms than this happen to a rule of error `share` once in a thousand times."""
    return int(binom.ppf(0.999, runs, share))


# The contract of one status


def test_the_baseline_is_no_change():
    status = CollapseDetector(10).update(0, [0.2, 0.4, 0.6])
    assert (status.collapsed, status.alarm_step, status.change, status.confirmed) == (False, None, 0.0, False)
    assert (status.onset_step, status.onset_interval, status.change_interval) == (None, None, (0.0, 0.0))


def test_change_is_over_the_prompts_that_both_have():
    detector = CollapseDetector(10)
    detector.update(0, [0.2, 0.4, np.nan, 0.6])
    status = detector.update(10, [0.1, np.nan, 0.9, 0.5])
    assert status.change == pytest.approx((0.3 - 0.4) / 0.4)
    assert status.n == 2


def test_several_updates_at_the_first_step_pool_into_the_baseline():
    detector = CollapseDetector(10)
    for values in ([0.2, 0.4, np.nan], [0.4, np.nan, np.nan], [0.6, 0.6, 0.3]):
        detector.update(0, values)
    assert detector.update(5, [0.4, 0.5, 0.3]).change == pytest.approx(0.0)


def test_pooling_the_baseline_narrows_the_interval():
    run, again = (
        simulate("null", prompts=32, looks=8, wobble=0.0, seed=5),
        simulate("null", prompts=32, wobble=0.0, seed=5),
    )
    single, pooled = CollapseDetector(8), CollapseDetector(8)
    for values in [run.values[0], *(again.values[10:20])]:
        pooled.update(0, values)
    for step, values in zip(run.steps, run.values, strict=True):
        one = single.update(step, values)
        many = pooled.update(step, values) if step else None
    assert np.ptp(many.change_interval) < np.ptp(one.change_interval)


def test_an_alarm_needs_two_looks_running():
    # A noiseless halving at one look alone, then at two.
    base = np.linspace(0.1, 0.6, 64)
    dipping, falling = CollapseDetector(20), CollapseDetector(20)
    for step in range(20):
        dip = dipping.update(step, base * (0.5 if step % 2 else 1.0))
        fall = falling.update(step, base * (0.5 if step >= 7 else 1.0))
        assert not dip.collapsed
        assert fall.collapsed == (step >= 8)
    assert (fall.alarm_step, fall.onset_step, fall.onset_interval, fall.confirmed) == (8, 6, (6, 6), True)


def test_what_was_flagged_stays_flagged_and_keeps_an_onset():
    run = simulate("recovery", looks=30, onset=5, seed=2)
    statuses = watch(run)
    first = next(i for i, s in enumerate(statuses) if s.collapsed)
    for status in statuses[first:]:
        assert status.collapsed
        assert status.alarm_step == run.steps[first]
        assert status.onset_step is not None
    last = statuses[-1]
    assert not last.confirmed  # the fall is made good
    assert abs(last.onset_step - run.onset_step) <= 50


def test_a_look_without_values_is_no_evidence():
    run = simulate("step", onset=5, drop=0.4, seed=3)
    detector = CollapseDetector(len(run.steps))
    for step, values in zip(run.steps, run.values, strict=True):
        status = detector.update(step, values if step != 300 else np.full(64, np.nan))
        if step == 300:
            assert np.isnan(status.change)
            assert np.isnan(status.change_interval).all()
            assert not status.collapsed
    assert status.alarm_step == 400  # 350 and 400 are the first two looks with values that say so
    assert not np.isnan(status.change)


@pytest.mark.parametrize("baseline", [np.full(8, np.nan), np.zeros(8)], ids=["missing", "zero"])
def test_without_a_baseline_nothing_is_said(baseline):
    detector = CollapseDetector(5)
    for step, values in enumerate([baseline, np.full(8, 0.3), np.full(8, 0.1), np.full(8, 0.1)]):
        status = detector.update(step, values)
        assert np.isnan(status.change)
        assert not status.collapsed


def test_status_as_dict_holds_every_field_of_the_contract():
    status = watch(simulate("ramp", seed=1))[-1]
    names = {"collapsed", "alarm_step", "onset_step", "onset_interval", "change", "change_interval", "confirmed"}
    assert names <= set(status.as_dict())
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.collapsed = False


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ([(0, [0.1, 0.2]), (1, [0.1])], "1 prompts"),
        ([(0, [[0.1, 0.2]])], "shape"),
        ([(0, [])], "shape"),
        ([(0, [0.1, np.inf])], "infinite"),
        ([(0, [0.1, 0.2]), (5, [0.1, 0.2]), (4, [0.1, 0.2])], "step 4 comes after step 5"),
        ([(0, [0.1, 0.2]), (5, [0.1, 0.2]), (5, [0.1, 0.2])], "step 5 comes after step 5"),
    ],
)
def test_wrong_input_is_one_line(feed, message):
    detector = CollapseDetector(10)
    for step, values in feed[:-1]:
        detector.update(step, values)
    with pytest.raises(DivwatchError, match=message) as raised:
        detector.update(*feed[-1])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "wrong", [{"max_looks": 0}, {"alpha": 0.0}, {"alpha": 1.5}, {"min_drop": -0.1}, {"min_drop": 1.0}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(DivwatchError):
        CollapseDetector(**{"max_looks": 10} | wrong)


# Invariants


@given(
    level=arrays(float, st.integers(2, 40), elements=st.floats(0.01, 1.0)),
    looks=st.integers(2, 30),
    min_drop=st.floats(0.0, 0.5),
)
@settings(max_examples=50)
def test_a_constant_series_never_alarms(level, looks, min_drop):
    detector = CollapseDetector(looks, min_drop=min_drop)
    for step in range(looks):
        status = detector.update(step, level)
    assert not status.collapsed
    assert status.change == pytest.approx(0.0, abs=1e-12)


@given(
    kind=st.sampled_from(["null", "step", "ramp", "recovery"]), seed=st.integers(0, 10**6), scale=st.floats(0.01, 100)
)
@settings(max_examples=25)
def test_unit_and_order_of_prompts_do_not_matter(kind, seed, scale):
    run = simulate(kind, prompts=24, looks=12, onset=3, missing=0.1, seed=seed)
    order = np.random.default_rng(seed).permutation(24)
    moved = dataclasses.replace(run, values=scale * run.values[:, order])
    one, other = watch(run)[-1], watch(moved)[-1]
    assert one.alarm_step == other.alarm_step
    assert one.change == pytest.approx(other.change)


@given(
    kind=st.sampled_from(["null", "step", "slide", "recovery"]), seed=st.integers(0, 10**6), split=st.integers(1, 19)
)
@settings(max_examples=25)
def test_replay_says_what_updates_in_turn_say(kind, seed, split):
    run = simulate(kind, prompts=16, looks=20, onset=4, width=4, missing=0.2, seed=seed)
    run.values[7] = np.nan
    detector = CollapseDetector(20)
    detector.replay(run.steps[:split], run.values[:split])
    at_once = detector.replay(run.steps[split:], run.values[split:])
    one_by_one = watch(run)[-1]
    assert at_once.change_interval == pytest.approx(one_by_one.change_interval)
    for name in ("collapsed", "alarm_step", "onset_step", "onset_interval", "confirmed", "n"):
        assert getattr(at_once, name) == getattr(one_by_one, name)


@given(seed=st.integers(0, 10**6), onset=st.integers(0, 10), drop=st.floats(0.2, 0.9), width=st.integers(1, 6))
@settings(max_examples=25)
def test_the_onset_lies_in_its_interval_and_before_the_alarm(seed, onset, drop, width):
    status = watch(simulate("ramp", prompts=32, looks=16, onset=onset, drop=drop, width=width, seed=seed))[-1]
    if status.collapsed:
        low, high = status.onset_interval
        assert low <= status.onset_step <= high < status.alarm_step
    assert status.change_interval[0] <= status.change <= status.change_interval[1]
    if status.confirmed:
        assert status.collapsed
        assert status.change_interval[1] < -0.05


def test_the_same_values_give_the_same_numbers():
    run = simulate("ramp", seed=9)
    assert watch(run)[-1].as_dict() == watch(run)[-1].as_dict()


def test_more_looks_than_planned_are_judged_too():
    run = simulate("step", looks=30, onset=20, drop=0.3, seed=1)
    detector = CollapseDetector(max_looks=5)
    assert [detector.update(s, v) for s, v in zip(run.steps, run.values, strict=True)][-1].collapsed


# Error control and power, in short; benchmarks/detection.py has the figures


QUIET = {
    "null": {},
    "few prompts": {"prompts": 16},
    "wobble of 3 %": {"wobble": 0.03},
    "wobble of 3 %, many prompts": {"wobble": 0.03, "prompts": 300},
    "heavy tails": {"heavy_tails": True},
    "missing": {"missing": 0.25},
    "few looks": {"looks": 6, "wobble": 0.03},
    "drift": {"kind": "drift"},
    "dip": {"kind": "dip"},
}


@pytest.mark.parametrize("case", QUIET)
def test_quiet_runs_rarely_alarm(case):
    options = {"kind": "null"} | QUIET[case]
    kind = options.pop("kind")
    runs = [simulate(kind, seed=seed, **options) for seed in range(5000, 5120)]
    alarms = sum(CollapseDetector(len(run.steps)).replay(run.steps, run.values).collapsed for run in runs)
    assert alarms <= at_most(0.05, len(runs))


@pytest.mark.parametrize(
    ("kind", "options", "delay", "onset_error"),
    [
        ("step", {"onset": 0}, 1, 0),
        ("step", {}, 3, 0),  # later in a run a fall is lasting after the fourth look
        ("ramp", {}, 3, 1),
        ("ramp", {"heavy_tails": True}, 3, 1),
        ("ramp", {"missing": 0.25}, 3, 1),
        ("slide", {}, 6, 1.5),
        ("ramp", {"looks": 6, "prompts": 48, "onset": 0, "drop": 0.4, "width": 3, "wobble": 0.03}, 1, 0),
    ],
)
def test_lasting_falls_are_found_when_and_where_they_begin(kind, options, delay, onset_error):
    delays, errors, covered = [], [], []
    for seed in range(6000, 6060):
        run = simulate(kind, seed=seed, **options)
        status = CollapseDetector(len(run.steps)).replay(run.steps, run.values)
        assert status.collapsed
        delays.append(run.steps.index(status.alarm_step) - run.first_beyond(0.05))
        errors.append(abs(status.onset_step - run.onset_step) / 50)
        covered.append(status.onset_interval[0] <= run.onset_step <= status.onset_interval[1])
    assert np.median(delays) <= delay
    assert np.median(errors) <= onset_error
    assert np.mean(covered) >= 0.85


def test_a_drop_of_exactly_min_drop_is_rarely_confirmed():
    runs = [simulate("step", drop=0.05, seed=seed) for seed in range(7000, 7080)]
    confirmed = sum(any(status.confirmed for status in watch(run)) for run in runs)
    assert confirmed <= at_most(0.05, len(runs))


@pytest.mark.parametrize("options", [{}, {"wobble": 0.03}, {"prompts": 12}, {"looks": 6}, {"missing": 0.3}])
def test_the_change_interval_covers_the_true_change(options):
    hits = 0
    for seed in range(8000, 8150):
        run = simulate("ramp", onset=1, width=3, seed=seed, **options)
        low, high = CollapseDetector(len(run.steps)).replay(run.steps, run.values).change_interval
        hits += low <= run.change[-1] <= high
    assert 150 - hits <= at_most(0.05, 150)


def test_a_bootstrap_over_prompts_alone_would_miss_the_wobble():
    # The same prompts and noise, with and without wobble: only the looks' own scatter can tell.
    quiet, wobbly = (simulate("null", prompts=300, wobble=w, seed=11) for w in (0.0, 0.04))
    assert np.ptp(watch(wobbly)[-1].change_interval) > 2 * np.ptp(watch(quiet)[-1].change_interval)
    assert watch(wobbly)[-1].wobble == pytest.approx(0.04, rel=0.4)


# The ingredients, against slow references


@pytest.mark.parametrize(("looks", "runs"), [(6, 20_000), (21, 20_000), (60, 20_000), (MOST, 3000)])
@pytest.mark.parametrize("alpha", [0.1, 0.02])
def test_the_boundary_bounds_the_scan_of_simulated_noise(looks, runs, alpha):
    """Contrasts of all looks after a knee with all before, at every look, on white noise; up to the most looks of a run."""
    rng = np.random.default_rng(0)
    sums = np.cumsum(rng.standard_normal((runs, looks)), axis=1)
    early, late = np.full(runs, -9.0), np.full(runs, -9.0)
    for now in range(2, looks):
        for knee in range(now - 1):
            before, after = knee + 1, now - knee
            fall = sums[:, knee] / before - (sums[:, now] - sums[:, knee]) / after
            z = fall / np.sqrt(1 / before + 1 / after)
            side = early if knee == 0 else late
            np.maximum(side, z, out=side)
    for z, is_early, level in ((early, True, alpha * EARLY_SHARE), (late, False, alpha * (1 - EARLY_SHARE))):
        share = (z > critical_value(looks, alpha, is_early)).mean()
        assert share <= level + 3 * np.sqrt(level / runs)
        assert share >= level / 4  # and is not wasteful


def test_a_baseline_that_is_high_by_chance_is_judged_by_its_own_noise():
    """Of quiet runs whose noise is all in few looks before the knee, as many lie beyond a level as it says."""
    rng, beyond = np.random.default_rng(0), 0
    for _ in range(4000):
        values = np.vstack([1 + 0.5 * rng.standard_normal(25), np.ones((3, 25))])
        values[1:] += 0.01 * rng.standard_normal((3, 25))
        beyond += contrast_at_knees(values).highest_z(0.0)[0] > student.isf(0.01, 24)
    assert 0.005 < beyond / 4000 < 0.016


def test_the_boundary_rises_with_looks_and_falls_with_alpha():
    assert critical_value(6, 0.05, early=False) < critical_value(50, 0.05, early=False)
    assert critical_value(29, 0.05, early=True) < critical_value(29, 0.01, early=True)
    assert critical_value(29, 0.05, early=True) < critical_value(29, 0.05, early=False)


@pytest.mark.parametrize("lasting", [1, 2, 3])
def test_a_dip_that_recovers_within_three_looks_is_no_collapse(lasting):
    runs = [simulate("null", prompts=64, looks=21, wobble=0.005, noise=0.02, seed=seed) for seed in range(9000, 9040)]
    alarms = 0
    for run in runs:
        run.values[8 : 8 + lasting] *= 0.85
        alarms += CollapseDetector(21).replay(run.steps, run.values).collapsed
    assert alarms <= at_most(0.05, len(runs))


def test_a_fall_before_the_second_look_is_flagged_at_the_second():
    base = np.linspace(0.1, 0.6, 64)
    detector = CollapseDetector(20)
    noise = np.random.default_rng(0).normal(1, 0.01, (20, 64))
    statuses = [detector.update(step, base * noise[step] * (0.85 if step else 1.0)) for step in range(20)]
    assert (statuses[-1].alarm_step, statuses[-1].onset_step) == (2, 0)


def test_a_series_of_too_few_prompts_raises_no_alarm():
    base = np.linspace(0.1, 0.6, 8)
    few, enough = CollapseDetector(20, min_prompts=8), CollapseDetector(20, min_prompts=8)
    for step in range(20):
        fell = 0.5 if step >= 7 else 1.0
        one, other = few.update(step, fell * base[:7]), enough.update(step, fell * base)
    assert not one.collapsed
    assert one.change == pytest.approx(-0.5)
    assert other.collapsed


def test_estimate_and_interval_of_the_fit_are_those_of_a_plain_sum():
    """The posterior of single changes under white noise, by weighing every shape with numpy alone."""
    rng = np.random.default_rng(1)
    y = np.concatenate([[0.0], true_change("step", 8, 3, 0.2, 1)[1:] + 0.01 * rng.standard_normal(7)])
    fit = fit_series(range(8), y, 1e-4)
    lo, hi = fit.change_interval(0.95)
    assert lo < fit.estimate() < hi
    assert fit.estimate() == pytest.approx(y[4:].mean() - y[:4].mean(), abs=0.01)
    assert fit.onset(latest=6)[0] == 3


SHAPES = {
    "level": lambda t: 0 * t,
    "falling": lambda t: -0.4 * np.clip((t - 0.3) / 0.2, 0, 1),
    "rising": lambda t: 0.5 * t,
    "falling, then rising": lambda t: -0.4 * np.clip((t - 0.2) / 0.2, 0, 1) + 0.4 * np.clip((t - 0.6) / 0.3, 0, 1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wobble", [0.01, 0.03])
def test_the_wobble_is_found_under_any_trend(shape, wobble):
    trend = SHAPES[shape](np.linspace(0, 1, 40))
    rng = np.random.default_rng(3)
    estimates = []
    for _ in range(10):
        looks = (1 + trend) * (1 + wobble * rng.standard_normal(40))
        estimates.append(fit_series(range(40), looks / looks[0] - 1, 0.0).wobble)
    assert 0.7 * wobble < np.mean(estimates) < 1.4 * wobble


@pytest.mark.parametrize("prompts", [2, 3, 4, 5])
def test_a_change_of_few_prompts_has_no_interval(prompts):
    """The variance of so few prompts is not known: their interval could be a point, or wider than the metric."""
    detector = CollapseDetector(4)
    values = np.linspace(0.3, 0.5, prompts)
    detector.update(0, values)
    status = detector.update(1, values * 1.17)
    assert status.change == pytest.approx(0.17)
    assert np.isfinite(status.change_interval).all() == (prompts >= 5)
    assert not detector.update(2, values * 0.5).confirmed or prompts >= 5
