"""Charts say the numbers they were given, are well formed, and have a name."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from divwatch.outputs.charts.area import Point, Series, ticks
from divwatch.outputs.charts.forest import Bar, forest_chart
from divwatch.outputs.charts.pipeline import Axis, Onset, Panel, pipeline_chart
from divwatch.outputs.charts.scatter import scatter_chart

values = st.floats(0, 10, allow_nan=False)


def chart(points, **options):
    panel = Panel("Diversity", [Series("think", [points])], zero=True, **options)
    return ElementTree.fromstring(
        str(pipeline_chart([panel], Axis(["SFT", "DPO"], ["150 steps", "60 steps"]), "a name"))
    )


@given(st.lists(values, min_size=2, max_size=12))
def test_the_line_goes_through_the_values(ys):
    points = [Point(2 * i / (len(ys) - 1), y, y * 0.9, y * 1.1) for i, y in enumerate(ys)]
    svg = chart(points)
    hit = svg.find(".//rect[@class='hit']").attrib
    line = svg.find(".//path[@class='line']").attrib["d"]
    drawn = [tuple(map(float, pair.split())) for pair in line[1:].split("L")]
    left, width, top, height = (float(hit[k]) for k in ("x", "width", "y", "height"))
    lo, hi = float(hit["data-lo"]), float(hit["data-hi"])
    for point, (x, y) in zip(points, drawn, strict=True):
        assert math.isclose((x - left) / width * 2, point.x, abs_tol=0.002)
        assert math.isclose(lo + (1 - (y - top) / height) * (hi - lo), point.y, abs_tol=0.001 * (hi - lo) + 1e-9)


def test_a_missing_value_breaks_the_line():
    svg = chart([Point(0, 0.4), Point(0.5, 0.3), Point(1, math.nan), Point(1.5, 0.2), Point(2, 0.1)])
    assert len(svg.findall(".//path[@class='line']")) == 2


def test_a_look_that_is_not_comparable_has_an_open_dot():
    svg = chart([Point(0, 0.4, solid=False), Point(1, 0.3)])
    assert len(svg.findall(".//circle[@class='dot open']")) == 1


def test_an_onset_has_a_line_within_its_interval():
    svg = chart([Point(0, 0.4), Point(2, 0.3)], onsets=[Onset(0.5, 0.25, 1.0)])
    group = svg.find(".//g[@class='onset s0']")
    strip, line = group.find("rect").attrib, group.find("line").attrib
    assert float(strip["x"]) < float(line["x1"]) < float(strip["x"]) + float(strip["width"])


def test_hostile_names_stay_text():
    hostile = '<script>"&\x1b'
    panel = Panel(hostile, [Series(hostile, [[Point(0, 1), Point(1, 2)]])], key=hostile)
    svg = ElementTree.fromstring(str(pipeline_chart([panel], Axis([hostile], [hostile]), hostile, hostile)))
    assert svg.attrib["aria-label"] == '<script>"&␛'
    assert not [e for e in svg.iter() if e.tag == "script"]


@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=5))
def test_bars_start_at_zero_and_end_at_their_value(rows):
    bars = [Bar(f"b{i}", -v, -v - lo, -v + hi) for i, (v, lo, hi) in enumerate(rows)]
    svg = ElementTree.fromstring(str(forest_chart([("whole", bars)], "name", "title", (-21, 11))))
    zero = float(svg.find(".//line[@class='zero']").attrib["x1"])
    scale = (380 - 128 - 14) / 32
    for bar, drawn in zip(bars, svg.findall(".//rect[@class='bar faint']"), strict=True):
        x, width = float(drawn.attrib["x"]), float(drawn.attrib["width"])
        assert math.isclose(x + width, zero, abs_tol=0.6)
        assert math.isclose(width, max(-bar.value * scale, 0.5), abs_tol=0.2)


def test_a_path_starts_with_an_open_dot_and_ends_with_a_large_one():
    series = Series("think", [[Point(0.5, 0.4), Point(0.6, 0.3), Point(0.7, 0.2)]])
    svg = ElementTree.fromstring(str(scatter_chart([series], "name", "accuracy", "diversity")))
    circles = svg.findall(".//circle")
    assert [c.attrib["class"] for c in circles] == ["dot open", "dot", "dot"]
    assert [c.attrib["r"] for c in circles] == ["5", "2", "5"]


@given(st.floats(-100, 100), st.floats(1e-3, 100))
def test_ticks_are_round_ordered_and_inside(lo, span):
    found = ticks(lo, lo + span, 4)
    assert found == sorted(set(found))
    assert 2 <= len(found) <= 9
    assert all(lo - 1e-6 * span <= t <= lo + span * (1 + 1e-6) for t in found)
    steps = {f"{b - a:.6e}" for a, b in pairwise(found)}
    assert len({re.sub(r"e.*", "", s)[:3] for s in steps}) == 1
