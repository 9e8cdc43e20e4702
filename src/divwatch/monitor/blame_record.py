"""Blame of a running training, on rank 0: what each look found is stored, and summed up over the looks so far."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from divwatch.blame.data import TrainingData
from divwatch.blame.look import BlameLook
from divwatch.blame.offline import Measured
from divwatch.blame.result import conclude, to_json
from divwatch.blame.trace import Checkpoint, learning_rates, share_of_learning
from divwatch.blame.weights import PromptDiversity
from divwatch.store.run_directory import RunDirectory

LENGTH = 2000  # characters of a row's text


def add_blame(
    store: RunDirectory,
    step: int,
    measured: Measured,
    data: TrainingData,
    history: Sequence[dict[str, Any]],
    rate: float,
    seconds: float,
) -> dict[str, Any]:
    """Stores blame at the look of `step` and returns its line of blame.jsonl.

    The line holds what `divwatch blame --json` writes for the looks up to this one, over all steps so far, and of each effect
    the part that the steps since the last line added. history: the trainer's log. rate: a learning rate, if it holds none.
    """
    store.write_blame(step, _arrays(measured))
    earlier = [line["step"] for line in store.blames() if line["step"] < step]
    looks = {step: measured}
    for at in reversed(earlier):  # each shares a task with all later ones
        looks |= {at: m} if (m := _measured(store.blame_arrays(at), measured, looks.values())) is not None else {}
    looks = dict(sorted(looks.items()))
    rates = learning_rates([Checkpoint("", step, list(history), None)], step, rate)
    steps = list(looks)
    names = [Checkpoint(str(at), at, [], None) for at in steps]
    so_far = conclude(names, list(looks.values()), share_of_learning(rates, steps), data, step)
    since = max(earlier, default=0)
    added = conclude(names[-1:], [measured], np.array([rates[since:].sum()]), data, step - since)
    line = to_json(so_far, data, None)
    for s, source in enumerate(data.sources):
        for task, values in line["sources"][source].items():
            values["added"] = float(added.effects[task].effect[s]) if task in added.effects else None
    for row in line["rows"]:
        row["text"] = row["text"][:LENGTH]
    line = {"step": step, "since": since, "time": time.time(), "seconds": round(seconds, 3)} | line
    del line["checkpoints"], line["mix_weight"]
    store.append_blame(line)
    return line


def _arrays(measured: Measured) -> dict[str, Any]:
    return {
        "tasks": np.array(list(measured.rows)),
        "rows": np.stack(list(measured.rows.values())),
        "influence": measured.influence,
        "prompt_tasks": np.array(measured.look.tasks),
        "values": measured.look.values,
    }


def _measured(arrays: Mapping[str, Any] | None, like: Measured, later: Iterable[Measured]) -> Measured | None:
    """What an earlier look found; None if it cannot be read, read other rows or prompts, or shares no task with `later`."""
    if arrays is None or arrays["influence"].shape != like.influence.shape:
        return None
    rows = {str(task): values for task, values in zip(arrays["tasks"], arrays["rows"], strict=True)}
    if any(len(values) != len(next(iter(like.rows.values()))) for values in rows.values()):
        return None
    if not set(rows).intersection(*(m.rows for m in later)):
        return None
    empty = np.zeros(0)
    prompts = [PromptDiversity(float(value), empty, empty, []) for value in arrays["values"]]
    tasks = [str(task) for task in arrays["prompt_tasks"]]
    return Measured(BlameLook(tasks, prompts, empty, []), rows, arrays["influence"])
