"""The raw rows of a mix's part, one after another: from the hub at one revision, or from a local JSONL file.

Nothing is held in memory: a hub set streams, a file is read line by line. An unreachable or unexpected source raises
a one-line DivwatchError.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.files import read_jsonl
from divwatch.mixes.definition import MixPart


@dataclass(frozen=True)
class Place:
    """Where a part's rows are: a local file, or a hub set at the commit that its revision resolved to."""

    part: MixPart
    file: Path | None = None
    commit: str | None = None

    def describe(self) -> dict[str, Any]:
        """For the run's record, and for the key of the prepared copy: it changes when the rows change."""
        if self.file is not None:
            stat = self.file.stat()
            return {"file": str(self.file.resolve()), "bytes": stat.st_size, "modified": stat.st_mtime_ns}
        return {"hub": self.part.hub, "revision": self.part.revision, "commit": self.commit, "split": self.part.split}


def find_rows(part: MixPart, local_data: str | None) -> Place:
    """Where the part's rows are. Raises DivwatchError for a missing file or a hub set that cannot be reached."""
    if part.file is not None:
        return Place(part, _file(part.file, "give the path of a JSONL file"))
    if local_data:
        if not Path(local_data).is_dir():
            raise DivwatchError(f"local_data {local_data!r} is no folder: give one that holds {part.local}")
        if part.local is None:
            raise DivwatchError(f"{part.hub} has no local form: leave local_data out")
        return Place(part, _file(Path(local_data) / part.local, f"local_data needs {part.local} for {part.hub}"))
    return Place(part, commit=_resolve(part))


def iterate(place: Place) -> Iterator[dict[str, Any]]:
    if place.file is not None:
        return (row for _, row in read_jsonl(place.file))
    return _hub_rows(place)


def _file(path: Path, fix: str) -> Path:
    if not path.is_file():
        raise DivwatchError(f"{path} is not there: {fix}")
    return path


def _resolve(part: MixPart) -> str | None:
    """The commit behind the revision, so every pass, rank and later run can read the same rows."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(part.hub or "", revision=part.revision).sha
    except Exception as error:  # offline, unknown, gated, no such revision: the hub library has an error for each
        raise _unreachable(part, error) from None


def _hub_rows(place: Place) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset

    part = place.part
    try:
        yield from load_dataset(part.hub, revision=place.commit, split=part.split, streaming=True)
    except DivwatchError:
        raise
    except Exception as error:
        raise _unreachable(part, error) from None


def _unreachable(part: MixPart, error: Exception) -> DivwatchError:
    at = f" at revision {part.revision}" if part.revision else ""
    fix = "correct the revision, or " if part.revision else ""
    fix += f"put {part.local} into a folder and give it as local_data" if part.local else "use a local file"
    return DivwatchError(f"hub set {part.hub}{at} cannot be read ({one_line(error)}): {fix}")
