"""Finding run directories: below given folders, and from the checkpoint that a run wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from divwatch.errors import DivwatchError
from divwatch.store.reader import NAME
from divwatch.store.run_directory import RunDirectory


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Run directories under `paths`: each an output_dir, its divwatch/ folder, or a folder that holds several runs.

    Raises DivwatchError with the path that does not exist or holds no run.
    """
    runs: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise DivwatchError(f"no such directory: {path} (give an output_dir that divwatch has watched)")
        below = [path] if (path / "run.json").is_file() else sorted(_walk(path))
        if not below:
            raise DivwatchError(f"no run in {path}: no divwatch/run.json below it (train with divwatch attached first)")
        runs.update(dict.fromkeys(run.resolve() for run in below))
    return list(runs)


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        if "run.json" in files and Path(folder).name == NAME:
            yield Path(folder)
            folders.clear()
        folders[:] = [f for f in folders if not f.startswith(".") and not _is_checkpoint(Path(folder, f))]


def _is_checkpoint(folder: Path) -> bool:
    """Whether it holds a model and no run. A measured checkpoint's run is in a folder of the checkpoint's name."""
    return folder.name.startswith("checkpoint-") and not (folder / NAME / "run.json").is_file()


def find_parent(model_path: str | Path | None) -> RunDirectory | None:
    """The run that wrote the model at `model_path`: its output directory, or a checkpoint-N in it. None: no such run."""
    if not model_path or not Path(model_path).is_dir():
        return None
    for folder in (Path(model_path), Path(model_path).resolve().parent):
        run = RunDirectory(folder / NAME)
        if run.exists:
            return run
    return None
