"""The step of each file of a dump: the number in its name or its folder's, else its place among the paths given."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from divwatch.imports.formats import LAST_STEP

# A number behind one of these words, or the whole name.
_WORD = re.compile(r"(?:step|checkpoint|iter|completions)[-_]?0*(\d+)")
_WHOLE = re.compile(r"^0*(\d+)$")


def steps_of(files: Sequence[Path], paths: Sequence[Path]) -> dict[Path, int]:
    """The number that each path names; if one has none, the place among `paths`, or among the files of a single one.

    A number counts in the file's name and in folders inside the path that was given. Above it, only the one folder counts
    in which the paths differ: `runs/step1/base` and `runs/step1/sft` are two steps.
    """
    above = dict(zip(paths, _folders_that_differ(paths), strict=True))
    named = {file: _step_in(file, path, above[path]) for file in files for path in [_given(file, paths)]}
    if all(step is not None for step in named.values()):
        return {file: step or 0 for file, step in named.items()}
    if len(paths) == 1:
        return {file: place for place, file in enumerate(files)}
    return {file: place_of(file, paths) for file in files}


def place_of(file: Path, paths: Sequence[Path]) -> int:
    """The place of the last of `paths` that is the file or holds it."""
    return next(n for n in reversed(range(len(paths))) if file.is_relative_to(paths[n]))


def _given(file: Path, paths: Sequence[Path]) -> Path:
    return next(path for path in paths if file.is_relative_to(path))


def _folders_that_differ(paths: Sequence[Path]) -> list[str]:
    """For each path the one folder in which it differs from the others; a single path's own. Empty: they differ in more.

    >>> _folders_that_differ([Path("/out/100"), Path("/out/20")]), _folders_that_differ([Path("/7/sft/5"), Path("/7/dpo/6")])
    (['100', '20'], ['', ''])
    """
    folders = [Path(os.path.abspath(path.parent if path.is_file() else path)).parts for path in paths]
    if len(paths) == 1:
        own = folders[0][-1]
        return [own if _WORD.search(own) else ""]  # a bare number may be a job or a year
    if len({len(parts) for parts in folders}) > 1:
        return [""] * len(paths)
    differ = [n for n, parts in enumerate(zip(*folders, strict=True)) if len(set(parts)) > 1]
    return [parts[differ[0]] if len(differ) == 1 else "" for parts in folders]


def _step_in(file: Path, path: Path, above: str) -> int | None:
    """The step that a file's name has, else a folder inside `path`, the nearest first, else the folder `above`."""
    inside = file.relative_to(path).parts[-2::-1]
    for patterns, names in (
        ((_WORD, _WHOLE), [file.stem]),
        ((_WORD,), [*inside, above]),
        ((_WHOLE,), [*inside, above]),
    ):
        if (step := _number_in(names, patterns)) is not None:
            return step
    return None


def _number_in(names: Iterable[str], patterns: Sequence[re.Pattern[str]]) -> int | None:
    matches = (match for name in names for pattern in patterns if (match := pattern.search(name)))
    return next((int(match[1]) for match in matches if int(match[1]) <= LAST_STEP), None)
