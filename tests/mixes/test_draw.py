"""Mix arithmetic: shares within one row, nested, reproducible, no row twice unless asked, one line where it cannot be."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from divwatch.errors import DivwatchError
from divwatch.mixes.draw import Selection, allocate, choose

COUNTS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 60), min_size=1)
WEIGHTS = st.dictionaries(st.sampled_from("abcdefg"), st.floats(0.05, 1.0))


@given(COUNTS, WEIGHTS, st.integers(1, 100))
def test_shares_are_kept_within_one_row_and_add_up(counts, weights, rows):
    assume(sum(counts.values()) >= rows)
    mass = {s: n * weights.get(s, 1.0) for s, n in counts.items()}
    taken = allocate(counts, Selection(weight=weights, rows=rows, repeat=True))
    assert sum(taken.values()) == rows
    for source, m in mass.items():
        assert abs(taken[source] - rows * m / sum(mass.values())) < 1 + 1e-6


@given(COUNTS, WEIGHTS, st.integers(1, 60), st.integers(0, 40))
def test_a_smaller_draw_is_a_part_of_a_larger_one(counts, weights, rows, more):
    labels = [s for s, n in counts.items() for _ in range(n)]
    small = choose(labels, Selection(weight=weights, rows=rows, repeat=True), seed=3)
    large = choose(labels, Selection(weight=weights, rows=rows + more, repeat=True), seed=3)
    assert not Counter(small) - Counter(large)


def test_largest_remainders_would_lose_a_row_where_the_draw_grows():
    """The Alabama paradox: with remainders the small source has 2 of 10 rows but 1 of 11."""
    counts = {"a": 6, "b": 6, "c": 2}
    taken = [allocate(counts, Selection(rows=n)) for n in range(1, 15)]
    assert all(now[s] >= before[s] for before, now in pairwise(taken) for s in counts)


@given(COUNTS, st.integers(1, 60), st.integers(0, 5))
def test_no_row_twice_and_the_same_seed_gives_the_same_rows(counts, rows, seed):
    assume(sum(counts.values()) >= rows)
    labels = [s for s, n in counts.items() for _ in range(n)]
    chosen = choose(labels, Selection(rows=rows), seed)
    assert len(set(chosen)) == len(chosen) == rows
    assert chosen == choose(labels, Selection(rows=rows), seed)


def test_seeds_differ_and_every_row_has_the_same_chance():
    labels = ["a"] * 40
    drawn = Counter(i for seed in range(400) for i in choose(labels, Selection(rows=10), seed))
    assert min(drawn.values()) > 60  # 100 expected, standard deviation 8.7
    assert max(drawn.values()) < 140


def test_a_source_keeps_its_rows_when_another_is_left_out():
    """Leave-one-out compares runs that share the rows of every other source."""
    labels = ["a", "b", "c"] * 30
    weight = {"a": 0.5, "b": 0.5, "c": 0.5}
    whole = choose(labels, Selection(weight=weight), 0)
    without = choose(labels, Selection(weight=weight, drop=("b",)), 0)
    assert without == [i for i in whole if labels[i] != "b"]


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), {"a": 60, "b": 40}),
        (Selection(drop=("a",)), {"b": 40}),
        (Selection(only=("a",)), {"a": 60}),
        (Selection(weight={"b": 0}), {"a": 60}),
        (Selection(weight={"b": 0.25}), {"a": 60, "b": 10}),
        (Selection(weight={"b": 3}, repeat=True), {"a": 60, "b": 120}),
        (Selection(weight={"b": 3}, rows=30), {"a": 10, "b": 20}),  # more of b, and rows enough: nothing repeats
        (Selection(rows=200, repeat=True), {"a": 120, "b": 80}),
    ],
)
def test_arithmetic(selection, taken):
    assert allocate({"a": 60, "b": 40}, selection) == taken


def test_repeats_come_evenly_and_only_when_asked():
    chosen = choose(["a"] * 4, Selection(weight={"a": 2.5}, repeat=True), 0)
    assert sorted(Counter(chosen).values()) == [2, 2, 3, 3]


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        (Selection(weight={"b": 3}), "source 'b' has 40 rows, 120 were asked for"),
        (Selection(rows=101), "rows, 61 were asked for"),
        (Selection(weight={"b": 9}, rows=90), "source 'b' has 40 rows"),
        (Selection(drop=("a", "b")), "leaves no rows: the sources are a, b"),
        (Selection(only=("a",), drop=("a",)), "leaves no rows"),
    ],
)
def test_what_cannot_be_is_one_line(selection, says):
    with pytest.raises(DivwatchError) as error:
        allocate({"a": 60, "b": 40}, selection)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_many_rows_are_allocated_in_seconds():
    """O(rows log sources): Instruct SFT, 2 million rows of 22 sources, takes some five seconds."""
    import time

    counts = {f"s{i}": 100_000 + i for i in range(22)}
    started = time.monotonic()
    assert sum(allocate(counts, Selection(rows=200_000)).values()) == 200_000
    assert time.monotonic() - started < 10
