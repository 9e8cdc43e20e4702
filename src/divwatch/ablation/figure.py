"""The ranking as a figure: a panel a measure, a row a source or arm, with its simultaneous interval and its tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from divwatch.ablation.read import QUALITY, Arms
from divwatch.ablation.table import title
from divwatch.analysis.compare import Comparison

SURE, UNSURE, TASK = "#d55e00", "#0072b2", "#999999"


def write_figure(arms: Arms, found: Comparison, path: Path) -> None:
    """Rows in the order of the first measure's effects, lowest on top. Orange: the interval has no 0."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from divwatch.outputs.report.text import inert

    measures = list(arms.values)
    first = sorted((e for e in found.effects if e.measure == measures[0]), key=lambda e: e.value)
    order = [e.name for e in first]
    figure = Figure(figsize=(2.9 * len(measures) + 0.8, 1.0 + 0.36 * len(order)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(measures), sharey=True))
    for axis, measure in zip(axes, measures, strict=True):
        tasks = [(e.value, order.index(e.name)) for e in found.by_task if e.measure == measure and e.name in order]
        if tasks:
            axis.plot(*zip(*tasks, strict=True), "|", color=TASK, markersize=5, zorder=1)
        for effect in (e for e in found.effects if e.measure == measure and e.name in order):
            colour = SURE if effect.lo > 0 or effect.hi < 0 else UNSURE
            row = order.index(effect.name)
            axis.plot([effect.lo, effect.hi], [row, row], color=colour, linewidth=1.6, zorder=2)
            axis.plot(effect.value, row, "o", color=colour, markersize=5, zorder=3)
        axis.axvline(0, color="black", linewidth=0.8, zorder=0)
        axis.set_title(title(measure), fontsize=8.5, loc="left", fontweight="bold")
        axis.set_xlabel("share of right answers" if measure == QUALITY else "difference", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#dddddd", linewidth=0.5)
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(order)), [inert(name) for name in order])
    axes[0].set_ylim(len(order) - 0.5, -0.5)
    what = f"{arms.names[0]} - without the source" if arms.sources else f"arm - {arms.names[0]}"
    size = f"{len(arms.seeds)} {'seed' if len(arms.seeds) == 1 else 'seeds'}, {len(arms.tasks)} prompts"
    marks = "; grey: single tasks" if found.by_task else ""
    figure.supxlabel(f"{inert(what)}; simultaneous {found.level:.0%} intervals, {size}{marks}", fontsize=7.5)
    figure.savefig(path, dpi=200)
