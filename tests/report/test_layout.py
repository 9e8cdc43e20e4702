"""Lineages share one axis of stages, whatever stages they have."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.outputs.report.layout import lay_out, slot_lengths
from divwatch.store.tables import LOOK_COLUMNS, MEAN_COLUMNS, RunTables

STAGES = ["sft", "dpo", "rlvr"]


def run(stage, line="think", lineage="demo", steps=100, folder=None):
    looks = pd.DataFrame({c: [] for c in LOOK_COLUMNS})
    means = pd.DataFrame({c: [] for c in MEAN_COLUMNS})
    meta = {"stage": stage, "line": line, "lineage": lineage}
    directory = Path("/runs") / (folder or f"{line}-{stage}") / "divwatch"
    return RunTables(directory, meta, steps, looks, means, pd.DataFrame(), [])


orders = st.lists(st.sampled_from(STAGES), unique=True, min_size=1).map(lambda s: sorted(s, key=STAGES.index))


@given(st.lists(orders, min_size=1, max_size=6))
def test_every_lineage_keeps_its_own_order_on_the_common_axis(orders):
    chains = [[run(s, folder=f"{i}-{s}") for s in order] for i, order in enumerate(orders)]
    made, slots = lay_out(chains)
    assert len(set(slots)) == len(slots)
    for lineage, order in zip(made, orders, strict=True):
        assert lineage.slots == sorted(lineage.slots)
        assert [slots[i] for i in lineage.slots] == order


@given(st.integers(0, 300))
def test_a_look_stands_within_the_slot_of_its_stage(step):
    (lineage,), _ = lay_out([[run("sft", steps=200), run("dpo", steps=50)]])
    assert 0 <= lineage.x(0, step) <= 1 <= lineage.x(1, step) <= 2


@pytest.mark.parametrize(
    ("chains", "names"),
    [
        ([[run("sft")], [run("sft", "instruct")]], ["think", "instruct"]),
        ([[run("sft", "", "a")], [run("sft", "", "b")]], ["a", "b"]),
        ([[run("sft", "x", "l", folder="s0")], [run("sft", "x", "l", folder="s1")]], ["s0", "s1"]),
        ([[run("sft", "x", "l", folder="s0")], [run("sft", "x", "l", folder="s0")]], ["runs/s0", "runs/s0 (2)"]),
    ],
)
def test_names_tell_lineages_apart(chains, names):
    assert [lineage.name for lineage in lay_out(chains)[0]] == names


def test_a_stage_name_that_comes_twice_gets_its_line():
    chains = [[run("sft"), run("dpo")], [run("sft"), run("sft", "instruct"), run("dpo", "instruct")]]
    made, slots = lay_out(chains)
    assert made[1].stages == ["think sft", "instruct sft", "instruct dpo"]
    assert slots.index("think sft") < slots.index("instruct sft") < slots.index("instruct dpo")


def test_many_seeds_of_one_line_share_its_colour():
    chains = [
        [run("sft", line, f"{line}-s{i}", folder=f"{line}{i}")] for line in ("think", "instruct") for i in range(5)
    ]
    made, _ = lay_out(chains)
    assert [lineage.colour for lineage in made] == [0] * 5 + [1] * 5
    assert all(lineage.thin for lineage in made)


def test_lengths_are_said_as_one_number_or_a_range():
    chains = [
        [run("sft", steps=1500), run("dpo", steps=60)],
        [run("sft", "instruct", steps=1500), run("dpo", "instruct", steps=100)],
    ]
    made, slots = lay_out(chains)
    assert slot_lengths(made, slots) == ["1,500 steps", "60–100 steps"]
