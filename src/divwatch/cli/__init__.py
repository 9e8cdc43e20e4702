"""The `divwatch` command. Each command has a file; heavy imports wait until a command needs them.

Exit status: 0 done, 2 wrong input (one line says what is wrong and how to fix it), 130 interrupted, 1 a defect of
divwatch.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from divwatch.cli.ablate import ablate
from divwatch.cli.blame import blame
from divwatch.cli.compare import compare
from divwatch.cli.import_ import import_
from divwatch.cli.measure import measure
from divwatch.cli.mix import app as mix_app
from divwatch.cli.options import Command, CommandOfFiles
from divwatch.cli.panel import panel_app
from divwatch.cli.plan import plan
from divwatch.cli.report import report
from divwatch.cli.score import score
from divwatch.cli.top import top
from divwatch.cli.wandb import wandb_app
from divwatch.errors import DivwatchError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Watch output diversity in post-training.")
for command in (report, top, score, measure, blame, plan, ablate, compare):
    app.command(cls=CommandOfFiles if command in (score, blame) else Command)(command)
app.command("import", cls=Command)(import_)
app.add_typer(mix_app, name="mix")
app.add_typer(panel_app, name="panel")
app.add_typer(wandb_app, name="wandb")


def _version(value: bool) -> None:
    if value:
        from divwatch import __version__

        print(f"divwatch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point. A user's mistake is one line."""
    try:
        status = app(standalone_mode=False)
    except DivwatchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error of the option parser
            raise
        print(f"error: {error.format_message()}: see divwatch --help", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)  # typer's: 130 after Ctrl-C
