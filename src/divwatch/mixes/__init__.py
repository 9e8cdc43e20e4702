"""Training data by name: `tiny/...` mixes of the embedded world, or a JSONL file in one of TRL's own formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError


def load_mix(name: str, seed: int = 0, rows: int | None = None) -> Any:
    """A `datasets.Dataset` of the mix, shuffled by seed; `rows` keeps the first so many (so draws are nested)."""
    from datasets import Dataset

    if name.startswith("tiny/"):
        from divwatch.tiny import mixes

        short = name.removeprefix("tiny/")
        if short not in mixes.MIXES:
            raise DivwatchError(f"unknown mix {name!r}: choose from {', '.join('tiny/' + m for m in mixes.MIXES)}")
        dataset = Dataset.from_list(list(mixes.rows(short, seed)))
    elif Path(name).is_file():
        dataset = Dataset.from_json(name)
    else:
        raise DivwatchError(f"mix {name!r} is neither a known mix (tiny/...) nor a JSONL file")
    if rows is not None and rows > len(dataset):
        raise DivwatchError(f"mix {name!r} has {len(dataset)} rows, {rows} were asked for: lower mix_rows")
    return dataset if rows is None else dataset.select(range(rows))
