"""One quantity has one number and one interval wherever a person reads it: terminal, trainer log, top, report, CSV, JSON."""

import contextlib
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import divwatch
from divwatch.cli import app
from divwatch.outputs.numbers import change, number, plain
from tests.report.parsing import parse
from tests.training import SETTINGS, sft_trainer


def command(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, log history, lines in the terminal) of a short run."""
    folder = tmp_path_factory.mktemp("run")
    trainer = sft_trainer(folder / "sft", steps=3, learning_rate=5e-4)
    divwatch.watch(trainer, every=1, **SETTINGS | {"metrics": ["sbert"]})
    with contextlib.redirect_stdout(io.StringIO()) as terminal:
        trainer.train()
    return folder, trainer.state.log_history, terminal.getvalue().splitlines()


@pytest.fixture(scope="module")
def page(run):
    return json.loads(command("report", run[0], "--json"))


def one_line(element):
    return plain(" ".join(element.text.split()))


@pytest.mark.parametrize(("group", "column"), [("diversity", "change"), ("correct_diversity", "correct_change")])
def test_a_change_has_one_interval_everywhere(run, page, group, column):
    folder, log, lines = run
    (top,) = json.loads(command("top", folder, "--once", "--json"))
    level = top["levels"][group]
    expected = plain(change(level["change"], level["change_lo"], level["change_hi"]))
    csv = pd.read_csv(Path(page["tables"]) / "stages.csv").iloc[-1]
    for row in (page["stages"][-1], csv):
        assert [row[column + end] for end in ("", "_lo", "_hi")] == pytest.approx(
            [level["change"], level["change_lo"], level["change_hi"]]
        )
    (last,) = [row for row in log if row.get("step") == 3 and "collapse/all/change" in row]
    assert last[f"collapse{'_correct' if group != 'diversity' else ''}/all/change"] == pytest.approx(level["change"])
    assert expected in command("top", folder, "--once")
    (line,) = [line for line in lines if line.startswith("divwatch step 3 ")]
    assert f"{number(level['mean'])} ({expected})" in line
    assert line.split(" | ")[-2] == "no alarm"
    assert expected in command("report", folder)
    verdict = parse(Path(page["page"]).read_text()).find("section", id="verdict")[0]
    share, lo, hi = re.fullmatch(r"(\S+) % \[(.*), (.*)\]", expected).groups()
    assert f"{share} %[{lo}, {hi}]" in plain(verdict.find("tbody")[0].text).replace("] ", "]")
    card = one_line(verdict.find("article")[0])
    assert f"{share} % ({lo} to {hi} %)" in card
    kept = plain(change(1 + level["change"], 1 + level["change_lo"], 1 + level["change_hi"], signed=False))
    assert f"{kept} of " in card
    looks = [json.loads(line) for line in (folder / "sft" / "divwatch" / "looks.jsonl").read_text().splitlines()]
    assert f"{share} % ({lo} to {hi} %)" in looks[-1]["verdict"]["sentence"]
    stored = looks[-1]["tasks"]["all"][f"{group}/sbert"]
    assert level["mean"] == stored["mean"] == last[f"{group}/all/sbert"]
    assert f"{number(stored['mean'])}" in verdict.find("tbody")[0].text
