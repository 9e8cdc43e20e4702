"""Mix arithmetic on a recipe's command line: what is read, and mistakes as one line with exit status 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from divwatch import recipe
from divwatch.errors import DivwatchError
from divwatch.mixes import Selection

ROOT = Path(__file__).parents[2]


def test_the_settings_become_a_selection():
    mixing = recipe.MixArguments(mix_weight=["Evol CodeAlpaca=0.5", "a=b=2"], mix_drop=["FLAN"], mix_rows=10)
    assert recipe.selection(mixing) == Selection(weight={"Evol CodeAlpaca": 0.5, "a=b": 2.0}, drop=("FLAN",), rows=10)
    assert recipe.selection(recipe.MixArguments()) == Selection()


@pytest.mark.parametrize("told", ["FLAN", "FLAN=", "FLAN=half", "FLAN=-1", "FLAN=nan", "FLAN=inf", "=2"])
def test_what_is_no_weight_is_one_line(told):
    with pytest.raises(DivwatchError, match="is no weight: write SOURCE=FACTOR"):
        recipe.selection(recipe.MixArguments(mix_weight=[told]))


def test_no_rows_at_all_is_one_line():
    with pytest.raises(DivwatchError, match="mix_rows is 0: give a whole number of at least 1"):
        recipe.selection(recipe.MixArguments(mix_rows=0))


@pytest.mark.parametrize(
    ("recipe_file", "arguments", "says"),
    [
        (
            "dpo.py",
            ["--mix", "think_dpo", "--mix_drop", "Reddit"],
            "unknown source 'Reddit': the sources are UltraFeedback",
        ),
        ("sft.py", ["--mix", "think_sft"], "hub set allenai/Dolci-Think-SFT-7B cannot be read"),
    ],
)
def test_a_mistake_is_one_line(recipe_file, arguments, says, tmp_path):
    command = [sys.executable, f"recipes/{recipe_file}", "--model_name_or_path", "src/divwatch/tiny/base", *arguments]
    command += ["--output_dir", str(tmp_path / "out"), "--report_to", "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr[-2000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "Traceback" not in done.stderr


def test_a_model_that_cannot_be_reached_is_one_line(tmp_path):
    from types import SimpleNamespace

    training = SimpleNamespace(trust_remote_code=False)
    for name in ("allenai/Olmo-3-1025-7B", str(tmp_path)):
        model = SimpleNamespace(model_name_or_path=name, model_revision="main")
        with pytest.raises(DivwatchError, match="cannot be loaded") as error:
            recipe.load_tokenizer(recipe.MixArguments(), training, model)
        assert "\n" not in str(error.value)


def test_the_report_can_be_stored_and_read_back(tmp_path):
    from divwatch.mixes import MixReport, load_mix

    _, report = load_mix("tiny/instruct_sft", rows=40)
    assert MixReport.from_dict(json.loads(json.dumps(report.as_dict()))).as_dict() == json.loads(
        json.dumps(report.as_dict())
    )
