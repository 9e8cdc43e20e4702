"""The prepared copy of a mix in the datasets cache: written once a node, opened by every rank and every later run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.files import read_json_object
from divwatch.mixes.report import MixReport


def prepared(key: str, write: Callable[[Path], MixReport]) -> tuple[Any, MixReport]:
    """The dataset and report under `key`. The first rank of a node writes them if they are missing, atomically."""
    from accelerate import PartialState
    from datasets import Dataset, config

    folder = Path(config.HF_DATASETS_CACHE) / "divwatch" / key
    problem: DivwatchError | None = None
    state = PartialState()
    with state.local_main_process_first():
        if state.is_local_main_process and not (folder / "report.json").is_file():
            try:
                _prepare(folder, write)
            except DivwatchError as error:  # raised below: the other ranks must not wait for this one
                problem = error
    if problem is not None:
        raise problem
    if not (folder / "report.json").is_file():
        raise DivwatchError("the mix could not be prepared: see the error of the first process on this machine")
    report = MixReport.from_dict(read_json_object(folder / "report.json"))
    return Dataset.from_file(str(folder / "rows.arrow")), report


def _prepare(folder: Path, write: Callable[[Path], MixReport]) -> None:
    draft = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        (draft / "report.json").write_text(json.dumps(write(draft).as_dict()))
        _appear(draft, folder)
    except OSError as error:
        raise DivwatchError(
            f"cannot write {folder.parent} ({error.strerror}): set HF_DATASETS_CACHE to a folder with room"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _appear(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        if not (folder / "report.json").is_file():  # another node was not faster: it is a real error
            raise
