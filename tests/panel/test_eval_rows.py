"""An eval_dataset is read within bounds, whatever it is: endless, slow, huge, or failing on the way."""

import itertools
import time

import pytest
import torch
from datasets import Dataset, IterableDataset

import divwatch
from divwatch import DivwatchError
from divwatch.panel import eval_rows
from divwatch.panel.sources import from_dataset
from tests.training import common, dataset, load_model, load_tokenizer


def row(i):
    return {"messages": [{"role": "user", "content": f"Count {i}."}, {"role": "assistant", "content": "So."}]}


def endless():
    for i in itertools.count():
        yield row(i)


def three():
    for i in range(3):
        yield row(i)


def broken():
    yield row(0)
    yield row(1)
    raise OSError("connection lost\nmore")


def read(dataset, enough=8):
    lines = []
    return [p.text for p in from_dataset(dataset, enough, lines.append)], lines


def test_watch_returns_with_an_endless_eval_dataset_and_says_how_much_it_read(tmp_path, capsys):
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=load_model(),
        args=SFTConfig(**common(tmp_path, 1)),
        train_dataset=dataset("instruct_sft", 4),
        eval_dataset=IterableDataset.from_generator(endless),
        processing_class=load_tokenizer(),
    )
    divwatch.watch(trainer, prompts=4, metrics=["ead"], background=False)
    assert (
        "divwatch: eval_dataset is a stream: read 8 rows, enough for the prompts to choose from"
        in capsys.readouterr().out
    )


def test_a_run_on_a_stream_resumes_with_the_same_prompts(tmp_path):
    from trl import SFTConfig, SFTTrainer

    from divwatch.store.run_directory import RunDirectory

    for steps in (1, 2):
        trainer = SFTTrainer(
            model=load_model(),
            args=SFTConfig(**common(tmp_path, steps, save_strategy="steps", save_steps=1)),
            train_dataset=dataset("instruct_sft", 4),
            eval_dataset=IterableDataset.from_generator(endless),
            processing_class=load_tokenizer(),
        )
        settings = {"prompts": 2, "samples": 2, "max_new_tokens": 4, "metrics": ["ead"], "background": False}
        divwatch.watch(trainer, every=1, max_overhead=0, on_error="raise", **settings)
        trainer.train(resume_from_checkpoint=steps > 1)
    assert [look["step"] for look in RunDirectory.of(tmp_path).looks()] == [0, 1, 2]


class TorchStream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return endless()

    def __len__(self):  # as some have, for a progress bar
        return 10**9


class TorchTable(torch.utils.data.Dataset):
    """A table that never raises IndexError."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return self.rows

    def __getitem__(self, i):
        return row(i)


@pytest.mark.parametrize(
    ("make", "texts", "says"),
    [
        (lambda: IterableDataset.from_generator(endless), 8, "is a stream: read 8 rows, enough"),
        (
            lambda: IterableDataset.from_generator(endless).shuffle(buffer_size=10),
            8,
            "is a stream: read 8 rows, enough",
        ),
        (TorchStream, 8, "is a stream: read 8 rows, enough"),
        (endless, 8, "is a stream: read 8 rows, enough"),
        (lambda: IterableDataset.from_generator(three), 3, "is a stream: read 3 rows, all that it has"),
        (
            lambda: IterableDataset.from_generator(broken),
            2,
            "failed after 2 rows (OSError: connection lost): the prompts are",
        ),
        (broken, 2, "failed after 2 rows"),
        (lambda: TorchTable(5), 5, None),
        (lambda: Dataset.from_list(list(three())).with_format("torch"), 3, None),
    ],
)
def test_every_kind_of_dataset_is_read_within_bounds(make, texts, says):
    data = make()
    prompts, lines = read(data() if callable(data) else data)
    assert len(prompts) == texts
    assert [says in line and "\n" not in line for line in lines] == ([True] if says else [])


def test_a_table_of_a_hundred_million_rows_is_read_evenly(monkeypatch):
    monkeypatch.setattr(eval_rows, "MOST_ROWS", 50)
    prompts, lines = read(TorchTable(100_000_000))
    assert (prompts[0], prompts[1], len(prompts)) == ("Count 0.", "Count 2000000.", 50)
    assert lines == ["eval_dataset has 100,000,000 rows: read 50 of them, evenly spaced"]
    wide = Dataset.from_list([row(i) | {"input_ids": [1] * 9} for i in range(120)])
    assert read(wide)[0] == [f"Count {i}." for i in range(0, 120, 3)]


def test_a_slow_stream_is_read_for_a_limited_time(monkeypatch):
    monkeypatch.setattr(eval_rows, "MOST_STREAM_SECONDS", 0.2)

    def slow():
        for one in endless():
            time.sleep(0.05)
            yield one

    prompts, (line,) = read(slow(), enough=1000)
    assert 1 <= len(prompts) <= 6
    assert line.startswith(f"eval_dataset is a stream: read {len(prompts)} rows, as many as ")


def test_a_stream_that_repeats_itself_ends_too(monkeypatch):
    monkeypatch.setattr(eval_rows, "MOST_STREAMED", 40)
    prompts, (line,) = read(itertools.cycle([row(0), row(1)]))
    assert (prompts, line) == (
        ["Count 0.", "Count 1."],
        "eval_dataset is a stream: read 40 rows, the most that are read",
    )


def test_several_eval_datasets_are_bounded_each_and_one_without_prompts_is_left_out():
    prompts, lines = read(
        {
            "a": IterableDataset.from_generator(endless),
            "b": Dataset.from_list([row(0)]),
            "c": Dataset.from_dict({"text": ["Once"]}),
        }
    )
    assert len(prompts) == 9
    assert lines[0].startswith("eval_dataset['a'] is a stream: read 8 rows")
    assert lines[1].startswith("eval_dataset['c'] has the columns text")
    assert lines[1].endswith("the other data sets of eval_dataset are watched")


def fails_at_once():
    raise RuntimeError("no such shard")
    yield


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (IterableDataset.from_generator(fails_at_once), r"eval_dataset cannot be read \(RuntimeError: no such shard\)"),
        (Dataset.from_list([]), "eval_dataset has no rows"),
        (iter([]), "eval_dataset has no rows"),
        (7, "eval_dataset cannot be read"),
        ([(1, 2)], "the rows of eval_dataset are of type tuple"),
        ({"one": iter([]), "two": iter([])}, r"eval_dataset\['one'\] has no rows"),
    ],
)
def test_a_dataset_that_gives_nothing_is_one_line(data, says):
    with pytest.raises(DivwatchError, match=says) as error:
        read(data)
    assert "set watch_panel" in str(error.value)


def test_data_sets_by_name_share_no_id():
    parts = {
        name: Dataset.from_list([{"id": i, "prompt": f"{name} {i}"} for i in range(3)]) for name in ("sums", "jokes")
    }
    prompts = from_dataset(parts, None)
    assert len({p.id for p in prompts}) == 6
    assert [p.id for p in prompts] == ["0", "1", "2", "jokes/0", "jokes/1", "jokes/2"]


def test_a_transform_may_read_columns_that_no_prompt_needs():
    rows = Dataset.from_list([{"id": str(i), "question": f"Why {i}?"} for i in range(3)])
    shown = rows.with_transform(lambda batch: {"prompt": batch["question"], "id": batch["id"]})
    assert read(shown)[0] == ["Why 0?", "Why 1?", "Why 2?"]
