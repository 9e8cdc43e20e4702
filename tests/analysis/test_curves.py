"""Logged curves: on the same prompts from look to look, whatever accuracy does."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.drawn_pairs import moving_accuracy
from divwatch import CollapseDetector
from divwatch.analysis.curves import summarise_look
from divwatch.analysis.history import ALL, History
from divwatch.analysis.summary import summarise
from divwatch.records import PromptScores

KEY = "correct_diversity/sbert"


def scores_at(history, look):
    return PromptScores(history.ids, history.tasks, {key: table[look] for key, table in history.values.items()})


def up_to(history, look):
    values = {key: table[: look + 1] for key, table in history.values.items()}
    return replace(history, steps=history.steps[: look + 1], values=values, comparable=history.comparable[: look + 1])


def curve_at(history, look, task=ALL, key=KEY, logged=None):
    return summarise_look(up_to(history, look), scores_at(history, look), logged)[task].get(key)


def plain_at(history, look, task=ALL):
    return summarise(scores_at(history, look))[task][KEY]["mean"]


def run(*looks, tasks=None, comparable=None, key=KEY):
    """A history from rows of values."""
    names = tasks or ["t"] * len(looks[0])
    ids = [str(i) for i in range(len(names))]
    rows = [(i, PromptScores(ids, names, {key: row}), True if comparable is None else comparable[i])
            for i, row in enumerate(looks)]  # fmt: skip
    return History.of(rows)


NAN = float("nan")


@pytest.mark.parametrize(
    ("k", "correlation", "ends"),
    [(4, -0.6, (0.32, 0.66)), (4, -0.3, (0.68, 0.34)), (16, -0.3, (0.32, 0.66)), (16, -0.6, (0.68, 0.34))],
)
def test_accuracy_alone_moves_the_curve_by_less_than_two_per_cent(k, correlation, ends):
    moved, plain = [], []
    for seed in range(5):
        history = moving_accuracy(seed, np.linspace(*ends, 4), k, correlation=correlation)
        start = plain_at(history, 0)
        moved.append(curve_at(history, 3)["mean"] / start - 1)
        plain.append(plain_at(history, 3) / start - 1)
    assert abs(np.mean(moved)) < 0.02
    assert abs(np.mean(plain)) > 0.025  # what the plain mean does


def test_a_real_fall_is_shown_in_full_while_accuracy_rises():
    change = np.linspace(0, -0.3, 4)
    falls = []
    for seed in range(4):
        history = moving_accuracy(seed, np.linspace(0.32, 0.66, 4), 16, change=change)
        falls.append(curve_at(history, 3)["mean"] / plain_at(history, 0) - 1)
    assert np.mean(falls) == pytest.approx(-0.3, abs=0.02)


def test_where_every_prompt_has_a_value_the_curve_is_the_plain_mean():
    history = run([0.2, 0.4, NAN], [0.1, 0.3, NAN], [0.3, 0.5, NAN])
    for look in range(3):
        assert curve_at(history, look) == summarise(scores_at(history, look))[ALL][KEY]


def test_the_curve_is_the_baseline_times_one_plus_the_change_that_the_detector_reports():
    history = moving_accuracy(3, np.linspace(0.5, 0.65, 3), 16, prompts=60, tasks=5)
    for task in (ALL, "t0"):
        detector = CollapseDetector(3)
        status = detector.replay(history.steps, history.series(KEY, task))
        level = curve_at(history, 2, task)
        assert level["mean"] == pytest.approx(plain_at(history, 0, task) * (1 + status.change))
        assert level["n"] == status.n
        assert level["lo"] < level["mean"] < level["hi"]


def test_looks_without_enough_common_prompts_are_linked_through_those_between():
    """Levels fall by a tenth each look; each look shares prompts with its neighbours alone."""
    base = np.array([0.2, 0.3, 0.4, 0.5, 0.3, 0.6, 0.2, 0.4])
    present = [range(0, 4), range(2, 6), range(4, 8)]
    looks = [[base[p] * 0.9**i if p in at else NAN for p in range(8)] for i, at in enumerate(present)]
    history = run(*looks)
    assert curve_at(history, 2)["mean"] == pytest.approx(0.35 * 0.81)
    assert curve_at(history, 2)["n"] == 4
    assert curve_at(run(looks[0], looks[2]), 1) is None  # nothing links them


def test_a_look_that_cannot_be_compared_links_nothing():
    base = np.array([0.2, 0.3, 0.4, 0.5])
    looks = [[*base[:2], NAN, NAN], [NAN, *(9 * base[1:3]), NAN], [NAN, base[1], base[2], NAN]]
    assert curve_at(run(*looks, comparable=[True, False, True]), 2)["mean"] == pytest.approx(0.25)


def test_before_the_baseline_and_without_one_it_is_the_plain_mean():
    looks = [[0.2, NAN], [0.4, 0.2], [NAN, 0.1]]
    assert curve_at(run(*looks, comparable=[False, True, True]), 0)["mean"] == 0.2
    assert curve_at(run(*looks, comparable=[False, True, True]), 1)["mean"] == pytest.approx(0.3)
    assert curve_at(run(*looks, comparable=[False, True, True]), 2)["mean"] == pytest.approx(0.15)
    assert curve_at(run(*looks, comparable=[False, False, False]), 2)["mean"] == 0.1


def test_a_curve_begins_at_the_first_look_that_has_a_value():
    history = run([NAN, NAN, NAN], [0.4, 0.2, NAN], [0.2, 0.1, 0.9])
    assert curve_at(history, 0) is None
    assert curve_at(history, 1)["mean"] == pytest.approx(0.3)
    assert curve_at(history, 2)["mean"] == pytest.approx(0.15)


def test_a_baseline_at_zero_has_a_curve_too():
    assert curve_at(run([0.0, 0.0, NAN], [0.0, 0.0, 0.3]), 1)["mean"] == 0.0
    assert curve_at(run([0.0, 0.0, NAN], [0.2, 0.0, 0.3]), 1)["mean"] == pytest.approx(0.1)


def test_the_curve_goes_on_from_the_level_that_was_logged():
    history = run([0.4, 0.2, NAN], [0.2, 0.1, 0.9])
    logged = {0: {ALL: {KEY: {"mean": 0.6}}, "t": {KEY: {"mean": None}}}}
    assert curve_at(history, 1, logged=logged)["mean"] == pytest.approx(0.3)
    assert curve_at(history, 1, "t", logged=logged)["mean"] == pytest.approx(0.15)


def test_tasks_weigh_equally_and_other_quantities_are_plain_means():
    tasks = ["a", "a", "b", "b"]
    history = run([0.2, 0.2, 0.6, 0.6], [0.1, NAN, 0.6, 0.6], tasks=tasks)
    assert curve_at(history, 1)["mean"] == pytest.approx(0.4 * (0.05 + 0.6) / (0.1 + 0.6))
    quality = run([0.2, 0.4], [NAN, 0.8], key="quality/majority_at_k")
    assert curve_at(quality, 1, key="quality/majority_at_k")["mean"] == 0.8
