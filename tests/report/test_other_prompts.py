"""Two stages that ask something else under the same id: the report never sets answers to different questions side by side."""

import json

import pytest

from divwatch.outputs.report import write_report
from divwatch.outputs.report.layout import lay_out
from divwatch.outputs.report.lost import lost_answers
from divwatch.outputs.report.samples import examples
from divwatch.store.tables import lineages, load_runs
from tests.report.worlds import INSTRUCT, write_lineage


@pytest.fixture
def stages(tmp_path):
    return write_lineage(tmp_path, "instruct", INSTRUCT, tasks=("pair", "word"), prompts=4, looks=3)


def ask_something_else(stage, ids):
    info = json.loads((stage / "run.json").read_text())
    for prompt in info["panel"]["prompts"]:
        if prompt["id"] in ids:
            prompt["text"] = f"another question than {prompt['id']}"
    (stage / "run.json").write_text(json.dumps(info))


def shown(stages):
    ((lineage,), _) = lay_out(lineages(load_runs(stages)))
    return examples(lineage, "diversity/sbert")


def test_answers_to_another_question_under_the_same_id_are_not_shown_beside_it(stages):
    ask_something_else(stages[1], {"pair-1", "pair-2", "pair-3"})
    looks, found = shown(stages)
    assert [example.prompt for example in found if example.task == "pair"] == ["pair question 0: give one answer."]
    assert all(column.samples for example in found for column in example.columns)
    assert lost_answers(looks, found, None).before


def test_a_stage_that_asks_none_of_the_prompts_has_no_column(stages, tmp_path):
    ask_something_else(stages[1], {f"pair-{i}" for i in range(4)})
    looks, found = shown(stages)
    (word,) = [example for example in found if example.task == "word"]
    assert lost_answers(looks, found, None).prompt == word.prompt
    ask_something_else(stages[1], {f"{task}-{i}" for task in ("pair", "word") for i in range(4)})
    looks, found = shown(stages)
    assert {example.task for example in found} == {"pair", "word"}
    for example in found:
        assert [column is not None for column in example.columns] == [look.number == 0 for look in looks]
    assert lost_answers(looks, found, None) is None
    page = write_report(stages, tmp_path / "out").read_text()
    assert "another question than" not in page
    assert "not again" not in page
