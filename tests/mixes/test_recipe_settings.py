"""Mix arithmetic on a recipe's command line: what is read, and mistakes in one line each."""

import json

import pytest

from divwatch import recipe
from divwatch.errors import DivwatchError
from divwatch.mixes import Selection


def test_the_settings_become_a_selection():
    mixing = recipe.MixArguments(mix_weight=["Evol CodeAlpaca=0.5", "a=b=2"], mix_drop=["FLAN"], mix_rows=10)
    assert recipe.selection(mixing) == Selection(weight={"Evol CodeAlpaca": 0.5, "a=b": 2.0}, drop=("FLAN",), rows=10)
    assert recipe.selection(recipe.MixArguments()) == Selection()


@pytest.mark.parametrize("told", ["FLAN", "FLAN=", "FLAN=half", "FLAN=-1", "FLAN=nan", "FLAN=inf", "=2"])
def test_what_is_no_weight_is_one_line(told):
    with pytest.raises(DivwatchError, match="is not a weight: write SOURCE=FACTOR"):
        recipe.selection(recipe.MixArguments(mix_weight=[told]))


def test_no_rows_at_all_is_one_line():
    with pytest.raises(DivwatchError, match="mix_rows is 0: give a whole number of at least 1"):
        recipe.selection(recipe.MixArguments(mix_rows=0))


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
