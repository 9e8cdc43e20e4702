"""The `divwatch` command: thin, and heavy imports wait until a command needs them.

Exit status: 0 done, 2 wrong input (one line says what and how to mend it).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from divwatch.errors import DivwatchError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Watch output diversity in post-training.")


def _version(asked: bool) -> None:
    if asked:
        from divwatch import __version__

        print(f"divwatch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Output directories of watched runs, or a folder of them.")],
    out: Annotated[Optional[Path], typer.Option(help="The page to write. Default: report.html in the first folder.")] = None,  # noqa: UP045
) -> None:
    """Write the report of one or more runs: an HTML page, PNG figures and CSV tables, and a table of stages here.

    Example: divwatch report runs/demo
    """
    from divwatch.report import write_report
    from divwatch.terminal import print_stages

    page = write_report(runs, out)
    print_stages(runs)
    print(f"report: {page}   open it: xdg-open {page}")


def main() -> None:
    """The entry point. A user's mistake is one line."""
    try:
        app(standalone_mode=False)
    except DivwatchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error of the option parser
            raise
        print(f"error: {error.format_message()}: see divwatch --help", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
