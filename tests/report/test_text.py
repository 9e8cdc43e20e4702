"""Hostile text is inert and visible; numbers read as they should."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.outputs.numbers import interval, number, percent
from divwatch.outputs.text import inert, shortened

STEERING = {"Cc", "Cs"}


@given(st.text(st.characters()))
def test_no_control_or_direction_character_survives(text):
    left = inert(text)
    assert not [c for c in left if unicodedata.category(c) in STEERING and c not in "\t\n"]
    assert not set(left) & set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u2028\u2029")


@given(st.text(st.characters(categories=("L", "N", "P", "Z"), exclude_characters="\u2028\u2029")))
def test_what_people_write_is_left_alone(text):
    assert inert(text) == text


@given(st.text())
def test_a_second_pass_changes_nothing(text):
    assert inert(inert(text)) == inert(text)


def test_terminal_escape_shows_as_a_sign():
    assert inert("\x1b]0;title\x07") == "␛]0;title␇"


def test_hebrew_is_kept_and_a_direction_override_is_not():
    assert inert("שלום \u202etxt.exe") == "שלום ⟨U+202E⟩txt.exe"


@given(st.text(), st.integers(0, 50))
def test_shortened_says_how_much_it_left_out(text, limit):
    shown, more = shortened(text, limit)
    assert len(shown) + more == len(text)
    assert text.startswith(shown)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-0.5, "−50_%"), (0.004, "0_%"), (-0.004, "0_%"), (0.25, "+25_%"), (float("nan"), "–"), (None, "–")],
)
def test_a_change_has_its_sign_and_nothing_has_none(value, expected):
    assert percent(value) == expected.replace("_", "\N{NO-BREAK SPACE}")


def test_an_interval_that_is_not_computable_is_empty():
    assert interval(float("nan"), 1.0) == ""
    assert number(float("nan")) == "–"
