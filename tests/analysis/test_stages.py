"""Stage attribution: the paper's own numbers, exact bookkeeping, intervals that cover."""

from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divwatch import DivwatchError, stage_attribution
from divwatch.tasks import PAPER, find_task
from divwatch.tasks import published as reference

LINES = {
    "think": {"base": "Base", "sft": "Think-SFT", "dpo": "Think-DPO", "rl": "Think"},
    "instruct": {"base": "Base", "sft": "Instruct-SFT", "dpo": "Instruct-DPO", "rl": "Instruct"},
}
ORDER = ["base", "sft", "dpo", "rl"]


@pytest.fixture(scope="module")
def published():
    """model -> task -> diversity, the paper's table 3."""
    folder = os.environ.get("DIVWATCH_TEST_DATA")
    if not folder:
        pytest.skip("DIVWATCH_TEST_DATA is not set: the paper's tables are not here")
    with (Path(folder) / "paper" / "sbert.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return {row.pop("model"): {task: float(value) for task, value in row.items()} for row in rows}


@pytest.mark.parametrize(
    ("line", "shares", "retained"), [("think", (-62, -4, 4), 38), ("instruct", (-38, -23, -5), 34)]
)
def test_the_papers_table_1_follows_from_its_table_3(published, line, shares, retained):
    values = {stage: published[model] for stage, model in LINES[line].items()}
    found = stage_attribution(values, order=ORDER)
    assert [round(100 * found.share[stage]) for stage in ORDER[1:]] == list(shares)
    assert 100 * found.retained == pytest.approx(retained, abs=0.51)  # the paper rounds 37.5 to 38 and 34.5 to 34
    assert found.first_collapse == "sft"
    assert found.interval is None


def test_the_reference_holds_the_papers_table_3(published):
    names = {find_task(column).name: column for column in published["Base"]}
    assert set(names) == {task.name for task in PAPER}
    for line, models in LINES.items():
        for stage, model in models.items():
            for name, task in names.items():
                assert reference.sbert(line, stage, name) == published[model][task]
                assert reference.sbert(line, stage, task) == published[model][task]
    zero = [model for model in published if model.startswith("RL-Zero")]
    kept = np.mean([[published[model][task] / published["Base"][task] for task in names.values()] for model in zero])
    assert reference.retained("rl_zero", "rl") == pytest.approx(kept, abs=0.005)


def test_what_olmo_kept():
    assert round(reference.retained("instruct", "sft", "gsm8k"), 2) == 0.61
    assert reference.retained("think", "base", "gsm8k") == 1.0
    assert round(reference.retained("think", "sft"), 2) == 0.38
    assert reference.retained("think", "sft", "my_task") is None
    assert reference.retained("think", "ppo") is None
    assert reference.retained("rl_zero", "sft") is None
    with pytest.raises(DivwatchError, match="instruct"):
        reference.retained("chat", "sft")


def per_prompt(rng, losses, prompts=40, noise=0.04, tasks=("a", "b", "c")):
    """stage -> task -> values whose mean share is known: stage s loses losses[s] of the base."""
    level = {task: rng.uniform(0.1, 0.6, prompts) for task in tasks}
    kept, values = 1.0, {}
    for stage, loss in losses.items():
        kept -= loss
        values[stage] = {task: kept * level[task] + noise * rng.standard_normal(prompts) for task in tasks}
    return values


@given(seed=st.integers(0, 10**6), missing=st.floats(0, 0.3))
@settings(max_examples=20)
def test_shares_add_up_and_prompts_are_paired(seed, missing):
    rng = np.random.default_rng(seed)
    values = per_prompt(rng, {"base": 0.0, "sft": 0.3, "dpo": 0.1, "rl": -0.05})
    for tasks in values.values():
        for column in tasks.values():
            column[rng.random(column.size) < missing] = np.nan
    found = stage_attribution(values, ORDER)
    assert sum(found.share.values()) == pytest.approx(found.retained - 1)
    for task in "abc":
        table = np.column_stack([values[stage][task] for stage in ORDER])
        kept = table[~np.isnan(table).any(axis=1)].mean(axis=0)
        assert found.prompts[task] == (~np.isnan(table).any(axis=1)).sum()
        assert [found.task_share[s][task] for s in ORDER[1:]] == pytest.approx((np.diff(kept) / kept[0]).tolist())
        assert found.task_retained[task] == pytest.approx(kept[-1] / kept[0])
    for stage in ORDER[1:]:
        assert found.interval[stage][0] <= found.share[stage] <= found.interval[stage][1]
        assert found.share[stage] == pytest.approx(np.mean(list(found.task_share[stage].values())))


def test_intervals_cover_the_true_share():
    hits = {"sft": 0, "dpo": 0, "kept": 0}
    for seed in range(150):
        values = per_prompt(np.random.default_rng(seed), {"base": 0.0, "sft": 0.3, "dpo": 0.1}, prompts=24)
        found = stage_attribution(values, ["base", "sft", "dpo"])
        hits["sft"] += found.interval["sft"][0] <= -0.3 <= found.interval["sft"][1]
        hits["dpo"] += found.interval["dpo"][0] <= -0.1 <= found.interval["dpo"][1]
        hits["kept"] += found.retained_interval[0] <= 0.6 <= found.retained_interval[1]
    assert all(hit >= 133 for hit in hits.values())  # 0.95 of 150, less what happens once in a thousand times


def test_collapse_begins_where_the_whole_interval_is_beyond_min_drop():
    rng = np.random.default_rng(1)
    sure = per_prompt(rng, {"base": 0.0, "sft": 0.0, "dpo": 0.3}, prompts=60)
    unsure = per_prompt(rng, {"base": 0.0, "sft": 0.08}, prompts=6, noise=0.1)
    assert stage_attribution(sure, ["base", "sft", "dpo"]).first_collapse == "dpo"
    assert stage_attribution(unsure, ["base", "sft"]).first_collapse is None
    means = {stage: {task: float(v.mean()) for task, v in tasks.items()} for stage, tasks in sure.items()}
    assert stage_attribution(means, ["base", "sft", "dpo"], min_drop=0.5).first_collapse is None


def test_checkpoint_wobble_widens_the_intervals():
    values = per_prompt(np.random.default_rng(2), {"base": 0.0, "sft": 0.2}, prompts=400)
    bare, wide = (stage_attribution(values, ["base", "sft"], wobble=w).interval["sft"] for w in (0.0, 0.03))
    assert np.ptp(wide) > 2 * np.ptp(bare)


def test_by_default_intervals_hold_a_wobble_of_one_per_cent():
    held = bare = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = per_prompt(rng, {"base": 0.0, "sft": 0.2}, prompts=200)
        for stage in values:
            shared = 1 + 0.01 * rng.standard_normal()
            values[stage] = {task: column * shared for task, column in values[stage].items()}
        (lo, hi), (low, high) = (
            stage_attribution(values, ["base", "sft"], **given).interval["sft"] for given in ({}, {"wobble": 0})
        )
        held, bare = held + (lo <= -0.2 <= hi), bare + (low <= -0.2 <= high)
    assert held / 60 >= 0.9
    assert bare / 60 < 0.85


def test_each_stage_may_have_a_wobble_of_its_own():
    values = per_prompt(np.random.default_rng(2), {"base": 0.0, "sft": 0.2, "dpo": 0.2}, prompts=400)
    order = ["base", "sft", "dpo"]
    one, other = (
        stage_attribution(values, order, wobble={"base": 0.0, "sft": 0.0, "dpo": dpo}).interval for dpo in (0.0, 0.05)
    )
    assert other["sft"] == one["sft"]
    assert np.ptp(other["dpo"]) > 2 * np.ptp(one["dpo"])


def test_only_tasks_that_every_stage_has_count():
    found = stage_attribution({"base": {"a": 1.0, "b": 1.0}, "sft": {"a": 0.5}}, ["base", "sft"])
    assert found.share == {"sft": -0.5}
    assert list(found.task_retained) == ["a"]


@pytest.mark.parametrize(
    ("values", "order", "message"),
    [
        ({"base": {"a": 1.0}}, ["base", "sft"], "no values for stage 'sft'"),
        ({"base": {"a": 1.0}}, ["base"], "at least one stage"),
        ({"base": {"a": 1.0}, "sft": {"b": 1.0}}, ["base", "sft"], "no task"),
        ({"base": {"a": 0.0}, "sft": {"a": 1.0}}, ["base", "sft"], "above 0"),
        ({"base": {"a": [0.1, 0.2]}, "sft": {"a": [0.1]}}, ["base", "sft"], "same prompts"),
        ({"base": {"a": [0.1, np.nan]}, "sft": {"a": [np.nan, 0.1]}}, ["base", "sft"], "no prompt"),
    ],
)
def test_wrong_input_is_one_line(values, order, message):
    with pytest.raises(DivwatchError, match=message) as raised:
        stage_attribution(values, order)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("n", [2, 4, 5, 7])
def test_retained_diversity_is_never_below_0_and_few_prompts_have_no_interval(n):
    base, collapsed = np.full(n, 0.5), np.zeros(n)
    collapsed[0] = 0.4
    loss = stage_attribution({"base": {"a": base}, "sft": {"a": collapsed}}, ["base", "sft"])
    lo, hi = loss.retained_interval
    assert np.isnan(lo) == np.isnan(hi) == np.isnan(loss.interval["sft"][0]) == (n < 5)
    assert not lo < 0
    assert loss.first_collapse == "sft" or n >= 5


def test_resamples_whose_base_has_no_diversity_are_left_out_without_a_warning():
    values = {"base": {"sums": [0.0] * 9 + [0.5]}, "sft": {"sums": [0.0] * 9 + [0.4]}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = stage_attribution(values, ["base", "sft"], wobble=0.0)
    assert result.interval["sft"] == pytest.approx((-0.2, -0.2))
    assert result.retained_interval == pytest.approx((0.8, 0.8))
