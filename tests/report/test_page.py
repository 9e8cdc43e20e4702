"""The page: the store's numbers, nothing from outside, and completions that cannot do anything."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from divwatch.errors import DivwatchError
from divwatch.outputs.numbers import number, percent
from divwatch.outputs.report import write_report
from divwatch.outputs.report.build import build
from divwatch.outputs.report.charts import draw_charts
from divwatch.outputs.report.page import render
from divwatch.outputs.top import Follower, plain_line
from divwatch.store.run_directory import RunDirectory
from tests.report.parsing import parse
from tests.report.worlds import INSTRUCT, THINK, Course, aggregate, write_lineage

HOSTILE = [
    "<script>document.title='owned'</script>",
    "</bdi></details></main><img src=x onerror=alert(1)>",
    "<!-- ]]> --><style>body{display:none}</style>",
    "&lt;b&gt; &amp; {{ 7 * 7 }} {% raw %}",
    "\x1b[2J\x1b]8;;http://evil.example\x07click\x1b]8;;\x07",
    "\u202egnp.exe\u2066 \u200f reversed",
    "javascript:alert(1) \"' onmouseover=alert(1)",
    "nul \x00 bell \x07 tag \U000e0041",
]


def page_of(root: Path) -> str:
    """The page alone, without its figures."""
    report = build([root])
    return render(report, draw_charts(report), "title", "subtitle", "foot")


@pytest.fixture(scope="module")
def tree(page):
    return parse(page.read_text(encoding="utf-8"))


def cells(table):
    """The rows of a table as {column: text} with the interval after the value."""
    columns = [th.text for th in table.find("thead")[0].find("th")]
    rows = [row.find("th", scope="row") + row.find("td") for row in table.find("tbody")[0].find("tr")]
    return [dict(zip(columns, (c.text for c in row), strict=True)) for row in rows]


def table_of(tree, section, caption):
    found = [t for t in tree.find("section", id=section)[0].find("table") if caption in t.find("caption")[0].text]
    assert len(found) == 1
    return cells(found[0])


# what it says


def test_lineages_and_their_stages_stand_in_order(tree):
    rows = table_of(tree, "verdict", "Levels at the last comparable look")
    names = [re.sub(r" step .*", "", row["Stage"]) for row in rows]
    line = ["base", "SFT", "DPO"]
    assert names == [f"{lineage} · {stage}" for lineage in ("think", "instruct") for stage in line]


def test_levels_of_the_stages_are_the_store_s(tree, demo):
    rows = {re.sub(r" step .*", "", r["Stage"]): r for r in table_of(tree, "verdict", "Levels at the last")}
    for line in ("think", "instruct"):
        for stage, where in (("sft", 0), ("sft", -1), ("dpo", -1)):
            lines = (demo / f"{line}-{stage}" / "divwatch" / "looks.jsonl").read_text().splitlines()
            stored = json.loads(lines[where])["tasks"]["all"]
            row = rows[f"{line} · {'base' if where == 0 else stage.upper()}"]
            assert row["Diversity"].startswith(number(stored["diversity/sbert"]["mean"]))
            correct = stored["correct_diversity/sbert"]
            assert row["Correct-answer diversity"].startswith(number(correct["mean"]))
            assert row["Correct-answer diversity"].endswith(f"{correct['n']} prompts")
            assert row["Accuracy"].startswith(percent(stored["quality/accuracy"]["mean"], signed=False))


def test_changes_are_those_of_the_stage_and_shares_of_the_base_add_up(tree, page, demo):
    stages = pd.read_csv(page.with_suffix("") / "stages.csv")
    shown = {re.sub(r" step .*", "", r["Stage"]): r for r in table_of(tree, "verdict", "Levels at the last")}
    for line in ("think", "instruct"):
        # Counted apart: every prompt of this world has a value at every look, so plain means give the shares.
        levels = []
        for stage, where in (("sft", 0), ("sft", -1), ("dpo", -1)):
            file = sorted((demo / f"{line}-{stage}" / "divwatch" / "scores").iterdir())[where]
            levels.append(pd.read_parquet(file).groupby("task")["diversity/sbert"].mean())
        expected = [((b - a) / levels[0]).mean() for a, b in pairwise(levels)]
        mine = stages[(stages["lineage"] == line) & (stages["number"] >= 0)]
        assert list(mine["share"]) == pytest.approx(expected)
        for stage, change in zip(("SFT", "DPO"), mine["change"], strict=True):
            (run,) = Follower([demo / f"{line}-{stage.lower()}"]).snapshots()
            assert change == pytest.approx(run.levels["diversity"]["change"])
            assert shown[f"{line} · {stage}"]["Change in the stage"].startswith(percent(change))


def test_read_outs_hold_every_look_with_the_store_s_numbers(tree, demo):
    data = json.loads(tree.find("script", id="data")[0].text)
    looks = (demo / "think-sft" / "divwatch" / "looks.jsonl").read_text().splitlines()
    think = next(i for i, v in enumerate(data["lineages"]) if v["name"] == "think")
    drawn = data["values"]["pair"]["diversity/sbert"][think]
    for j, line in enumerate(looks):
        stored = json.loads(line)
        value = stored["tasks"]["pair"]["diversity/sbert"]
        assert data["lineages"][think]["step"][j] == stored["step"]
        assert drawn[j] == pytest.approx([value["mean"], value["lo"], value["hi"], value["n"]], rel=1e-3)


def test_the_verdict_comes_first_and_names_the_stage(tree):
    first = tree.find("main")[0].find("section")[0]
    assert first.attributes["id"] == "verdict"
    leads = [article.find("p")[0].text for article in first.find("article")]
    assert leads[0].startswith("think kept ")
    assert "is at SFT" in leads[0]
    assert leads[1].startswith("instruct kept ")
    assert "is at DPO" in leads[1]


def test_every_chart_has_a_name_and_its_section_a_table(tree):
    for section in tree.find("section"):
        charts = [svg for figure in section.find("figure") for svg in figure.find("svg")]
        assert all(svg.attributes["role"] == "img" and svg.attributes["aria-label"] for svg in charts)
        assert not charts or section.find("table"), section.attributes["id"]
    assert len(tree.find("section")) == 8


def test_duplicates_are_folded_and_counted(tmp_path):
    (made,) = write_lineage(tmp_path, "think", [Course("sft", 100)], tasks=("pair",), prompts=1, looks=2)
    for file in (made / "completions").iterdir():
        frame = pd.read_parquet(file)
        frame["answer_text"] = ["same  answer\n"] * 10 + ["same answer"] * 3 + ["other"] * 3
        frame["correct"] = [True] * 13 + [False] * 3
        frame["usable"] = True
        frame.to_parquet(file)
    column = parse(page_of(tmp_path)).find("div", class_="col")[0]
    said = [(li.attributes["class"], li.find("span", class_="times")[0].text) for li in column.find("li")]
    assert said == [("correct", "13×"), ("wrong", "3×")]
    assert "2 different texts in 16 samples, 13 correct" in column.text


# nothing from outside, nothing that acts


def test_nothing_refers_to_another_file_or_host(tree, page):
    for element in tree.find("*"):
        assert element.tag not in {"link", "iframe", "object", "embed", "img", "form", "base", "audio", "video"}
        for name, value in element.attributes.items():
            assert not name.startswith("on"), (element.tag, name)
            if name in {"src", "href", "xlink:href", "action", "srcset", "data"}:
                assert value.startswith("#")
    css = tree.find("style")[0].text
    assert "url(" not in css
    assert "@import" not in css


def test_the_policy_forbids_all_but_the_page_s_own_script(tree):
    policy = tree.find("meta", **{"http-equiv": "Content-Security-Policy"})[0].attributes["content"]
    assert policy.startswith("default-src 'none'")
    running = [s for s in tree.find("script") if s.attributes.get("type") != "application/json"]
    assert len(running) == 1
    digest = base64.b64encode(hashlib.sha256(running[0].text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_completions_prompts_and_names_are_inert_text(tmp_path):
    (made,) = write_lineage(tmp_path, "x", [Course("sft", 60)], tasks=("pair",), prompts=1, looks=2)
    meta = json.loads((made / "run.json").read_text())
    meta |= {"stage": HOSTILE[0], "line": HOSTILE[1], "model": HOSTILE[5], "mix": HOSTILE[6]}
    meta["panel"]["prompts"][0]["text"] = HOSTILE[2]
    (made / "run.json").write_text(json.dumps(meta))
    for part in ("scores", "completions"):
        for file in (made / part).iterdir():
            frame = pd.read_parquet(file)
            frame["task"] = HOSTILE[3]
            if part == "completions":
                frame["answer_text"] = (HOSTILE * 2)[: len(frame)]
            frame.to_parquet(file)
    looks = [json.loads(line) for line in (made / "looks.jsonl").read_text().splitlines()]
    for look in looks:
        look["tasks"][HOSTILE[3]] = look["tasks"].pop("pair")
        look["reason"] = HOSTILE[4]
        look["status"] = "not_comparable" if look["step"] else "ok"
    (made / "looks.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))

    html = page_of(tmp_path)
    tree = parse(html)
    texts = [bdi.text for li in tree.find("ul", class_="said")[0].find("li") for bdi in li.find("bdi")]
    assert HOSTILE[0] in texts
    assert HOSTILE[1] in texts
    assert "⟨U+202E⟩gnp.exe⟨U+2066⟩ ⟨U+200F⟩ reversed" in texts
    assert "nul ␀ bell ␇ tag ⟨U+E0041⟩" in texts
    assert len(tree.find("script")) == 2
    assert not tree.find("img")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    assert not [name for e in tree.find("*") for name in e.attributes if name.startswith("on")]


# what is missing is said


def test_a_failed_and_an_incomparable_look_are_said_with_their_reasons(tmp_path):
    course = Course("sft", 100, status={50: ("failed", "OutOfMemoryError"), 25: ("not_comparable", "41% are finished")})
    write_lineage(tmp_path, "think", [course], tasks=("pair",), prompts=4, looks=5)
    tree = parse(page_of(tmp_path))
    caution = tree.find("section", id="verdict")[0].find("div", class_="caution")[0].text
    assert "think, SFT: 1 look failed (step 50): OutOfMemoryError." in caution
    assert "think, SFT: 1 look not comparable (step 25): 41% are finished." in caution
    whole = tree.find("section", id="curves")[0]
    assert whole.find("path", class_="fail")
    assert whole.find("circle", class_="open")


def test_correct_answer_numbers_on_few_prompts_are_named(tmp_path):
    courses = [Course("sft", 100, 0.6, 0.6, 10, accuracy=(0.5, 0.02))]
    write_lineage(tmp_path, "think", courses, tasks=("pair",), prompts=20, looks=4)
    caution = parse(page_of(tmp_path)).find("div", class_="caution")[0].text
    assert re.search(r"rest on few prompts \(those with two correct\): pair \(\d of 20\)", caution)


def test_settings_that_differ_between_stages_are_a_caution(tmp_path):
    _, dpo = write_lineage(tmp_path, "think", THINK, tasks=("pair",), prompts=3, looks=2)
    meta = json.loads((dpo / "run.json").read_text())
    meta["settings"]["temperature"] = 1.0
    (dpo / "run.json").write_text(json.dumps(meta))
    assert "temperature differs between stages (0.6, 1.0)" in page_of(tmp_path)


def test_a_parent_that_is_gone_is_a_caution(tmp_path):
    sft, _ = write_lineage(tmp_path, "think", THINK, tasks=("pair",), prompts=3, looks=2)
    shutil.rmtree(sft)
    assert "its parent run" in page_of(tmp_path)


def test_a_start_that_is_not_the_base_is_named(tmp_path):
    course = Course("sft", 100, 0.6, onset=50, status={0: ("not_comparable", "8% are finished")})
    write_lineage(tmp_path, "think", [course], tasks=("pair",), prompts=6, looks=5)
    verdict = parse(page_of(tmp_path)).find("section", id="verdict")[0]
    assert "of the diversity at SFT step 25" in verdict.find("article")[0].find("p")[0].text
    assert "changes count from SFT step 25, the first comparable look" in verdict.text
    assert table_of(parse(page_of(tmp_path)), "verdict", "Levels")[0]["Stage"].startswith("think · start")


def test_a_run_that_has_not_ended_is_judged_so_far(tmp_path):
    (made,) = write_lineage(tmp_path, "think", [Course("sft", 100)], tasks=("pair",), prompts=4, looks=5)
    lines = (made / "looks.jsonl").read_text().splitlines()
    (made / "looks.jsonl").write_text("\n".join(lines[:3]) + "\n")
    verdict = parse(page_of(tmp_path)).find("section", id="verdict")[0]
    assert "no alarm so far" in verdict.find("article")[0].text
    assert "still running or ended early, the last look is at step 50 of 100" in verdict.text


@pytest.mark.parametrize("status", ["failed", "not_comparable"])
def test_a_stage_without_a_comparable_look_leaves_the_others_readable(tmp_path, status):
    lost = Course("sft", 60, status={step: (status, "why") for step in (0, 30, 60)})
    write_lineage(tmp_path, "think", [lost, Course("dpo", 60)], tasks=("pair",), prompts=4, looks=3)
    rows = table_of(parse(page_of(tmp_path)), "verdict", "Levels")
    assert "no comparable look" in rows[1]["Stage"]
    assert rows[1]["Diversity"] == "–"
    assert rows[2]["Diversity"] != "–"


def test_a_lineage_that_crosses_lines_is_counted_both_ways(tmp_path):
    think, _ = write_lineage(tmp_path, "think", THINK, tasks=("pair",), prompts=4, looks=3)
    instruct, _ = write_lineage(tmp_path, "instruct", INSTRUCT, tasks=("pair",), prompts=4, looks=3)
    meta = json.loads((instruct / "run.json").read_text())
    (instruct / "run.json").write_text(json.dumps(meta | {"parent": str(think)}))
    rows = table_of(parse(page_of(tmp_path)), "verdict", "The paper counts everything")
    counted = {row["Counted"]: row["Loss"] for row in rows}
    assert re.findall(r"[a-z]+ (?:SFT|DPO)", counted["by ancestry"]) == ["think SFT", "instruct SFT", "instruct DPO"]
    assert re.findall(r"[a-z]+ (?:SFT|DPO)", counted["as in the paper"]) == ["instruct SFT", "instruct DPO"]


def test_runs_without_a_verifier_have_a_page_too(tmp_path):
    (made,) = write_lineage(tmp_path, "think", [Course("sft", 60, 0.5, onset=10)], tasks=("story",), prompts=6, looks=4)
    for file in (made / "scores").iterdir():
        frame = pd.read_parquet(file)
        frame[["id", "task", "diversity/sbert", "quality/usable"]].to_parquet(file)
    looks = [json.loads(line) for line in (made / "looks.jsonl").read_text().splitlines()]
    kept = ("diversity/sbert", "quality/usable")
    for look in looks:
        look["tasks"] = {task: {k: values[k] for k in kept} for task, values in look["tasks"].items()}
    (made / "looks.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    tree = parse(page_of(tmp_path))
    assert "No split: it needs a verifier" in tree.find("section", id="kind")[0].text
    assert "think kept" in tree.find("section", id="verdict")[0].text


def rescore(made: Path, change) -> None:
    """Changes the stored scores of a run, change(frame, step) -> frame, and the levels in looks.jsonl with them."""
    looks = [json.loads(line) for line in (made / "looks.jsonl").read_text().splitlines()]
    for look in looks:
        file = made / "scores" / f"step-{look['step']:08d}.parquet"
        frame = change(pd.read_parquet(file), look["step"])
        frame.to_parquet(file)
        look["tasks"] = aggregate(frame.dropna(axis=1, how="all"))
    (made / "looks.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))


def small_run(root: Path, retained: float = 0.5, **options) -> Path:
    """The divwatch directory of one stage of six looks, without completions."""
    course = Course("sft", 60, retained, retained, onset=10)
    return write_lineage(root, "think", [course], tasks=("pair", "word"), looks=6, completions=False, **options)[0]


def test_the_parts_of_the_split_add_up_to_the_change_where_tasks_differ_in_size(tmp_path):
    """Of two tasks, one with more and narrower prompts, both lose half: so do all tasks together, and the parts say so."""

    def halved(frame, step):
        few = frame["task"].eq("word") & ~frame["id"].isin(["word-0", "word-1"])
        frame.loc[frame["task"] == "pair", ["diversity/sbert"]] = 0.1 if step == 0 else 0.05
        frame.loc[frame["task"] == "word", ["diversity/sbert"]] = 0.8 if step == 0 else 0.4
        for group in ("cc", "cw", "ww"):
            frame[f"pairs/{group}_distance"] = frame["diversity/sbert"].where(frame[f"pairs/{group}_count"] > 0)
        return frame[~few]

    rescore(small_run(tmp_path, prompts=10), halved)
    tables = build([tmp_path]).tables
    split = tables["split"].set_index(["task", "part"])["value"]
    assert tables["stages"]["change"].iloc[-1] == pytest.approx(-0.5)
    for task in ("all", "pair", "word"):
        assert split[task, "total"] == pytest.approx(-0.5)
        assert sum(split[task].drop("total")) == pytest.approx(split[task, "total"])


@pytest.mark.parametrize("tasks", [["pair"], ["pair", "word"]])
def test_a_base_whose_outputs_are_all_the_same_has_a_page(tmp_path, tasks):
    """Nothing can be a share of its distance, which is 0."""

    def same(frame, step):
        columns = [c for c in frame.columns if c.endswith(("/sbert", "_distance"))]
        frame.loc[frame["task"].isin(tasks), columns] *= float(step > 0)
        return frame

    rescore(small_run(tmp_path, prompts=6), same)
    tree = parse(page_of(tmp_path))
    split = build([tmp_path]).tables["split"].set_index(["task", "part"])
    assert split.loc["pair", "value"].isna().all()
    assert split.loc["pair", "distance"].notna().all()
    assert split.loc["all", "value"].isna().all() == (len(tasks) == 2)
    found = [row for row in table_of(tree, "kind", "mean pairwise distance") if row["Task"] == "pair"]
    assert {row["sum of the parts"] for row in found} == {"–"}


@pytest.mark.parametrize(
    ("metrics", "carries"),
    [
        (("ead", "distinct_answers"), "ead"),
        (("distinct_answers", "vendi"), "vendi"),
        (("sbert", "ead", "distinct_answers"), "ead"),  # sbert has no value: the encoder cannot read the outputs
    ],
)
def test_the_metric_of_the_page_is_the_one_that_carries_the_alarm(tmp_path, metrics, carries):
    def measured(frame, step):
        kept = [c for c in frame.columns if c.split("/")[0] not in ("diversity", "correct_diversity", "pairs")]
        kept += [f"{group}/{m}" for group in ("diversity", "correct_diversity") for m in metrics]
        frame[["diversity/sbert", "correct_diversity/sbert"]] = float("nan")
        return frame[kept]

    rescore(small_run(tmp_path, prompts=8), measured)
    report = build([tmp_path])
    assert report.primary == report.findings[0].whole.primary == carries
    assert "think kept" in (text := parse(page_of(tmp_path)).find("section", id="verdict")[0].text)
    assert "Diversity fell by" in text or "Correct answers narrowed" in text
    assert report.tables["stages"]["change"].notna().any()


def test_without_a_metric_that_carries_an_alarm_the_page_says_so(tmp_path):
    def measured(frame, step):
        return frame[["id", "task", "diversity/distinct_answers", "quality/accuracy", "quality/usable"]]

    rescore(small_run(tmp_path, prompts=6), measured)
    text = parse(page_of(tmp_path)).find("section", id="verdict")[0].text
    assert "none of sbert, vendi, ead was measured" in text
    assert "Add one of sbert, vendi, ead to watch_metrics" in text
    assert "watch_max_new_tokens" not in text


def test_a_verdict_is_marked_by_the_alarm_that_it_rests_on(tmp_path):
    """All outputs narrow for certain; correct ones did and came back: the same mark on the page and in `top`."""
    course = Course("sft", 90, 0.95, 1.0)
    (made,) = write_lineage(tmp_path, "think", [course], tasks=("pair", "word"), prompts=8, looks=10, completions=False)

    def change(frame, step):
        frame["diversity/sbert"] *= 0.3 if step else 1.0
        frame["correct_diversity/sbert"] *= 0.4 if 0 < step <= 60 else 1.0
        return frame

    rescore(made, change)
    (verdict,) = [row["Verdict"] for row in table_of(parse(page_of(tmp_path)), "verdict", "Levels") if row["Verdict"]]
    assert verdict == "narrowing among correct answers, unconfirmed"
    (one,) = Follower([tmp_path]).snapshots()
    assert any(row["confirmed"] for row in one.falling)
    assert "narrowing among correct answers, unconfirmed" in plain_line(one, "think")


def test_an_empty_run_says_so_in_one_line(tmp_path):
    (made,) = write_lineage(tmp_path, "think", [Course("sft", 60)], tasks=("pair",), prompts=2, looks=2)
    (made / "looks.jsonl").write_text("")
    with pytest.raises(DivwatchError, match="no finished look in") as error:
        write_report([tmp_path])
    assert "\n" not in str(error.value)


# what is written


def test_figures_and_tables_lie_beside_the_page(page):
    made = {path.name: path for path in page.with_suffix("").iterdir()}
    for name in ("lineage", "tasks", "split", "quality"):
        assert made[f"{name}.png"].read_bytes().startswith(b"\x89PNG")
        assert made[f"{name}.pdf"].read_bytes().startswith(b"%PDF")
    for name in ("curves", "stages", "onsets", "changes", "split", "cost", "looks"):
        assert len(pd.read_csv(made[f"{name}.csv"])) > 0


@pytest.mark.parametrize(
    ("out", "expected"), [(None, "report.html"), ("x/mine.html", "x/mine.html"), ("y", "y/report.html")]
)
def test_the_page_goes_where_it_was_asked_to(tmp_path, out, expected):
    write_lineage(tmp_path / "runs", "think", [Course("sft", 60)], tasks=("pair",), prompts=2, looks=2)
    made = write_report([tmp_path / "runs"], None if out is None else tmp_path / out)
    assert made == (tmp_path / "runs" / expected if out is None else tmp_path / expected)
    assert made.is_file()


def test_a_place_that_cannot_be_written_is_one_line(demo, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DivwatchError, match="cannot write the report to"):
        write_report([demo], tmp_path / "file" / "page.html")


def test_the_same_runs_give_the_same_page(tmp_path):
    write_lineage(tmp_path, "think", THINK, tasks=("pair",), prompts=3, looks=3)
    assert page_of(tmp_path) == page_of(tmp_path)


# which outputs count, what was held out, what was trained on


@pytest.fixture(scope="module")
def partial_run(tmp_path_factory):
    """A stage whose last look was not scored, with thoughts cut, answers not judged, prompts dropped and a mix."""
    root = tmp_path_factory.mktemp("partial_run")
    course = Course("sft", 100, status={100: ("unscored", "training ended before it was scored")})
    (run,) = write_lineage(root, "think", [course], looks=5, tasks=("gsm8k", "mbpp"))
    looks = [json.loads(line) for line in (run / "looks.jsonl").read_text().splitlines()]
    for look in looks:
        if look["status"] == "unscored":
            look.pop("tasks", None)
            (run / "scores" / f"step-{look['step']:08d}.parquet").unlink(missing_ok=True)
            look["seconds"] = {}
        else:
            look |= {"usable_share": 0.9, "finished_share": 0.95, "closed_share": look["step"] / 500}
            look["unjudged"] = {"no sandbox": 12} if look["step"] == 75 else {}
    (run / "looks.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    info = json.loads((run / "run.json").read_text())
    task = {"prompts": 8, "contaminated": 0, "coverage": 0.0}
    info["held_out"] = {
        "contaminated": {"mbpp-3": 17},
        "rows": 4000,
        "by_task": {"gsm8k": task, "mbpp": task | {"contaminated": 1}},
    }
    sources = {"wild": {"read": 900, "usable": 890, "taken": 300, "dropped": {"no messages": 10}, "mended": {}}}
    sources["tulu"] = {"read": 100, "usable": 100, "taken": 100, "dropped": {}, "mended": {}}
    info["mix"] = {"name": "mine", "kind": "sft", "seed": 0, "sources": sources}
    (run / "run.json").write_text(json.dumps(info))
    return parse(page_of(root))


def test_a_look_that_was_not_scored_is_said_and_counts_for_nothing(partial_run):
    caution = partial_run.find("div", class_="caution")[0].text
    assert "1 look stored but not scored (step 100): training ended before it was scored." in caution
    (row,) = table_of(partial_run, "cost", "How long training waited")
    assert (row["Looks"], row["Failed"], row["Not scored"]) == ("5", "0", "1")


def test_cut_thoughts_and_unjudged_answers_are_said(partial_run):
    caution = partial_run.find("div", class_="caution")[0].text
    assert "up to 15 % of the thoughts were closed by force" in caution.replace("\N{NO-BREAK SPACE}", " ")
    assert "answers were not judged and count as neither right nor wrong: no sandbox (12)." in caution
    base, end = table_of(partial_run, "quality", "Which completions count")
    assert (base["Not judged"], base["Step"]) == ("0", "0")
    assert end["Not judged"].startswith("12")
    assert end["Step"] == "75"


def test_the_search_for_the_panel_in_the_training_data_and_the_mix_have_tables(partial_run):
    (row,) = table_of(partial_run, "settings", "Held out")
    assert (row["Training rows"], row["Prompts checked"], row["Overlap"]) == ("4,000", "16", "1 dropped")
    assert row["By task"] == "mbpp 1 of 8"
    rows = table_of(partial_run, "settings", "The training data")
    assert [(r["Source"], r["Trained on"], r["Share"].replace("\N{NO-BREAK SPACE}", " ")) for r in rows] == [
        ("wild", "300", "75 %"), ("tulu", "100", "25 %"),
    ]  # fmt: skip
    assert rows[0]["Dropped"] == "no messages 10"
    assert "mix.sources" not in partial_run.find("section", id="settings")[0].text


@pytest.fixture
def one_stage(tmp_path):
    """A run that narrows, with its checkpoints and what its trainer logged."""
    (run,) = write_lineage(tmp_path, "think", [Course("sft", 150, 0.4, 0.3, 90)], prompts=12, looks=16)
    for step in (30, 140, 150):
        (run.parent / f"checkpoint-{step}").mkdir()
    history = [{"step": step, "loss": 2 - step / 150, "lr": 1e-4} for step in range(1, 151)]
    RunDirectory(run).write_training(history)
    return run


def test_curve_loss_lost_answers_and_next_steps_stand_beside_the_verdict(one_stage):
    (article,) = parse(page_of(one_stage.parent)).find("section", id="verdict")[0].find("article")
    (figure,) = article.find("figure")
    label = figure.find("svg")[0].attributes["aria-label"]
    assert label == "think: Diversity; dashed: of correct answers, Training loss over SFT"
    text = " ".join(article.text.split())
    assert "Lost answers" in text
    assert "different answers in 16 samples, now" in text
    commands = [code.text for code in article.find("code")]
    run, checkpoints = one_stage.parent, [f"{one_stage.parent}/checkpoint-{step}" for step in (30, 140, 150)]
    assert commands[0].endswith(f"{' '.join(checkpoints)} --like {run}")
    assert re.search(r"Go back to checkpoint-30 \(the fall begins after step \d+\)", text)
    assert checkpoints[0] in commands[1]
    assert commands[2].startswith(f"divwatch measure {checkpoints[0]} AVERAGE --like {run}")
    assert text.count("arXiv") == 3  # each step names its source


def test_the_loss_of_a_run_without_a_record_of_it_comes_from_its_last_checkpoint(one_stage):
    (one_stage / "training.json").unlink()
    states = {30: [{"step": 30, "loss": 3.0}], 90: [{"step": 30, "loss": 3.0}, {"step": 90, "reward": 0.5}]}
    for place, (step, log) in enumerate(states.items()):
        path = one_stage.parent / f"checkpoint-{step}" / "trainer_state.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"log_history": log}))
        os.utime(path, (place, place))
    assert RunDirectory(one_stage).training() == [{"step": 30, "loss": 3.0}, {"step": 90, "reward": 0.5}]
    (one_stage.parent / "checkpoint-90" / "trainer_state.json").write_text('{"log_hist')  # half written
    os.utime(one_stage.parent / "checkpoint-90" / "trainer_state.json", (9, 9))
    assert RunDirectory(one_stage).training() == [{"step": 30, "loss": 3.0}]


def test_a_run_without_an_alarm_is_told_to_continue(tmp_path):
    write_lineage(tmp_path, "think", [Course("sft", 60)], tasks=("pair",), prompts=8, looks=4)
    (article,) = parse(page_of(tmp_path)).find("section", id="verdict")[0].find("article")
    assert "Nothing: continue." in article.text
    assert not article.find("code")
