"""`divwatch report`: the HTML report of one or more runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from divwatch.cli.options import AsJson, write_json


def report(
    runs: Annotated[list[Path], typer.Argument(help="Output directories of watched runs, or a folder of them.")],
    out: Annotated[
        Optional[Path], typer.Option(help="The page to write. Default: report.html in the first folder.")
    ] = None,
    as_json: AsJson = None,
) -> None:
    """Write the report of one or more runs: an HTML page, PNG figures and CSV tables, and a table of stages here.

    Example: divwatch report runs/demo
    """
    from divwatch.outputs.report import summary
    from divwatch.outputs.report.write import write

    written, page = write(runs, out)
    if not write_json(as_json, summary.as_json(written, page)):
        summary.print_summary(written, page)
