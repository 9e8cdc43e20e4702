"""Lineages on one pipeline axis: all stages have a slot of the same width, so that lineages of different length compare.

A look at step s of a stage of S steps in slot i is at x = i + s / S.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pandas as pd

from divwatch.store.tables import RunTables

MANY = 7  # beyond this many lineages, those of one line share a colour and lose their bands
ACRONYMS = {"sft", "dpo", "rl", "rlvr", "grpo", "ppo", "kto", "orpo", "rm"}


@dataclass
class Lineage:
    """A chain of stages with its name, its slots on the pipeline axis and its style in the charts."""

    name: str
    line: str
    runs: list[RunTables]
    stages: list[str]
    slots: list[int] = field(default_factory=list)
    colour: int = 0
    dash: int = 0
    thin: bool = False

    @property
    def published_line(self) -> str:
        """The line of Olmo 3 that this lineage is named for, or an empty text."""
        words = f"{self.line} {self.name}".lower()
        return next((line for line in ("instruct", "think") if line in words), "")

    @property
    def base(self) -> str:
        """What its first look is of: the base model, or a checkpoint that `divwatch measure` was given by name."""
        return str(self.runs[0].meta.get("base") or "base")

    def x(self, number: int, step: float) -> float:
        return self.slots[number] + min(step / self.runs[number].max_steps, 1.0)

    def curves(self) -> pd.DataFrame:
        """One row per look, task and key over the whole lineage: `stage, number, x` and the columns of looks.jsonl."""
        frames = []
        for number, run in enumerate(self.runs):
            frame = run.means.merge(run.looks[["step", "status", "reason"]], on="step", how="left")
            x = [self.x(number, s) for s in frame["step"]]
            frames.append(frame.assign(lineage=self.name, stage=self.stages[number], number=number, x=x))
        columns = "lineage stage number step x status task key mean lo hi n reason".split()
        return pd.concat(frames, ignore_index=True)[columns]

    def looks(self) -> pd.DataFrame:
        """One row per look: its place on the axis, its status and its seconds."""
        frames = []
        for number, run in enumerate(self.runs):
            x = [self.x(number, s) for s in run.looks["step"]]
            frames.append(run.looks.assign(lineage=self.name, stage=self.stages[number], number=number, x=x))
        return pd.concat(frames, ignore_index=True)


def lay_out(chains: Sequence[Sequence[RunTables]]) -> tuple[list[Lineage], list[str]]:
    """Names the chains, gives them slots and colours, and returns them with the slots in order of training."""
    # If a chain has a stage name twice (Instruct SFT after Think SFT), all stages get the name of their line in front.
    twice = any(len({run.stage for run in chain}) < len(chain) for chain in chains)
    lineages = []
    for chain, name in zip(chains, _names(chains), strict=True):
        stages = [f"{_line(run) or _lineage_name(run)} {run.stage}".strip() if twice else run.stage for run in chain]
        if len(set(stages)) < len(stages):
            stages = [f"{n} {stage}" for n, stage in enumerate(stages, 1)]
        lineages.append(Lineage(name, _line(chain[-1]) or _family(name), list(chain), stages))
    slots = _merge([lineage.stages for lineage in lineages])
    lines = list(dict.fromkeys(lineage.line for lineage in lineages))
    for i, lineage in enumerate(lineages):
        lineage.slots = [slots.index(stage) for stage in lineage.stages]
        lineage.thin = len(lineages) > MANY
        lineage.colour = (lines.index(lineage.line) if lineage.thin else i) % 7
        lineage.dash = i if not lineage.thin else 0
    return lineages, slots


def slot_lengths(lineages: Sequence[Lineage], slots: Sequence[str]) -> list[str]:
    """How long each slot is, in steps: one number, or the range if lineages differ."""
    out = []
    for i in range(len(slots)):
        steps = sorted({v.runs[n].max_steps for v in lineages for n, slot in enumerate(v.slots) if slot == i})
        out.append(f"{steps[0]:,} steps" if len(steps) == 1 else f"{steps[0]:,}–{steps[-1]:,} steps")
    return out


def _line(run: RunTables) -> str:
    return str(run.meta.get("line") or "")


def _family(name: str) -> str:
    """The name without the number of a seed: `think-s3` and `think_4` are of one family."""
    return re.sub(r"[-_ ./]*(s|seed)?[-_ ]?\d+$", "", name) or name


def _lineage_name(run: RunTables) -> str:
    return str(run.meta.get("lineage") or "")


def _names(chains: Sequence[Sequence[RunTables]]) -> list[str]:
    """The first of line, lineage, both, and output directory that is different for every chain."""
    last = [chain[-1] for chain in chains]
    directories = [run.directory.parent for run in last]
    choices = [
        [_line(run) for run in last],
        [_lineage_name(run) for run in last],
        [" ".join(filter(None, (_lineage_name(run), _line(run)))) for run in last],
        [d.name for d in directories],
        ["/".join(d.parts[-2:]) for d in directories],
    ]
    for names in choices:
        if all(names) and len(set(names)) == len(names):
            return names
    seen: Counter[str] = Counter()
    out = []
    for name in choices[-1]:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out


def _merge(orders: Sequence[Sequence[str]]) -> list[str]:
    """One order of all stages that keeps the order of each lineage. Stages that no lineage orders: first seen, first."""
    seen = list(dict.fromkeys(stage for order in orders for stage in order))
    before: dict[str, set[str]] = {stage: set() for stage in seen}
    for order in orders:
        for earlier, later in pairwise(order):
            before[later].add(earlier)
    merged: list[str] = []
    while seen:
        # Lineages that contradict each other leave no stage free; the first seen then goes first.
        free = next((stage for stage in seen if before[stage] <= set(merged)), seen[0])
        merged.append(free)
        seen.remove(free)
    return merged


def stage_name(stage: str) -> str:
    """A stage as people write it.

    >>> stage_name("sft"), stage_name("instruct dpo"), stage_name("warm-up")
    ('SFT', 'instruct DPO', 'warm-up')
    """
    return " ".join(w.upper() if w.lower() in ACRONYMS else w for w in stage.split(" "))
