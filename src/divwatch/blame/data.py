"""The training data to blame: rows in TRL's form, some of each source."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.mixes import MixReport, Selection, load_mix
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


def load_mix_of_run(info: Mapping[str, Any], limit: Limit) -> tuple[Any, MixReport]:
    """`load_mix` as the run called it whose run.json holds `info`: same mix, selection, seed and local files.

    Raises DivwatchError for a run whose data came from elsewhere."""
    try:
        mix = MixReport.from_dict(info["mix"])
    except (KeyError, TypeError, AttributeError):
        raise DivwatchError(
            "the run of --like records no mix: give its data as --mix NAME or --data FILE.jsonl"
        ) from None
    selection = Selection(
        **{**mix.selection, "only": tuple(mix.selection["only"]), "drop": tuple(mix.selection["drop"])}
    )
    return load_mix(mix.given or mix.name, mix.seed, selection=selection, local_data=mix.local_data, limit=limit)


def training_data(dataset: Any, report: MixReport, per_source: int, seed: int) -> TrainingData:
    """Up to `per_source` rows of each source of what `load_mix` returned.

    Raises DivwatchError for prompts without answers, and for a source of one row.
    """
    columns = set(dataset.column_names)
    kind = (
        "preference" if {"chosen", "rejected"} <= columns
        else "sft" if {"completion", "messages", "text"} & columns else "rl"
    )  # fmt: skip
    if kind == "rl":
        raise DivwatchError(
            f"{report.name} holds prompts only, whose loss depends on what the model samples: blame reads SFT and DPO data"
        )
    labels = (
        ["unknown" if s is None else str(s) for s in dataset["source"]]
        if "source" in columns
        else [Path(report.name).stem] * len(dataset)
    )
    counts = {s: n for s in dict.fromkeys(labels) if (n := labels.count(s))}
    small = next((s for s, n in counts.items() if n < 2), None)
    if small is not None:
        raise DivwatchError(f"source {small!r} has 1 row: give at least 2 of each source, better 100")
    chosen = draw_rows(labels, per_source, seed)
    shares = {s: n / len(labels) for s, n in counts.items()}
    return TrainingData(dataset.select(chosen), [labels[i] for i in chosen], shares, kind)


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
