"""Levels in looks.jsonl: a curve keeps its prompts, and the curve of a stage goes on from where the stage before ended."""

import pytest

from divwatch.config import WatchConfig
from divwatch.monitor.description import describe_run
from divwatch.monitor.record import look_row
from divwatch.monitor.score_look import LookScorer, Models
from divwatch.records import Completion, Prompt
from divwatch.store.run_directory import RunDirectory

CONFIG = WatchConfig(metrics=["ead"], samples=4, prompts=3)
PROMPTS = [Prompt(str(i), "sum", f"question {i}", reference="4", verifier="gsm8k") for i in range(3)]
KEY = "correct_diversity/ead"
WIDE = ("I add and find 4", "So it has to be 4", "Two plus two makes 4", "Counting on gives 4")
NARROW = ("I add and find 4", "I add and find 4", "I add so find 4", "I add and find 4")
WRONG = ("I add and find 5",) * 4


def take(store, step, texts, models=2):
    """Stores and scores a look whose prompts answer `texts`, and returns what was logged of it."""
    pairs = [(prompt, i, text) for prompt, mine in zip(PROMPTS, texts, strict=True) for i, text in enumerate(mine)]
    store.write_completions(step, [Completion(prompt.id, prompt.task, i, text, True, 5) for prompt, i, text in pairs])
    look = LookScorer(store, PROMPTS, CONFIG, 3, Models(None, None)).score(step, 0.0)
    store.append_look(look_row(look))
    return store.looks()[-1]["tasks"]["all"][KEY]


def stage(folder, parent=None, **changes):
    store = RunDirectory(folder / "divwatch")
    config = WatchConfig(**(CONFIG.as_dict() | changes))
    store.create(
        describe_run(stage=folder.name, lineage="l", model="m", output_dir=folder, parent=parent, config=config,
                     panel={"name": "p"}, prompts=PROMPTS, max_steps=2)
    )  # fmt: skip
    return store


def test_a_prompt_that_becomes_correct_does_not_move_the_curve(tmp_path):
    store = stage(tmp_path / "sft")
    first = take(store, 0, [WIDE, NARROW, WRONG])
    second = take(store, 1, [WIDE, NARROW, NARROW])
    assert second["mean"] == pytest.approx(first["mean"])
    assert (first["n"], second["n"]) == (2, 2)


def test_a_stage_goes_on_from_the_level_at_which_the_one_before_ended(tmp_path):
    sft = stage(tmp_path / "sft")
    take(sft, 0, [WIDE, WRONG, WRONG])
    ended = take(sft, 1, [NARROW, WIDE, NARROW])
    dpo = stage(tmp_path / "dpo", parent=sft)
    assert take(dpo, 0, [NARROW, WIDE, NARROW])["mean"] == pytest.approx(ended["mean"])
    assert take(dpo, 1, [NARROW, WIDE, NARROW])["mean"] == pytest.approx(ended["mean"])


@pytest.mark.parametrize("broken", ["settings", "scores", "gone"])
def test_a_stage_whose_parent_cannot_be_compared_begins_at_its_own_mean(tmp_path, broken):
    sft = stage(tmp_path / "sft", temperature=1.0 if broken == "settings" else 0.6)
    take(sft, 0, [WIDE, WRONG, WRONG])
    take(sft, 1, [NARROW, WIDE, NARROW])
    dpo = stage(tmp_path / "dpo", parent=sft)
    if broken == "scores":
        (sft.path / "scores" / "step-00000001.parquet").write_bytes(b"torn")
    if broken == "gone":
        (sft.path / "run.json").unlink()
    alone = take(stage(tmp_path / "alone"), 0, [NARROW, WIDE, NARROW])
    assert take(dpo, 0, [NARROW, WIDE, NARROW]) == alone
