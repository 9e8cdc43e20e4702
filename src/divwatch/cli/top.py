"""`divwatch top`: runs followed while they train."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from divwatch.cli.options import STDOUT, AsJson


def top(
    runs: Annotated[list[Path], typer.Argument(help="Output directories of watched runs, or a folder of them.")],
    every: Annotated[float, typer.Option(help="Seconds between looks at the directories.")] = 2.0,
    once: Annotated[bool, typer.Option(help="Show what is there now, and end.")] = False,
    as_json: AsJson = None,
) -> None:
    """Follow runs while they train: where they are, diversity and its change, what falls and since when.

    Reads their directories and asks nothing of the training; ends when all runs have ended, or with Ctrl-C.

    Example: divwatch top runs/demo
    """
    from divwatch.outputs.top import follow

    if as_json in (None, STDOUT):
        follow(runs, every, once, as_json is not None)
        return
    with open(as_json, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        follow(runs, every, once, as_json=True)
