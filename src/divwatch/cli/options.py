"""`--json [FILE]`, which every command has: alone it prints JSON and nothing else; with a file it writes the JSON there.

A word after `--json` is its file if it ends in .json. `score` and `blame` take any other word too, but for their own input.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from divwatch.errors import DivwatchError

STDOUT = "-"


def _checked(target: Optional[str]) -> Optional[str]:
    """Before anything is computed: the file can be written."""
    if target is not None and target != STDOUT:
        path = Path(target)
        if path.is_dir():
            raise DivwatchError(f"--json {target}: this is a folder, give a file")
        if not path.parent.is_dir():
            raise DivwatchError(f"--json {target}: there is no folder {path.parent}, create it first")
    return target


AsJson = Annotated[
    Optional[str],
    typer.Option("--json", metavar="[FILE]", callback=_checked, help="Print JSON, or write it to this .json file."),
]


class Command(TyperCommand):
    """A command whose option `--json` may have a value."""

    any_name = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_values(args, self.any_name))


class CommandOfFiles(Command):
    """A command whose `--json` has always been a file."""

    any_name = True


def _with_values(args: list[str], any_name: bool) -> list[str]:
    """The arguments with `--json` and its value as one word.

    >>> _with_values(["report", "--json", "runs/demo"], False), _with_values(["--json", "a.json", "runs"], False)
    (['report', '--json=-', 'runs/demo'], ['--json=a.json', 'runs'])
    >>> _with_values(["--json", "samples.jsonl"], True), _with_values(["samples.jsonl", "--json", "scores"], True)
    (['--json=-', 'samples.jsonl'], ['samples.jsonl', '--json=scores'])
    """
    words: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*words, word, *rest]
        if word == "--json":
            after = rest[0] if rest else "-"
            is_file = after.endswith(".json") or (any_name and not after.endswith(".jsonl"))
            word = f"--json={rest.pop(0) if is_file and not after.startswith('-') else STDOUT}"
        words.append(word)
    return words


def write_json(target: str | None, value: Any, indent: int | None = 1) -> bool:
    """Prints a value or writes it to the file; returns whether it was printed, so that nothing else is. None: neither."""
    if target is None:
        return False
    text = json.dumps(value, indent=indent)
    if target == STDOUT:
        print(text)
        return True
    from divwatch.files import write_atomically

    try:
        write_atomically(Path(target), text + "\n")
    except OSError as error:
        raise DivwatchError(f"--json {target} cannot be written ({error.strerror}): give another file") from None
    return False


def nothing_but_json(target: str | None) -> contextlib.AbstractContextManager[Any]:
    """Where JSON is printed, everything else that is printed inside goes to standard error."""
    return contextlib.redirect_stdout(sys.stderr) if target == STDOUT else contextlib.nullcontext()
