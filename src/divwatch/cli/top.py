"""`divwatch top`: runs followed while they train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def top(
    runs: Annotated[list[Path], typer.Argument(help="Output directories of watched runs, or a folder of them.")],
    every: Annotated[float, typer.Option(help="Seconds between looks at the directories.")] = 2.0,
    once: Annotated[bool, typer.Option(help="Show what is there now, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a line each time something changed.")] = False,
) -> None:
    """Follow runs while they train: where they are, diversity and its change, what falls and since when.

    Reads their directories and asks nothing of the training; ends when all runs have ended, or with Ctrl-C.

    Example: divwatch top runs/demo
    """
    from divwatch.outputs.top import follow

    follow(runs, every, once, as_json)
