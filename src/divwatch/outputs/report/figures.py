"""The charts of the page as figures: PNG for run reviews, PDF for papers. Nothing is drawn here a second time."""

from __future__ import annotations

from pathlib import Path

from divwatch.outputs.charts.export import sheet, write_pdf, write_png
from divwatch.outputs.report.build import Report
from divwatch.outputs.report.charts import Charts


def write_figures(report: Report, charts: Charts, folder: Path) -> list[Path]:
    """`lineage`, `tasks`, `split` and `quality`, of the primary measure, each as PNG and PDF. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    # Lineages that share a colour (many seeds of one line) share an entry.
    named = {v.line if v.thin else v.name: v for v in report.lineages}
    legend = [(name, v.colour, v.dash) for name, v in named.items()]
    written = []
    curves = "Bands: 95 % intervals over prompts. Dashed line and strip: onset of a flagged fall, its 90 % interval."
    parts = "Shares of the mean pairwise distance at the base. Whiskers: 95 % intervals."
    for name, group, columns, entries, note in (
        ("lineage", charts.whole, 3, legend, curves),
        ("tasks", charts.tasks, 4, legend, curves),
        ("split", charts.splits, 3, [], parts),
        ("quality", charts.quality, 2, legend, "Paths run from the hollow dot (start) to the large dot (end)."),
    ):
        cells = [(chart.title, str(chart.svg)) for chart in group if chart.metric in ("", report.primary)]
        if cells:
            svg = sheet(cells, columns, entries, crowded=len(report.lineages) > 3, note=note)
            written.append(write_png(svg, folder / f"{name}.png"))
            written.append(write_pdf(svg, folder / f"{name}.pdf"))
    return written
