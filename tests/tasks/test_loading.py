"""Every task through the real loader, offline: recorded rows where there are some, else rows of our own in the schema.

A hub set stands in a local folder with the hub's own README metadata, so that config, split and columns are those asked for.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from divwatch.errors import DivwatchError
from divwatch.panel import choose, load_panel, names
from divwatch.tasks import PANELS, PAPER, TASKS
from divwatch.tasks.task import load_task, resolved_revision

RECORDED = {  # rows in the recorded file, as counted by hand with wc and tail
    "gsm8k": ("gsm8k_test.jsonl", 400), "humaneval": ("humaneval.jsonl", 164), "cruxeval": ("cruxeval.jsonl", 500),
    "ifeval": ("ifeval.jsonl", 541), "noveltybench": ("noveltybench_curated.jsonl", 100),
}  # fmt: skip
# How the paper's code ends a prompt (or begins it) on each task; the whole wording is in the doctests.
ENDS = {
    "tldr": "\nTL;DR:", "cnn_dailymail": "\nTL;DR:", "xsum": "\nTL;DR:", "humaneval": '"""\n', "mbpp": '\n"""\n',
    "cruxeval": "\n\nAnswer:", "gsm8k": "\n\nAnswer:", "math_algebra": "\n\nSolution:", "math_geometry": "\n\nSolution:",
    "truthfulqa": "?\nA:", "alpaca": "### Response:\n", "ifeval": "commas.", "writingprompts": ".\n\n", "prism": "?",
    "wildbench": ".", "noveltybench": ".",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def hub_set(folder: Path, task, rows, split=None):
    """The task, with its hub set as a folder of these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {task.config or 'default'}\n  data_files:\n"
        f"  - split: {split or task.split}\n    path: rows.jsonl\n---\n"
    )
    return replace(task, path=str(folder), revision=None)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_loads_from_its_config_and_split(tmp_path, name):
    task = hub_set(tmp_path / "set", TASKS[name], [TASKS[name].example])
    (prompt,) = load_task(task)
    assert prompt.task == name
    assert prompt.id.startswith(f"{name}/")
    assert prompt.text.endswith(ENDS[name])
    assert prompt.messages == [{"role": "user", "content": prompt.text}]
    assert prompt.question.split()[-1].strip('"') in prompt.text
    assert (prompt.verifier, prompt.stop, prompt.max_new_tokens) == (task.verifier, task.stop, task.max_new_tokens)
    assert (prompt.reference is None) == (name in ("prism", "noveltybench"))


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_rows_load(tmp_path, name):
    data = os.environ.get("DIVWATCH_TEST_DATA")
    if not data:
        pytest.skip("DIVWATCH_TEST_DATA is not set: no recorded rows")
    file, count = RECORDED[name]
    rows = [json.loads(line) for line in (Path(data) / "tasks" / file).read_text().splitlines()]
    prompts = load_task(hub_set(tmp_path / "set", TASKS[name], rows))
    assert len(prompts) == count
    assert len({p.id for p in prompts}) == count
    assert all(p.text.strip() and (p.reference or name == "noveltybench") for p in prompts)
    if name == "ifeval":  # the loader fills every kwargs with every key; only those that were given are left
        given = {str(row["key"]): row["kwargs"] for row in rows}
        assert all(p.reference["kwargs"] == given[p.id.split("/")[1]] for p in prompts)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("renamed", [False, True])
def test_a_missing_or_renamed_column_is_one_line(tmp_path, name, renamed):
    row = dict(TASKS[name].example)
    gone = TASKS[name].columns[0]
    value = row.pop(gone)
    task = hub_set(tmp_path / "set", TASKS[name], [row | ({"renamed": value} if renamed else {})])
    with pytest.raises(DivwatchError, match=f"task {name}: .* has no column {gone}; it has") as error:
        load_task(task)
    assert "\n" not in str(error.value)


def test_an_unreachable_hub_is_one_line():
    with pytest.raises(
        DivwatchError, match=r"task gsm8k: the hub cannot be reached for openai/gsm8k/main.*quick"
    ) as error:
        load_panel("gsm8k")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"split": "dev"}, r"cannot be loaded .*dev"), ({"config": "socratic"}, r"cannot be loaded .*socratic")],
)
def test_a_split_or_config_that_is_not_there_is_one_line(tmp_path, change, says):
    task = hub_set(tmp_path / "set", TASKS["gsm8k"], [TASKS["gsm8k"].example])
    with pytest.raises(DivwatchError, match=says) as error:
        load_task(replace(task, **change))
    assert "\n" not in str(error.value)


def test_an_empty_split_is_one_line(tmp_path):
    task = hub_set(tmp_path / "set", TASKS["gsm8k"], [])
    (tmp_path / "set" / "rows.jsonl").rename(tmp_path / "set" / "rows.csv")
    (tmp_path / "set" / "rows.csv").write_text("question,answer\n")
    readme = tmp_path / "set" / "README.md"
    readme.write_text(readme.read_text().replace("rows.jsonl", "rows.csv"))
    with pytest.raises(DivwatchError, match=r"task gsm8k: .* cannot be loaded .*no data") as error:
        load_task(task)
    assert "\n" not in str(error.value)


def test_rows_that_cannot_be_asked_are_left_out(tmp_path):
    example = TASKS["prism"].example
    rows = [
        example,
        example | {"conversation_id": "c1", "included_in_balanced_subset": False},
        example | {"conversation_id": "c2", "opening_prompt": " Hello! "},
        example | {"conversation_id": "c3", "opening_prompt": "Какой сегодня день?"},
        example | {"conversation_id": "c4", "opening_prompt": None},
        example | {"conversation_id": "c5", "opening_prompt": "Is fair trade fair?"},
    ]
    assert [p.id for p in load_task(hub_set(tmp_path / "a", TASKS["prism"], rows))] == ["prism/c0", "prism/c5"]
    with pytest.raises(DivwatchError, match=r"no row of .* can be used"):
        load_task(hub_set(tmp_path / "b", TASKS["prism"], rows[1:5]))


def test_at_most_500_rows_chosen_by_their_ids_whatever_the_seed_of_the_run(tmp_path):
    rows = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(700)]
    prompts = load_task(hub_set(tmp_path / "a", TASKS["gsm8k"], rows))
    again = load_task(hub_set(tmp_path / "b", TASKS["gsm8k"], rows[:650]))
    assert len(prompts) == len(again) == 500
    assert [int(p.id.split("/")[1]) for p in prompts] == sorted(int(p.id.split("/")[1]) for p in prompts)
    chosen = {p.id for p in prompts if int(p.id.split("/")[1]) < 650}
    assert chosen <= {p.id for p in again}


def test_the_named_panels_are_the_papers():
    assert len(PAPER) == 15
    assert [t.name for t in PANELS["verifiable"]] == [
        "gsm8k", "math_algebra", "math_geometry", "humaneval", "mbpp", "cruxeval",
    ]  # fmt: skip
    assert all(t.verifier is None for t in PANELS["open"])
    assert all(t.verifier for t in PANELS["verifiable"])
    assert {"quick", "tiny", "paper", "verifiable", "open"} <= set(names())


def test_revisions_are_commits_or_openly_none():
    assert [t.name for t in TASKS.values() if t.revision is None] == ["tldr"]
    assert all(len(t.revision) == 40 and int(t.revision, 16) for t in TASKS.values() if t.revision)


def test_several_panels_can_be_named_and_a_prompt_is_taken_once():
    name, prompts = load_panel("quick, tiny,quick")
    assert (name, len(prompts)) == ("quick, tiny,quick", 96 + 288)
    assert {p.task for p in choose(prompts, 10, 0)} == {p.task for p in prompts}


def test_the_quick_panels_sums_have_numbers_that_its_verifier_reads():
    from divwatch.verify import get_verifier

    _, prompts = load_panel("quick")
    sums = [p for p in prompts if p.verifier]
    assert len(sums) == 24
    assert len({p.text for p in prompts}) == len(prompts)
    for prompt in sums:
        answers = [f"So the answer is {prompt.reference}.", f"So the answer is {prompt.reference}1."]
        right, wrong = get_verifier(prompt.verifier)(answers, [prompt, prompt])
        assert right.correct
        assert not wrong.correct


@pytest.mark.parametrize(
    "info",
    [
        {"sums": {"hf://datasets/openai/gsm8k@" + "a1" * 20 + "/main/test.parquet": {}}, "files": []},
        {"sums": None, "files": [{"filename": f"/c/openai___gsm8k/main/0.0.0/{'a1' * 20}/gsm8k-test.arrow"}]},
    ],
)
def test_the_resolved_revision_is_read_from_what_the_library_noted(info):
    rows = SimpleNamespace(info=SimpleNamespace(download_checksums=info["sums"]), cache_files=info["files"])
    assert resolved_revision(rows) == "a1" * 20
    assert resolved_revision(SimpleNamespace(info=SimpleNamespace(download_checksums={}), cache_files=[])) is None
