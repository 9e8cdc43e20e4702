"""The figures as PNG and PDF, for papers and run reviews: drawn by matplotlib from the same tables as the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from divwatch.outputs.report.build import Report, metric_name
from divwatch.outputs.report.text import inert

# Okabe and Ito's colours, yellow left out: it cannot be read on white.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"]
DASHES: list[Any] = [
    "-",
    (0, (4, 1.6)),
    (0, (1, 1.4)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (2.5, 1.2)),
    (0, (1, 0.8)),
    (0, (8, 2)),
]
WIDTH = 7.2  # inches: the text width of most two-column papers


def write_figures(report: Report, folder: Path) -> list[Path]:
    """`lineage`, `tasks`, `split` and `quality`, each as PNG (200 dpi) and PDF. Returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    with _style():
        for name, figure in (
            ("lineage", lineage_figure(report)),
            ("tasks", tasks_figure(report)),
            ("split", split_figure(report)),
            ("quality", quality_figure(report)),
        ):
            if figure is not None:
                for suffix in ("png", "pdf"):
                    made.append(folder / f"{name}.{suffix}")
                    figure.savefig(made[-1], dpi=200)
                    figure.set_layout_engine("none")  # laid out once is enough
    return made


def lineage_figure(report: Report) -> Any:
    """Diversity, correct-answer diversity and accuracy over the whole lineage, all tasks together."""
    figure, axes = _figure(1, 3, 2.35)
    for axis, (key, title) in zip(axes[0], _keys(report), strict=True):
        _curves(report, axis, "all", key, title)
    axes[0][0].set_ylabel(metric_name(report.primary))
    _legend(report, figure)
    return figure


def tasks_figure(report: Report) -> Any:
    """A row a task, with the same three panels."""
    if not report.tasks:
        return None
    figure, axes = _figure(len(report.tasks), 3, 1.25)
    for i, task in enumerate(report.tasks):
        for j, (axis, (key, title)) in enumerate(zip(axes[i], _keys(report), strict=True)):
            _curves(report, axis, task, key, title if i == 0 else "", last=i == len(report.tasks) - 1)
            if j == 0:
                axis.set_ylabel(_plain(task), fontweight="bold")
    _legend(report, figure)
    return figure


def split_figure(report: Report) -> Any:
    """The change of diversity and its parts with their intervals, a panel a lineage, all its stages together."""
    table = report.tables["split"]
    table = table[(table["stage"] == "whole lineage") & (table["task"] == "all")]
    names = [v.name for v in report.lineages if (table["lineage"] == v.name).any()]
    if not names:
        return None
    columns = min(len(names), 3)
    figure, axes = _figure(-(-len(names) // columns), columns, 1.6, share_y=True)
    for axis, v in zip(axes.flat, [v for v in report.lineages if v.name in names], strict=False):
        part = table[table["lineage"] == v.name].iloc[::-1]
        error = [(100 * (part["value"] - part["lo"])).clip(lower=0), (100 * (part["hi"] - part["value"])).clip(lower=0)]
        colour = COLOURS[v.colour]
        axis.barh(part["name"], 100 * part["value"], color=colour, alpha=0.75, height=0.62)
        axis.errorbar(100 * part["value"], part["name"], xerr=error, fmt="none", ecolor="black", elinewidth=1)
        axis.axvline(0, color="black", linewidth=0.7)
        axis.set_title(_plain(v.name))
        axis.set_xlabel("% of diversity at the start")
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    return figure


def quality_figure(report: Report) -> Any:
    """Accuracy against diversity, of all and of correct outputs: a path a lineage, open dot to filled dot."""
    figure, axes = _figure(1, 2, 2.6)
    accuracy = _select(report.curves, "all", "quality/accuracy")
    for axis, (key, title) in zip(axes[0], _keys(report)[:2], strict=True):
        both = accuracy.merge(_select(report.curves, "all", key), on=["lineage", "number", "step"], suffixes=("", "_d"))
        for v in report.lineages:
            path = both[both["lineage"] == v.name].dropna(subset=["mean", "mean_d"])
            if path.empty:
                continue
            colour = COLOURS[v.colour]
            axis.plot(100 * path["mean"], path["mean_d"], color=colour, linestyle=DASHES[v.dash % 7], linewidth=1.1)
            axis.plot(100 * path["mean"].iloc[0], path["mean_d"].iloc[0], "o", color=colour, mfc="white", ms=5)
            axis.plot(100 * path["mean"].iloc[-1], path["mean_d"].iloc[-1], "o", color=colour, ms=5)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("accuracy, %")
        axis.set_ylabel(metric_name(report.primary))
        axis.set_title(title)
    _legend(report, figure)
    return figure


def _keys(report: Report) -> list[tuple[str, str]]:
    return [
        (f"diversity/{report.primary}", "Diversity"),
        (f"correct_diversity/{report.primary}", "Correct-answer diversity"),
        ("quality/accuracy", "Accuracy"),
    ]


def _select(curves: pd.DataFrame, task: str, key: str) -> pd.DataFrame:
    return curves[(curves["task"] == task) & (curves["key"] == key)]


def _curves(report: Report, axis: Any, task: str, key: str, title: str, last: bool = True) -> None:
    for i in range(1, len(report.slots), 2):
        axis.axvspan(i, i + 1, color="#eceff3", zorder=0)
    chosen = _select(report.curves, task, key)
    if chosen.empty:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color="#777777")
        axis.set_yticks([])
    for v in report.lineages:
        for _, part in chosen[chosen["lineage"] == v.name].groupby("number"):
            colour = COLOURS[v.colour]
            axis.plot(
                part["x"], part["mean"], color=colour, linestyle=DASHES[v.dash % 7], linewidth=0.7 if v.thin else 1.3
            )
            if not v.thin:
                axis.fill_between(part["x"], part["lo"], part["hi"], color=colour, alpha=0.17, linewidth=0)
            doubtful = part[part["status"] != "ok"]
            axis.plot(doubtful["x"], doubtful["mean"], "o", color=colour, mfc="white", ms=4)
    for onset in _onsets(report, task, key):
        colour = COLOURS[onset["colour"]]
        axis.axvspan(onset["x_lo"], onset["x_hi"], color=colour, alpha=0.1, linewidth=0)
        axis.axvline(onset["x"], color=colour, linewidth=0.9, linestyle=(0, (3, 2)))
    axis.set_xlim(0, len(report.slots))
    if key == "quality/accuracy":
        axis.set_ylim(0, 1)
    else:
        axis.set_ylim(bottom=0)
    labels = [f"{_plain(s)}\n{n}" for s, n in zip(report.slot_names, report.lengths, strict=True)] if last else []
    axis.set_xticks([i + 0.5 for i in range(len(labels))], labels)
    axis.tick_params(axis="x", length=0)
    if title:
        axis.set_title(title)


def _onsets(report: Report, task: str, key: str) -> Sequence[dict[Any, Any]]:
    table = report.tables["onsets"]
    return table[(table["task"] == task) & (table["key"] == key)].to_dict("records")


def _legend(report: Report, figure: Any) -> None:
    from matplotlib.lines import Line2D

    # Lineages that share a colour (many seeds of one line) share an entry.
    entries = {v.line if v.thin else v.name: v for v in report.lineages}
    handles = [
        Line2D([], [], color=COLOURS[v.colour], linestyle=DASHES[v.dash % 7], linewidth=1.5, label=_plain(name))
        for name, v in entries.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5), frameon=False)


def _figure(rows: int, columns: int, height: float, share_y: bool = False) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 0.45 + rows * height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=share_y)


def _plain(text: str) -> str:
    # A dollar sign would start mathematics.
    return inert(text).replace("$", r"\$")


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib
    from matplotlib.font_manager import get_font_names

    # Journals ask for Arial or Helvetica; DejaVu Sans comes with matplotlib.
    installed = set(get_font_names())
    settings: Any = {
        "font.family": next(f for f in ("Arial", "Helvetica", "Liberation Sans", "DejaVu Sans") if f in installed),
        "font.size": 8,
        "axes.titlesize": 8.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.5,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context(settings):
        yield
