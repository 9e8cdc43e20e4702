"""What the columns of a dataset in TRL's form say: the kind of training, and the source of each row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def kind_of(columns: Iterable[str]) -> str | None:
    """preference, sft or rl; None for columns that TRL's trainers do not know.

    >>> kind_of(["prompt", "chosen", "rejected"]), kind_of(["text"]), kind_of(["prompt"]), kind_of(["question"])
    ('preference', 'sft', 'rl', None)
    """
    known = set(columns)
    if {"chosen", "rejected"} <= known:
        return "preference"
    if {"completion", "messages", "text"} & known:
        return "sft"
    return "rl" if "prompt" in known else None


def source_name(value: Any) -> str:
    """The name of a source by its value in the column `source`.

    >>> source_name("FLAN"), source_name(3), source_name(None)
    ('FLAN', '3', 'unknown')
    """
    return "unknown" if value is None else str(value)


def source_labels(dataset: Any, name: str) -> list[str]:
    """The source of each row: by the column `source`; without one, the mix `name`, of a file its stem."""
    if "source" not in dataset.column_names:
        return [Path(name).stem] * len(dataset)
    return [source_name(value) for value in dataset["source"]]
