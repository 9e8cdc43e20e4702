"""Figures are the page's own drawings: well formed, readable without installed fonts, and inert."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from PIL import Image

from divwatch.outputs.charts.area import Point, Series
from divwatch.outputs.charts.export import SCALE, sheet, write_pdf, write_png
from divwatch.outputs.charts.intervals import Estimate, interval_chart
from divwatch.outputs.charts.pipeline import Axis, Panel, pipeline_chart

SVG = "{http://www.w3.org/2000/svg}"


def chart(title="Diversity"):
    panel = Panel(title, [Series("think", [[Point(0, 0.4, 0.3, 0.5), Point(2, 0.2, 0.1, 0.3)]])])
    return str(pipeline_chart([panel], Axis(["SFT", "DPO"]), "a name"))


def test_a_sheet_holds_the_charts_in_rows_with_resolved_colours():
    tree = ElementTree.fromstring(sheet([("one", chart()), ("two", chart()), ("three", chart())], columns=2))
    inner = tree.findall(f"{SVG}svg")
    assert [(s.get("x"), s.get("y")) for s in inner] == [("16", "36"), ("412", "36"), ("16", inner[2].get("y"))]
    assert float(inner[2].get("y")) > 36 + float(inner[0].get("height"))
    assert "var(" not in tree.find(f"{SVG}style").text
    assert "light-dark" not in tree.find(f"{SVG}style").text


def test_hostile_titles_and_names_stay_text():
    hostile = '</svg><script>"&\x1b'
    tree = ElementTree.fromstring(sheet([(hostile, chart(hostile))], columns=1, legend=[(hostile, 0, 0)], note=hostile))
    assert not [e for e in tree.iter() if e.tag.endswith("script")]
    assert sum(e.text == '</svg><script>"&␛' for e in tree.iter(f"{SVG}text")) >= 3


def test_a_png_has_the_size_of_its_sheet_and_text_in_it(tmp_path):
    svg = sheet([("", chart("Diversity"))], columns=1)
    with_text = Image.open(write_png(svg, tmp_path / "a.png")).convert("L")
    without = Image.open(write_png(re.sub(r"<text.*?</text>", "", svg), tmp_path / "b.png")).convert("L")
    root = ElementTree.fromstring(svg)
    assert with_text.size == tuple(round(SCALE * float(root.get(side))) for side in ("width", "height"))
    dark = [sum(image.histogram()[:60]) for image in (with_text, without)]
    assert dark[0] > 2 * dark[1] + 100


def test_a_pdf_embeds_its_font(tmp_path):
    content = write_pdf(sheet([("", chart())], columns=1), tmp_path / "a.pdf").read_bytes()
    assert re.search(rb"/BaseFont /\w+\+LiberationSans", content)


def test_estimates_are_marked_by_whether_their_interval_holds_0():
    rows = [
        Estimate("clear", -0.2, -0.3, -0.1, [-0.25, -0.15]),
        Estimate("unclear", 0.1, -0.1, 0.3),
        Estimate("no interval", 0.1, float("nan"), float("nan")),
    ]
    tree = ElementTree.fromstring(str(interval_chart(rows, "name", "title", "difference")))
    groups = [g.get("class") for g in tree.findall("g")]
    assert groups == ["s1", "s0", "s0"]
    assert len(tree.findall("path[@class='part']")) == 2
    assert len(tree.findall(".//path[@class='line']")) == 2
    assert "nan" not in ElementTree.tostring(tree, encoding="unicode")
