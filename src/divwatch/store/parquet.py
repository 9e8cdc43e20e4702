"""Parquet files of a run directory: written atomically, read with limits that a hostile file cannot exceed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.files import write_atomically

# Far above any look, far below what a hostile file may claim: rows, and bytes once decoded.
MAX_ROWS, MAX_BYTES = 10_000_000, 2 << 30


def read_parquet(path: Path) -> Any:
    """The file as a pyarrow table.

    Raises DivwatchError for a file that is missing, damaged, or too large once decoded: a file of a few kB can claim a
    billion rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches, size = [], 0
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > MAX_ROWS:
                raise DivwatchError(f"{path} has more than {MAX_ROWS:,} rows: divwatch did not write it, remove it")
            for batch in file.iter_batches(batch_size=1024):
                size += batch.nbytes
                if size > MAX_BYTES:
                    raise DivwatchError(
                        f"{path} holds more than {MAX_BYTES >> 30} GiB: divwatch did not write it, remove it"
                    )
                batches.append(batch)
            return pa.Table.from_batches(batches, schema=file.schema_arrow)
    except FileNotFoundError:
        raise DivwatchError(f"{path} is missing: restore it, or remove the look's line from looks.jsonl") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DivwatchError):
            raise
        raise DivwatchError(f"{path} is damaged ({one_line(error, kind=False)}): remove it") from None


def write_parquet(path: Path, columns: dict[str, list]) -> None:
    """Writes the columns atomically, compressed with zstd."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())
