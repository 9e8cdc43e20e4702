"""The knee, against least squares done one shape at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divwatch.analysis.onset import onset_index
from divwatch.analysis.simulate import true_change


def slow_onset(series, steps):
    """Fits every knee and end by lstsq; the least residual among falls."""
    best, knee = np.inf, 0
    for k in range(len(steps) - 1):
        for e in range(k + 1, len(steps)):
            shape = np.clip((steps - steps[k]) / (steps[e] - steps[k]), 0, 1)
            design = np.column_stack([np.ones(len(steps)), shape])
            coefficients, *_ = np.linalg.lstsq(design, series, rcond=None)
            squares = np.sum((series - design @ coefficients) ** 2)
            if coefficients[1] < 0 and squares < best - 1e-9:
                best, knee = squares, k
    return knee, best


@given(seed=st.integers(0, 10**6), looks=st.integers(2, 9), onset=st.integers(0, 6), width=st.integers(1, 6))
@settings(max_examples=60)
def test_it_is_the_least_squares_knee(seed, looks, onset, width):
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(1, 100, looks)).astype(float)
    series = true_change("ramp", looks, onset, 0.4, width) + 0.05 * rng.standard_normal(looks)
    assert onset_index(series, steps) == slow_onset(series, steps)[0]


@pytest.mark.parametrize("width", [1, 4, 10])
@pytest.mark.parametrize("onset", [0, 3, 12])
def test_a_noiseless_fall_is_found_exactly(onset, width):
    series = true_change("ramp", 30, onset, 0.35, width)
    found = onset_index(series, np.arange(30.0))
    # 10 is no length that is tried: then the nearest fits, a look away at most.
    assert abs(int(found) - onset) <= (width > 8)


def test_many_series_at_once_and_a_latest_knee():
    series = np.stack([true_change("step", 10, onset, 0.3, 1) for onset in (1, 4, 7)])
    assert onset_index(series, np.arange(10.0)).tolist() == [1, 4, 7]
    assert onset_index(series, np.arange(10.0), latest=5).max() <= 5


def test_a_rise_has_no_knee():
    assert onset_index(np.linspace(0, 1, 8), np.arange(8.0)) == 0
