"""The training data to blame: rows in TRL's form, some of each source."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.mixes import MixReport, Selection, kind_of, load_mix, source_labels
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


def load_mix_of_run(info: Mapping[str, Any], tokenizer: Any, max_prompt: int | None) -> tuple[Any, MixReport]:
    """`load_mix` as the run called it whose run.json holds `info`: same mix, selection, seed, local files and limit.

    max_prompt: the limit, where the record is too old to hold it. Raises DivwatchError for a run whose data came from
    elsewhere.
    """
    try:
        mix = MixReport.from_dict(info["mix"])
        lists = {name: tuple(mix.selection.get(name, ())) for name in ("only", "drop")}
        selection = Selection(**{**mix.selection, **lists})
    except (KeyError, TypeError, AttributeError):
        raise DivwatchError(
            "the run of --like records no mix: give its data as --mix NAME or --data FILE.jsonl"
        ) from None
    limit = Limit(tokenizer, mix.max_prompt if mix.given else max_prompt)
    return load_mix(mix.given or mix.name, mix.seed, selection=selection, local_data=mix.local_data, limit=limit)


def training_data(dataset: Any, report: MixReport, per_source: int, seed: int) -> TrainingData:
    """Up to `per_source` rows of each source of what `load_mix` returned.

    Raises DivwatchError for prompts without answers, and for a source of one row.
    """
    kind = kind_of(dataset.column_names)
    if kind is None:
        columns = ", ".join(dataset.column_names)
        form = "TRL's prompt-completion, messages or preference form"
        raise DivwatchError(f"{report.name} has the columns {columns}: give rows in {form}")
    if kind == "rl":
        raise DivwatchError(
            f"{report.name} holds prompts only, whose loss depends on what the model samples: blame reads SFT and DPO data"
        )
    labels = source_labels(dataset, report.name)
    shares = shares_of(labels)
    chosen = draw_rows(labels, per_source, seed)
    return TrainingData(dataset.select(chosen), [labels[i] for i in chosen], shares, kind)


def shares_of(labels: Sequence[str]) -> dict[str, float]:
    """source -> its share of the rows. Raises DivwatchError for a source of one row.

    >>> shares_of(["a", "b", "b", "a"])
    {'a': 0.5, 'b': 0.5}
    """
    counts = Counter(labels)
    small = next((s for s, n in counts.items() if n < 2), None)
    if small is not None:
        raise DivwatchError(
            f"source {small!r} has 1 row: leave it out of the data, or give at least 2 of it, better 100"
        )
    return {s: n / len(labels) for s, n in counts.items()}


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
