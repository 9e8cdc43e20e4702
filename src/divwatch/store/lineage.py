"""Lineages: the parent of a run, also if the runs were moved together, and the chains of runs that follow from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.store.reader import NAME, RunReader

Parent = Callable[[Path], Path | None]


def parent_of(directory: Path, info: dict[str, Any]) -> Path | None:
    """The run directory of the parent that run.json (`info`) of `directory` names. None: no parent, or it is gone.

    The recorded path first; if it is gone, the same place relative to this run, then a sibling of the same name.
    """
    recorded = info.get("parent")
    if not recorded or not isinstance(recorded, str):
        return None
    places = [Path(recorded)]
    if isinstance(own := info.get("output_dir"), str):
        places.append(directory.parent / os.path.relpath(_absolute(recorded), _absolute(own)))
    places.append(directory.parent.parent / Path(recorded).parent.name / NAME)
    runs = (run for place in places for run in (place, place / NAME) if (run / "run.json").is_file())
    return next((run.resolve() for run in runs), None)


def lineage_of(run: RunReader) -> list[RunReader]:
    """The chain of runs that ends with `run`, oldest first. It starts where a parent is missing.

    Raises DivwatchError if a run is its own ancestor.
    """
    chain, circular = _follow(run.path.resolve(), lambda path: parent_of(path, RunReader(path).info()))
    if circular:
        raise DivwatchError(f"{run.path} is its own ancestor: fix 'parent' in run.json")
    return [RunReader(path) for path in chain[:-1]] + [run]


def steps_before(run: RunReader) -> int:
    """Optimizer steps of all stages before this run: its offset on the axis of the whole pipeline."""
    # A damaged line in an ancestor's looks is no reason to refuse this run.
    return sum(RunReader(stage.path, notes=[]).max_steps() for stage in lineage_of(run)[:-1])


def chains(directories: Iterable[Path], parent: Parent) -> list[list[Path]]:
    """The chains from the first stage to each last one. A run that two others continue is in both.

    parent: the parent of a directory among `directories`, or None. A run whose ancestors form a circle is a chain alone.
    """
    directories = list(directories)
    parents = {directory: parent(directory) for directory in directories}
    continued = set(parents.values())
    from_leaves = [_follow(leaf, parents.__getitem__)[0] for leaf in directories if leaf not in continued]
    in_a_chain = {directory for chain in from_leaves for directory in chain}
    return from_leaves + [[directory] for directory in directories if directory not in in_a_chain]


def _follow(directory: Path, parent: Parent) -> tuple[list[Path], bool]:
    """(the directory and its ancestors, oldest first; whether one of them comes twice)."""
    chain = [directory]
    while (older := parent(chain[0])) is not None:
        if older in chain:
            return chain, True
        chain.insert(0, older)
    return chain, False


def _absolute(path: str) -> str:
    return path if os.path.isabs(path) else os.path.join(os.sep, path)
