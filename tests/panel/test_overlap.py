"""Overlap with the training data: against a slow, obvious reference, in every TRL format, and nothing that is not there."""

import json
import os
import re
import sys
import time
import tracemalloc
from pathlib import Path

import psutil
import pytest
import torch
from datasets import Dataset, IterableDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from divwatch.errors import DivwatchError
from divwatch.panel import load_panel
from divwatch.panel.held_out import check_held_out
from divwatch.panel.overlap import NGRAM, PanelIndex, scan
from divwatch.panel.training_texts import texts_of
from divwatch.records import Prompt
from tests.servers import divide_by_zero

QUESTION = (
    "A gardener plants nineteen tulips, seven roses and twice as many daisies; a fox digs up five. "
    "How many flowers does she have left in the evening?"
)
SHORT = "Why do owls blink?"
# The middle of the question with another case and other punctuation: 13 words and no more.
DISGUISED = "SEVEN roses -- AND (twice) as many daisies... A 'fox' digs up five; how!"


def panel(*texts, task="mine"):
    return [Prompt(f"{task}/{i}", task, text) for i, text in enumerate(texts)]


def overlapping(prompts, rows, **options):
    return check_held_out(prompts, rows, **options).contaminated


# what counts


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (QUESTION, True),
        (f"Solve this: {QUESTION.upper()} Thanks!", True),
        (DISGUISED, True),
        (" ".join(DISGUISED.split()[1:]), False),  # 12 words
        (
            QUESTION.replace("fox", "mole").replace("left", "over").replace("seven", "7"),
            False,
        ),  # no 13 words running are left
        (QUESTION.replace(" ", "\n\n\t"), True),
        ("why DO  owls, blink", True),
        ("They ask: why do owls blink? Nobody knows.", True),
        ("Why do owls sleep?", False),
        ("", False),
    ],
)
def test_thirteen_words_running_count_whatever_their_case_and_punctuation(text, counts):
    rows = [{"text": "something else"}, {"text": text}]
    assert set(overlapping(panel(QUESTION, SHORT), rows).values()) == ({1} if counts else set())


def test_words_of_two_turns_are_not_running():
    words = QUESTION.split()
    rows = [{"prompt": " ".join(words[:12]), "completion": " ".join(words[12:24])}]
    assert overlapping(panel(QUESTION), rows) == {}


def turn(role, content):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    "row",
    [
        {"text": QUESTION},
        {"prompt": QUESTION, "completion": "So."},
        {"prompt": "user: " + QUESTION, "ground_truth": ["3"]},
        {"prompt": [turn("user", QUESTION)], "completion": [turn("assistant", "So.")]},
        {"messages": [turn("system", "Be brief."), turn("user", QUESTION), turn("assistant", "So.")]},
        {"messages": [turn("user", [{"type": "text", "text": QUESTION}])]},
        {"chosen": [turn("user", QUESTION), turn("assistant", "a")], "rejected": [turn("user", QUESTION)]},
        {"prompt": "Hm.", "chosen": QUESTION, "rejected": "b"},
        {"conversations": [{"from": "human", "value": QUESTION}]},
    ],
)
def test_every_trl_format_is_searched(row):
    assert overlapping(panel(QUESTION), [row]) == {"mine/0": 0}
    assert overlapping(panel(QUESTION), Dataset.from_list([{k: v for k, v in row.items()}] * 2)) == {"mine/0": 0}


def test_system_turns_are_nobodys_question():
    rows = [{"messages": [turn("system", QUESTION), turn("user", "Hm.")]}]
    assert overlapping(panel(QUESTION), rows) == {}
    prompt = Prompt("a", "mine", "Hm, well.", [turn("system", QUESTION), turn("user", "Hm, well.")])
    assert overlapping([prompt], [{"text": QUESTION}]) == {}


def test_a_prompts_question_is_looked_for_not_the_wording_around_it():
    prompt = Prompt("a", "truthfulqa", f"Q: {SHORT}\nA:", question=SHORT)
    assert overlapping([prompt], [{"text": f"I wonder: {SHORT}"}]) == {"a": 0}


def test_a_tasks_wording_is_not_overlap_but_a_whole_prompt_is():
    wording = "Please solve the following problem step by step and put the final result in a box at the very end: "
    prompts = panel(*(f"{wording} what is {i} plus {i}?" for i in range(20)))
    shared = [{"prompt": f"{wording} name a prime above {i}", "completion": "x"} for i in range(50)]
    assert overlapping(prompts, shared) == {}
    assert overlapping(prompts, [*shared, {"text": prompts[7].text.upper()}]) == {"mine/7": 50}
    long = panel(
        *(f"{wording} {QUESTION.replace('nineteen', str(i))}" for i in range(2)), task="two"
    )  # two are no rule
    assert overlapping(long, shared) == {"two/0": 0, "two/1": 0}


# against the obvious way


def obvious(prompts, rows):
    """Every 13 words (all, where there are fewer) of every prompt as a string, looked for in every row's string."""

    def padded(text):
        return " " + " ".join(re.findall(r"[a-z0-9]+", text.lower())) + " "

    hits = {}
    for prompt in prompts:
        words = padded(prompt.text).split()
        grams = [words[i : i + 13] for i in range(max(1, len(words) - 12))]
        for number, row in enumerate(rows):
            if any(f" {' '.join(gram)} " in padded(row["text"]) for gram in grams):
                hits.setdefault(prompt.id, number)
    return hits


SENTENCES = st.lists(st.sampled_from("a b A, b. c".split()), min_size=1, max_size=40).map(" ".join)


@settings(max_examples=200)
@given(st.lists(SENTENCES, min_size=1, max_size=2), st.lists(SENTENCES, max_size=6))
def test_it_finds_what_the_obvious_way_finds(texts, rows):
    rows = [{"text": text} for text in rows]
    assert scan(PanelIndex(panel(*texts)), rows).rows == len(rows)
    assert overlapping(panel(*texts), rows) == obvious(panel(*texts), rows)


@settings(max_examples=100)
@given(st.integers(0, 60), st.integers(0, 30), st.integers(14, 40))
def test_a_planted_run_is_found_at_every_offset(before, start, length):
    words = [f"w{i}" for i in range(length)]
    planted = words[min(start, length - NGRAM) :][:NGRAM]
    text = " ".join([f"x{i}" for i in range(before)] + planted + ["end"])
    assert overlapping(panel(" ".join(words)), [{"text": text}]) == {"mine/0": 0}
    assert overlapping(panel(" ".join(words)), [{"text": text.replace(planted[6], "other")}]) == {}


# the report


def test_the_report_counts_by_task_and_keeps_the_first_row():
    prompts = [*panel(QUESTION, "Name a lake.", task="one"), *panel(SHORT, task="two")]
    rows = [{"text": "x"}, {"text": SHORT}, {"text": DISGUISED}, {"text": QUESTION}]
    report = check_held_out(prompts, rows)
    assert report.contaminated == {"one/0": 2, "two/0": 1}
    assert (report.rows, report.by_task["one"].prompts, report.by_task["one"].contaminated) == (4, 2, 1)
    assert (report.by_task["one"].share, report.by_task["one"].coverage) == (0.5, 0.5)
    assert check_held_out(prompts, rows[:3]).by_task["one"].coverage == pytest.approx(13 / 27 / 2)
    assert report.line == "held out: 2 of 3 prompts overlap the 4 training rows: one 1/2, two 1/1"
    assert [p.id for p in report.held_out(prompts)] == ["one/1"]
    with pytest.raises(DivwatchError, match="all 2 prompts of the panel are in the training data"):
        report.held_out([prompts[0], prompts[2]])


def test_workers_find_the_same(tmp_path):
    rows = [{"prompt": f"row {i}", "completion": "x"} for i in range(2500)]
    rows[1300]["completion"] = DISGUISED
    rows[2400]["completion"] = DISGUISED
    rows[2499]["prompt"] = SHORT
    data = Dataset.from_list(rows)
    alone = check_held_out(panel(QUESTION, SHORT), data, cache=tmp_path / "a")
    many = check_held_out(panel(QUESTION, SHORT), data, workers=3, cache=tmp_path / "b")
    assert alone.contaminated == many.contaminated == {"mine/0": 1300, "mine/1": 2499}
    assert (alone.by_task, alone.rows) == (many.by_task, many.rows)
    assert not many.cached


def test_a_worker_that_fails_is_one_line(tmp_path):
    data = Dataset.from_dict({"prompt_ids": [[1], [2]]})
    with pytest.raises(DivwatchError, match=r"failed in a worker .*ZeroDivisionError.*watch_held_out") as error:
        check_held_out(panel(SHORT), data, workers=1, decode=divide_by_zero, cache=tmp_path)
    assert "\n" not in str(error.value)


def test_a_worker_ends_with_its_parent():
    script = """
import signal
from datasets import Dataset
from divwatch.panel.held_out import check_held_out
from divwatch.records import Prompt
rows = Dataset.from_dict({"input_ids": [[int(signal.SIGUSR1)]]})
check_held_out([Prompt("a", "a", "a")], rows, workers=1, decode=signal.sigwait)  # waits for a signal that nobody sends
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = psutil.Popen([sys.executable, "-c", script], env=environment)
    deadline = time.monotonic() + 60
    while not (workers := process.children()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(4)
    assert workers[0].is_running()
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_a_result_is_kept_by_the_fingerprints_of_panel_and_data(tmp_path):
    data = Dataset.from_list([{"text": QUESTION}])
    first = check_held_out(panel(QUESTION), data, cache=tmp_path)
    again = check_held_out(panel(QUESTION), data, cache=tmp_path)
    assert (first.cached, again.cached) == (False, True)
    assert again == first
    assert not check_held_out(panel(SHORT), data, cache=tmp_path).cached
    assert not check_held_out(panel(QUESTION), Dataset.from_list([{"text": "x"}]), cache=tmp_path).cached
    for file in tmp_path.iterdir():
        file.write_text("{")
    assert not check_held_out(panel(QUESTION), data, cache=tmp_path).cached
    (tmp_path / "file").write_text("")
    assert overlapping(panel(QUESTION), data, cache=tmp_path / "file" / "under") == {"mine/0": 0}


def test_rows_that_a_trainer_has_tokenised_are_decoded(base):
    _, tokenizer = base
    prompts = panel("Name two numbers that add up to 14.")
    data = Dataset.from_list([{"input_ids": tokenizer("So: name two numbers that add up to 14.")["input_ids"]}])
    with pytest.raises(DivwatchError, match=r"columns input_ids, none of them text.*watch_held_out: off"):
        check_held_out(prompts, data)
    lower = panel("name two numbers that add up to 14")
    assert overlapping(lower, data, decode=tokenizer.decode) == {"mine/0": 0}


def test_streams_are_searched_once_and_not_kept():
    rows = ({"text": QUESTION} for _ in range(3))
    assert check_held_out(panel(QUESTION), rows).rows == 3
    stream = IterableDataset.from_generator(lambda: ({"text": QUESTION} for _ in range(3)))
    assert overlapping(panel(QUESTION), stream, workers=2) == {"mine/0": 0}
    assert check_held_out(panel(QUESTION), Dataset.from_dict({"text": []}), workers=2).rows == 0
    with pytest.raises(DivwatchError, match="columns label, none of them text"):
        check_held_out(panel(QUESTION), iter([{"label": 1}]))


def test_memory_does_not_grow_with_the_rows():
    index = PanelIndex(panel(QUESTION, SHORT))
    texts = (f"{QUESTION} and row {i} of many" for i in range(10_000))  # 1.7 MB of text, 20 MB as words
    tracemalloc.start()
    scan(index, ({"text": text} for text in texts))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # half of it the interpreter's own store of freed tuples


# real rows


@pytest.mark.parametrize("name", ["instruct_sft", "think_sft", "instruct_dpo", "think_dpo", "instruct_rl", "think_rl"])
def test_a_prompt_of_a_dolci_row_is_found_in_its_row(name):
    if not os.environ.get("DIVWATCH_TEST_DATA"):
        pytest.skip("DIVWATCH_TEST_DATA is not set: no recorded rows")
    file = Path(os.environ["DIVWATCH_TEST_DATA"]) / "dolci" / f"{name}.jsonl"
    rows = [json.loads(line) for line in file.read_text().split("\n") if line]
    prompts = [max(texts_of(row), key=len) for row in rows]
    report = check_held_out(panel(*prompts), rows)
    assert set(report.contaminated) == {f"mine/{i}" for i in range(len(rows))}
    assert all(row <= int(id.split("/")[1]) for id, row in report.contaminated.items())


def test_the_shipped_panels_are_held_out_of_the_embedded_mixes():
    from divwatch.tiny import mixes

    for name in ("tiny", "quick"):
        _, prompts = load_panel(name)
        for mix in ("instruct_sft", "think_dpo"):
            assert overlapping(prompts, mixes.rows(mix, 0)) == {}


class Tokens(torch.utils.data.Dataset):
    """Rows as the trainers of transformers take them, without an end of their own."""

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return {"input_ids": torch.tensor([i % 5, 7]), "labels": torch.tensor([1, 1])}


class TokenStream(torch.utils.data.IterableDataset):
    def __len__(self):
        return 5

    def __iter__(self):
        return iter([{"input_ids": [7], "text": float("nan")}] * 4)


def test_a_stream_of_torch_is_read_to_its_end():
    assert check_held_out(panel("a question"), TokenStream(), workers=0, decode=str).rows == 4


def test_a_dataset_of_torch_is_read_to_its_length():
    report = check_held_out(panel("a question"), Tokens(), workers=0, decode=lambda ids: f"text {ids}")
    assert report.rows == 5


def test_rows_with_a_transform_that_does_not_pickle_are_searched_in_processes():
    rows = Dataset.from_list([{"prompt": QUESTION, "completion": "34"}] * 3).with_transform(lambda batch: batch)
    assert overlapping(panel(QUESTION), rows, workers=1) == {"mine/0": 0}
