"""Panels: from files, from a trainer's eval_dataset, chosen by seed and nested; a wrong one is an error with its fix."""

import json

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from divwatch.errors import DivwatchError
from divwatch.panel import choose, fingerprint, load_panel
from divwatch.panel.sources import from_dataset
from divwatch.tiny.panel import panel
from divwatch.verify.thinking import final_answer

USER = {"role": "user", "content": "Why?"}
SYSTEM = {"role": "system", "content": "Be brief."}


def said(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no prompts"),
        ("\n\n", "has no prompts"),
        ("{oops", "line 1 is not JSON"),
        ("[1]", "line 1 is not an object"),
        ('{"question": "x"}', "line 1 has neither 'prompt' nor 'messages'"),
        ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}', "id 'a' twice"),
    ],
)
def test_a_wrong_panel_file_is_one_line(tmp_path, content, says):
    file = tmp_path / "mine.jsonl"
    file.write_text(content)
    with pytest.raises(DivwatchError, match=says) as error:
        load_panel(str(file))
    assert "\n" not in str(error.value)


def test_a_missing_panel_names_the_choices(tmp_path):
    with pytest.raises(DivwatchError, match="neither a panel"):
        load_panel(str(tmp_path / "none.jsonl"))


def test_without_an_eval_dataset_the_panel_is_quick():
    name, prompts = load_panel(None, None)
    assert (name, len(prompts)) == ("quick", 96)


def test_a_panel_file_keeps_task_reference_and_verifier(tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": "2+2?", "reference": "4", "verifier": "math", "task": "sums"},
        {"messages": [SYSTEM, USER, said("no")]},
    ]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    name, (first, second) = load_panel(str(file))
    assert (name, first.task, first.reference, first.verifier, first.messages) == ("mine", "sums", "4", "math", None)
    assert (second.task, second.messages, second.text) == ("mine", [SYSTEM, USER], "Why?")


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"prompt": [USER], "completion": [said("so")]}, [USER]),
        ({"prompt": "Why?", "completion": "so"}, None),
        ({"messages": [SYSTEM, USER, said("so")]}, [SYSTEM, USER]),
        ({"chosen": [USER, said("a")], "rejected": [USER, said("b")]}, [USER]),
        ({"prompt": [USER], "chosen": [said("a")], "rejected": [said("b")]}, [USER]),
    ],
)
def test_every_trl_format_gives_its_prompt(row, asked):
    (prompt,) = from_dataset(Dataset.from_list([row, row]))
    assert prompt.messages == asked
    assert prompt.text == "Why?"


def test_an_eval_dataset_without_prompts_says_what_to_add():
    with pytest.raises(DivwatchError, match=r"columns input_ids.*watch_panel"):
        from_dataset(Dataset.from_list([{"input_ids": [1, 2]}]))


@given(st.integers(1, 300), st.integers(0, 3))
def test_a_choice_is_nested_even_and_reproducible(count, seed):
    prompts = panel()
    chosen = [p.id for p in choose(prompts, count, seed)]
    assert chosen == [p.id for p in choose(prompts, count, seed)]
    assert len(chosen) == min(count, len(prompts))
    assert set(chosen) <= {p.id for p in choose(prompts, count + 7, seed)}
    sizes = [sum(p.startswith(task + "/") for p in chosen) for task in {p.task for p in prompts}]
    assert max(sizes) - min(sizes) <= 1


def test_fingerprints_tell_panels_apart():
    prompts = panel()
    assert fingerprint(prompts) == fingerprint(panel())
    assert fingerprint(prompts) != fingerprint(prompts[1:])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think> b", "b"),
        ("a</think>b", "b"),  # the template opened the thought
        ("<think></think>b", "b"),
        ("<think>a</think><think>b", None),
        ("<think>a", None),
        ("  b ", "b"),
        ("", ""),
    ],
)
def test_reasoning_is_stripped_and_an_open_thought_has_no_answer(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"prompt": ""}', "line 1 has neither"),
        ('{"prompt": " \\n"}', "line 1 has neither"),
        ('{"prompt": 7}', "each turn needs the texts 'role' and 'content'"),
        ('{"messages": ["hi"]}', "each turn needs the texts 'role' and 'content'"),
        ('{"messages": [{"role": "user"}]}', "each turn needs the texts 'role' and 'content'"),
        (
            '{"messages": [{"role": "user", "content": null}]}',
            "each turn needs the texts 'role' and 'content'",
        ),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "line 1 has no user turn: add one"),
        ('{"prompt": "x", "verifier": "gsm9k", "reference": "1"}', "mine.jsonl: unknown verifier 'gsm9k'"),
        ('{"prompt": "x", "verifier": 3}', "'verifier' is not a name"),
    ],
)
def test_a_line_that_cannot_be_asked_or_judged_is_one_line(tmp_path, content, says):
    file = tmp_path / "mine.jsonl"
    file.write_text(content)
    with pytest.raises(DivwatchError, match=says) as error:
        load_panel(str(file))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_text_is_one_line(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DivwatchError, match="is not UTF-8"):
        load_panel(str(file))


def test_a_file_may_have_a_byte_order_mark_line_separators_and_an_id_of_zero(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('\ufeff{"prompt": "a\u2028b", "id": 0}\r\n{"prompt": "c", "id": null}\n', encoding="utf-8")
    assert [(p.id, p.text) for p in load_panel(str(file))[1]] == [("0", "a\u2028b"), ("mine/1", "c")]


def test_ids_that_an_eval_dataset_repeats_are_told_apart():
    prompts = from_dataset(Dataset.from_list([{"id": 7, "prompt": "a"}, {"id": 7, "prompt": "b"}]))
    assert [p.id for p in prompts] == ["7", "eval/1"]
    assert len(choose(prompts, 5, 0)) == 2


def test_a_dataset_given_as_panel_is_read_as_a_file_of_its_rows_is(tmp_path):
    from divwatch import WatchConfig

    rows = [{"prompt": f"What is {a} + 2?", "reference": str(a + 2), "verifier": "gsm8k"} for a in range(3)]
    file = tmp_path / "panel.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    of_file = load_panel(str(file))[1]
    for itself in (Dataset.from_list(rows), rows):
        config = WatchConfig(panel=itself)
        assert config.panel is None
        assert load_panel(config.rows)[1] == of_file
