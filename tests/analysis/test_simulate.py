"""Simulated runs hold the truth that they state."""

from __future__ import annotations

import numpy as np
import pytest

from divwatch import DivwatchError
from divwatch.analysis.simulate import KINDS, simulate, true_change


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_follows_the_true_change(kind):
    run = simulate(kind, prompts=20_000, noise=0.01, wobble=0.0, seed=1)
    means = run.values.mean(axis=1)
    assert means / means[0] - 1 == pytest.approx(run.change, abs=0.005)


@pytest.mark.parametrize("kind", ["step", "ramp", "slide", "recovery"])
def test_the_onset_is_the_last_look_at_the_baseline_level(kind):
    run = simulate(kind, onset=7)
    assert run.onset_step == run.steps[7]
    assert (run.change[:8] == 0).all()
    assert run.change[8] < 0


@pytest.mark.parametrize("kind", ["null", "drift", "dip"])
def test_nothing_falls_for_good_in_quiet_runs(kind):
    assert simulate(kind).onset_step is None


def test_noise_has_the_stated_size():
    for heavy in (False, True):
        run = simulate("null", prompts=2000, looks=40, wobble=0.0, heavy_tails=heavy, seed=2)
        assert (run.values - run.values.mean(axis=0)).std(ddof=0) == pytest.approx(0.04, rel=0.1)
    wobbly = simulate("null", prompts=20_000, looks=200, noise=0.0, wobble=0.03, seed=3).values.mean(axis=1)
    assert wobbly.std() / wobbly.mean() == pytest.approx(0.03, rel=0.2)
    slow = simulate("null", prompts=2000, looks=500, noise=0.0, wobble=0.03, persistence=0.7, seed=3).values.mean(
        axis=1
    )
    assert np.corrcoef(slow[1:], slow[:-1])[0, 1] == pytest.approx(0.7, abs=0.1)
    assert np.isnan(simulate("null", missing=0.25, seed=4).values).mean() == pytest.approx(0.25, abs=0.03)


def test_seeds_decide_everything():
    assert np.array_equal(simulate("ramp", seed=5).values, simulate("ramp", seed=5).values)
    assert not np.array_equal(simulate("ramp", seed=5).values, simulate("ramp", seed=6).values)


def test_an_unknown_kind_is_named():
    with pytest.raises(DivwatchError, match="ramp"):
        simulate("cliff")
    with pytest.raises(DivwatchError, match="ramp"):
        true_change("cliff", 3, 0, 0.1, 1)
