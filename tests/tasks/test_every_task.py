"""A task is one object: its wording, source, verifier and published numbers are found under its own name, everywhere."""

import pandas as pd
import pytest

from divwatch.outputs.report import write_report
from divwatch.outputs.report.summary import reference_lines
from divwatch.panel import names
from divwatch.panel.length import WINDOW, of_the_paper, token_limit
from divwatch.tasks import PAPER, TASKS, find_task, published
from divwatch.verify import get_verifier


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
class TestEveryTask:
    def test_its_wording_has_the_question_and_its_source_has_the_columns(self, task):
        prompt = task.prompt(task.example, f"{task.name}/0")
        assert prompt.task == task.name
        assert prompt.question.strip()
        assert prompt.question.split()[0] in prompt.text
        assert set(task.columns) <= set(task.example)
        assert task.hub.startswith(task.path)

    def test_its_verifier_exists(self, task):
        if task.verifier is not None:
            assert callable(get_verifier(task.verifier, unsafe_code=True))
            assert task.prompt(task.example, "0").reference is not None

    def test_it_states_a_limit_if_answers_need_an_end_and_is_measured_on_the_window_if_not(self, task):
        prompt = task.prompt(task.example, "0")
        assert prompt.needs_end == (task.verifier is not None) == (task.max_new_tokens is not None)
        assert 384 <= token_limit(prompt, None) <= 512
        assert prompt.needs_end or token_limit(prompt, None) == WINDOW
        assert token_limit(prompt, 100) == 100  # what the user sets bounds every task
        (paper,) = of_the_paper([prompt])
        assert token_limit(paper, None) == task.paper_max_new_tokens >= 512

    def test_it_is_a_panel_of_its_own_and_found_by_every_name(self, task):
        assert task.name in names()
        assert {find_task(name) for name in (task.name, task.name.upper(), *task.aliases)} == {task}


@pytest.mark.parametrize("task", PAPER, ids=lambda task: task.name)
def test_published_numbers_are_found_under_its_own_name(task):
    for line in published.LINES:
        for stage in ("base", *published.STAGES):
            value = published.sbert(line, stage, task.name)
            assert 0 < value < 1
            assert [published.sbert(line, stage, alias) for alias in task.aliases] == [value] * len(task.aliases)
            assert published.retained(line, stage, task.name) == value / task.published.base


@pytest.mark.parametrize("task", PAPER, ids=lambda task: task.name)
def test_the_terminal_prints_the_published_share_beside_the_runs_own(task):
    rows = [("think", "sft", 0, 0, 0.5), ("think", "sft", 0, 100, 0.25)]
    curves = pd.DataFrame(rows, columns=["lineage", "stage", "number", "step", "mean"])
    (line,) = reference_lines(curves.assign(task=task.name, key="diversity/sbert", status="ok"))
    share = published.retained("think", "sft", task.name)
    assert line == f"think sft kept 50% of the base on {task.name}; Olmo 3 7B kept {share:.0%}"


def test_the_report_has_every_published_number(tmp_path):
    from tests.report.worlds import THINK, write_lineage

    write_lineage(tmp_path, "think", THINK, looks=3, tasks=[task.name for task in PAPER], prompts=3, completions=False)
    page = write_report([tmp_path], tmp_path / "out")
    table = pd.read_csv(page.with_suffix("") / "references.csv")
    shown = {(row.task, row.where): row.value for row in table.itertuples()}
    expected = {
        (task.name, stage): published.sbert("think", stage, task.name)
        for task in PAPER
        for stage in ("base", "sft", "dpo")
    }
    assert shown == expected
