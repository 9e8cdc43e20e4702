"""The texts of training rows in any of TRL's data formats, row by row, tokenized data sets included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.panel.eval_rows import is_table
from divwatch.panel.rows import turn_texts

# What the columns of TRL's data formats hold: texts or turns, and token ids once a trainer has tokenized them.
TEXT_COLUMNS = ("text", "prompt", "completion", "messages", "chosen", "rejected", "conversations")
TOKEN_COLUMNS = ("input_ids", "prompt_ids", "completion_ids", "chosen_ids", "rejected_ids")
_ROWS_PER_BATCH = 1000

Decode = Callable[[list[int]], str]


def texts_of(row: dict[str, Any], decode: Decode | None = None) -> Iterator[str]:
    """The texts of a training row in any of TRL's formats, each turn separately, without system turns.

    >>> list(texts_of({"prompt": "Why?", "completion": [{"role": "assistant", "content": "So."}]}))
    ['Why?', 'So.']
    """
    for name in TEXT_COLUMNS:
        value = row.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (
                t for turn in value if isinstance(turn, dict) and not _is_system(turn) for t in turn_texts(turn)
            )
    if decode is not None and not any(_holds(row.get(name)) for name in TEXT_COLUMNS):
        yield from (decode(list(row[name])) for name in TOKEN_COLUMNS if _holds(row.get(name)))


def _holds(value: Any) -> bool:
    """Whether there is anything in a text, a list, an array or a tensor."""
    return len(value) > 0 if isinstance(value, Sized) else bool(value)


def _is_system(turn: dict[str, Any]) -> bool:
    return turn.get("role", turn.get("from")) == "system"


def stream_rows(rows: Any, decode: Decode | None) -> Iterator[dict[str, Any]]:
    """Rows one by one; a Dataset is read in batches, and only the columns that `texts_of` reads.

    Raises DivwatchError if the rows have no column with text.
    """
    columns = getattr(rows, "column_names", None)
    if columns:
        _require_text(columns, decode)
    if not hasattr(rows, "select_columns") or not columns:
        # By number where there is a length: a Dataset of torch need not end by itself.
        table = isinstance(rows, Sized) and is_table(rows)
        for number, row in enumerate((rows[i] for i in range(len(rows))) if table else rows):
            if not number:
                _require_text(list(row), decode)
            yield row
        return
    names = [c for c in TEXT_COLUMNS if c in columns] or [c for c in TOKEN_COLUMNS if c in columns]
    for batch in rows.select_columns(names).with_format(None).iter(batch_size=_ROWS_PER_BATCH):
        for values in zip(*(batch[c] for c in names), strict=True):
            yield dict(zip(names, values, strict=True))


def _require_text(columns: Sequence[str], decode: Decode | None) -> None:
    if any(c in TEXT_COLUMNS for c in columns) or (decode and any(c in TOKEN_COLUMNS for c in columns)):
        return
    raise DivwatchError(
        f"the training rows have the columns {', '.join(columns)}, none of them text: held-out prompts are checked against "
        f"{', '.join(TEXT_COLUMNS)}; set watch_held_out: off to train without the check"
    )
