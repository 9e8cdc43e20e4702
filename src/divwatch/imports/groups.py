"""Which completions of a dump are compared: the prompts that steps share, and as many completions of each.

The dump is read twice. The first pass keeps a hash and a count for each group, the completions of a prompt at a step; the
second writes the texts of the chosen groups to disk, by step. So memory grows with the number of groups and with one
step's choice, not with the dump.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from divwatch.errors import DivwatchError
from divwatch.imports.files import Dump
from divwatch.imports.formats import FORMATS, Output

Key = bytes  # of a prompt: a hash of its task and text
ENOUGH = 0.9  # share of the groups that must be large enough for the common number of completions
MIN_PAIRED = 4  # prompts that all steps must share to be compared one by one


@dataclass(frozen=True)
class Choice:
    """What is compared.

    steps:  in rising order. k: completions of each group.
    groups: step -> prompts, in one order: place i is compared with place i of other steps.
    paired: True: place i is the same prompt at every step that has it. False: prompts do not recur, so a place holds
            another prompt at each step, and only means are compared.
    small:  groups with fewer than k completions, which are left out.
    """

    steps: list[int]
    k: int
    groups: dict[int, list[Key | None]]
    paired: bool
    small: int


def key_of(output: Output) -> Key:
    return hashlib.blake2b(f"{output.task or ''}\0{output.prompt}".encode(), digest_size=12).digest()


def choose_groups(dump: Dump, prompts: int, samples: int | None) -> Choice:
    """The groups to compare: at most `prompts` a step, of `samples` completions (default: what nine of ten groups have).

    Raises DivwatchError if no group has two completions.
    """
    counts: dict[int, Counter[Key]] = defaultdict(Counter)
    tasks: dict[Key, int] = {}  # a number for each task, so that places of one task are compared
    names: dict[str, int] = {}
    for step, output in dump.outputs():
        key = key_of(output)
        counts[step][key] += 1
        tasks.setdefault(key, names.setdefault(output.task or "", len(names)))
    sizes = np.array([n for step in counts.values() for n in step.values()])
    if not len(sizes):
        named = str(dump.files[0]) if len(dump.files) == 1 else f"{len(dump.files):,} files"
        raise DivwatchError(
            f"no completion can be read from {named} ({dump.reasons()}): formats are {', '.join(FORMATS)}"
        )
    if sizes.max() < 2:
        raise DivwatchError(
            f"no prompt has two completions at a step ({len(sizes):,} prompts read): diversity needs at least two"
        )
    k = samples or max(2, int(np.quantile(sizes[sizes >= 2], 1 - ENOUGH, method="lower")))
    steps = sorted(counts)
    whole = {step: [key for key, n in counts[step].items() if n >= k] for step in steps}
    steps = [step for step in steps if whole[step]]
    if not steps:
        raise DivwatchError(
            f"no prompt has {k} completions at a step: give a smaller --samples (the most is {sizes.max()})"
        )
    shared = set(whole[steps[0]]).intersection(*(whole[step] for step in steps[1:]))
    paired = len(steps) == 1 or len(shared) >= min(MIN_PAIRED, min(len(whole[s]) for s in steps))
    places = _same(whole, steps, prompts) if paired else _slots(whole, steps, prompts, tasks)
    return Choice(steps, k, places, paired, int((sizes < k).sum()))


def _same(whole: dict[int, list[Key]], steps: list[int], most: int) -> dict[int, list[Key | None]]:
    """The same prompts at every step, those first that most steps have. None where a step does not have one."""
    have = Counter(key for step in steps for key in whole[step])
    first = set(whole[steps[0]])  # changes are from the first step
    order = sorted((key for key in have if key in first), key=lambda key: (-have[key], key))[:most]
    return {step: [key if key in there else None for key in order] for step in steps for there in [set(whole[step])]}


def _slots(
    whole: dict[int, list[Key]], steps: list[int], most: int, tasks: dict[Key, int]
) -> dict[int, list[Key | None]]:
    """As many prompts of each task at every step, in an arbitrary order, so that places can be compared."""
    by_task = {
        step: {
            task: sorted(key for key in whole[step] if tasks[key] == task) for task in {tasks[k] for k in whole[step]}
        }
        for step in steps
    }
    common = set.intersection(*(set(groups) for groups in by_task.values()))
    sizes = {task: min(len(by_task[step][task]) for step in steps) for task in sorted(common)}
    if not sizes:
        raise DivwatchError("no task occurs at every step: import the steps of one task at a time")
    limit = max(1, most // len(sizes))
    return {step: [key for task, n in sizes.items() for key in by_task[step][task][: min(n, limit)]] for step in steps}


class Spool:
    """The chosen completions on disk, in a file for each step. `firsts`: place -> its first completion, for the prompt."""

    BUFFER = 4 << 20  # characters that wait in memory

    def __init__(self, dump: Dump, choice: Choice, folder: Path) -> None:
        self.folder, self.firsts = folder, dict[int, Output]()
        places = {
            step: {key: place for place, key in enumerate(keys) if key is not None}
            for step, keys in choice.groups.items()
        }
        taken: Counter[tuple[int, int]] = Counter()
        waiting: dict[int, list[str]] = defaultdict(list)
        size = 0
        for step, output in dump.outputs():
            place = places.get(step, {}).get(key_of(output))
            if place is None or taken[step, place] == choice.k:
                continue
            self.firsts.setdefault(place, output)
            line = json.dumps([place, taken[step, place], output.text, output.score]) + "\n"
            taken[step, place] += 1
            waiting[step].append(line)
            size += len(line)
            if size > self.BUFFER:
                self._write(waiting)
                size = 0
        self._write(waiting)

    def _write(self, waiting: dict[int, list[str]]) -> None:
        for step, lines in waiting.items():
            with self._file(step).open("a", encoding="utf-8") as file:
                file.writelines(lines)
        waiting.clear()

    def rows(self, step: int) -> list[tuple[int, int, str, float | None]]:
        """(place, sample, text, score) of a step's completions."""
        with self._file(step).open(encoding="utf-8") as file:
            return [tuple(json.loads(line)) for line in file]

    def _file(self, step: int) -> Path:
        return self.folder / f"{step}.jsonl"
