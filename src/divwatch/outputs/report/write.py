"""Writes the report: the page, and its figures and tables beside it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from divwatch import __version__
from divwatch.errors import DivwatchError
from divwatch.outputs.report.build import Report, build, write_tables
from divwatch.outputs.report.charts import draw_charts
from divwatch.outputs.report.figures import write_figures
from divwatch.outputs.report.page import render
from divwatch.store.reader import SCORED


def write(paths: Sequence[Path], out: Path | None) -> tuple[Report, Path]:
    """Writes page, tables and figures; returns what they show and the path of the page."""
    report = build(paths)
    charts = draw_charts(report)
    page = _page_path(paths, out)
    foot = _foot(paths, beside(page).name)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        text = render(report, charts, "Output diversity over post-training", _subtitle(report), foot)
        page.write_text(text, encoding="utf-8")
        write_tables(report, beside(page))
        write_figures(report, charts, beside(page))
    except OSError as error:
        raise DivwatchError(
            f"cannot write the report to {page.parent}: {error.strerror} (choose another place with --out)"
        ) from None
    return report, page


def beside(page: Path) -> Path:
    """The folder of the figures and tables of a page, named after it."""
    return page.with_suffix("")


def _page_path(paths: Sequence[Path], out: Path | None) -> Path:
    if out is None:
        return paths[0] / "report.html"
    return out if out.suffix in (".html", ".htm") else out / "report.html"


def _subtitle(report: Report) -> str:
    looks = int(report.looks["status"].isin(SCORED).sum())
    stages = len({run.directory for v in report.lineages for run in v.runs})
    counts = {"lineage": len(report.lineages), "stage": stages, "look": looks, "task": len(report.tasks)}
    return ", ".join(f"{n} {noun}{'' if n == 1 else 's'}" for noun, n in counts.items())


def _foot(paths: Sequence[Path], folder: str) -> str:
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    command = shlex.join(["divwatch", "report", *map(str, paths)])
    beside = f"Figures (PNG, PDF) and tables (CSV) are in {folder}/ beside this page."
    return f"Written by divwatch {__version__} on {written}: {command}. {beside}"
