"""The report: one self-contained HTML page, and beside it its charts as PNG and PDF and its tables as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["write_report"]


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Writes the report of the runs under `run_dirs` and returns the path of the page.

    run_dirs: each an output_dir, its divwatch/ folder, or a folder of several runs. `parent` links are followed.
    out: the page (a name that ends in .html) or a folder for it; by default `report.html` in the first of `run_dirs`.
        Figures (PNG, PDF) and tables (CSV) go into a folder of the page's name beside it: `report/`.
    Raises DivwatchError if there is no run, no finished look, or `out` cannot be written.
    """
    from divwatch.outputs.report.write import write

    return write([Path(d) for d in run_dirs], None if out is None else Path(out))[1]
