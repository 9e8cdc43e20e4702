"""The training data to blame: rows in TRL's form, some of each source."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.mixes import load_mix
from divwatch.mixes.limit import Limit


@dataclass(frozen=True)
class TrainingData:
    """Rows in TRL's form, some of each source. shares: source -> its share of the whole mix. kind: sft or preference."""

    rows: Any
    labels: list[str]
    shares: Mapping[str, float]
    kind: str

    @property
    def sources(self) -> list[str]:
        return list(self.shares)


def training_data(
    name: str, per_source: int, seed: int, tokenizer: Any, max_length: int | None, local_data: str | None
) -> tuple[TrainingData, int]:
    """(up to `per_source` rows of each source, number of rows of the whole mix).

    name: a mix by name, or a file. max_length: rows whose prompt fills it are left out, as in training. Raises DivwatchError
    for prompts without answers, and for a source of one row.
    """
    dataset, report = load_mix(name, seed, local_data=local_data, limit=Limit(tokenizer, max_length))
    columns = set(dataset.column_names)
    kind = (
        "preference" if {"chosen", "rejected"} <= columns
        else "sft" if {"completion", "messages", "text"} & columns else "rl"
    )  # fmt: skip
    if kind == "rl":
        raise DivwatchError(
            f"{name} holds prompts only, whose loss depends on what the model samples: blame reads SFT and DPO data"
        )
    labels = (
        ["unknown" if s is None else str(s) for s in dataset["source"]]
        if "source" in columns
        else [Path(name).stem] * len(dataset)
    )
    counts = {s: n for s in dict.fromkeys(labels) if (n := labels.count(s))}
    small = next((s for s, n in counts.items() if n < 2), None)
    if small is not None:
        raise DivwatchError(f"source {small!r} has 1 row: give at least 2 of each source, better 100")
    chosen = draw_rows(labels, per_source, seed)
    shares = {s: n / len(labels) for s, n in counts.items()}
    return TrainingData(dataset.select(chosen), [labels[i] for i in chosen], shares, kind), sum(
        s.taken for s in report.sources.values()
    )


def draw_rows(labels: Sequence[str], per_source: int, seed: int) -> list[int]:
    """Places of up to `per_source` rows of each source, drawn without replacement, in order."""
    places: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        places.setdefault(label, []).append(i)
    return sorted(
        i
        for source, mine in places.items()
        for i in random.Random(f"{seed}/{source}").sample(mine, min(per_source, len(mine)))
    )
