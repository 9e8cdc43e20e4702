"""Curves, comparisons of runs, the split and stages on simulated data of known truth: bias, false findings, coverage.

    python benchmarks/comparisons.py --runs 400 --write docs/ablations.md

Completions are drawn one by one where it matters (curves and split). Seeds start at --seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from drawn_pairs import accuracies, draw_pairs, moving_accuracy
from measuring import Result, options, place, publish
from rich.progress import track

from divwatch.analysis.compare import Item, compare_arms
from divwatch.analysis.curves import summarise_look
from divwatch.analysis.decompose import decompose_pairs
from divwatch.analysis.run_noise import wobble_of_looks
from divwatch.analysis.stages import stage_attribution
from divwatch.analysis.summary import summarise
from divwatch.records import PARTS, PromptScores

DRAWS = 600
KEY = "correct_diversity/sbert"
Numbers = dict[str, float]


@dataclass(frozen=True)
class Case:
    """runs(seed, **settings) gives numbers, whose means over the runs are the row."""

    name: str
    run: Callable[..., Numbers]
    settings: dict[str, Any] = field(default_factory=dict)


# curves


def curve(seed: int, ends: tuple[float, float], k: int, correlation: float) -> Numbers:
    """Accuracy moves and no prompt's spread does: by what share the logged curve and the plain mean move."""
    history = moving_accuracy(seed, np.linspace(*ends, 4), k, correlation=correlation)
    first, last = (
        PromptScores(history.ids, history.tasks, {key: table[look] for key, table in history.values.items()})
        for look in (0, -1)
    )
    start = summarise(first)["all"][KEY]["mean"]
    logged = summarise_look(history, last)["all"][KEY]["mean"]
    return {"logged curve": logged / start - 1, "plain mean": summarise(last)["all"][KEY]["mean"] / start - 1}


CURVES = [
    Case(f"accuracy {a} to {b}, K = {k}, correlation {r}", curve, {"ends": (a, b), "k": k, "correlation": r})
    for a, b in ((0.32, 0.66), (0.68, 0.34))
    for k in (16, 4)
    for r in (-0.3, -0.6)
]


# comparisons of runs


def single_runs(
    seed: int, wobble: float, looks: int = 21, rho: float = 0.0, prompts: int = 72, times: float = 1.0
) -> Numbers:
    """Two runs of equal truth on two measures. All prompts of a look share the run's wobble."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.1, 0.6, prompts)
    tables, wobbles = {}, {}
    for measure in ("a", "b"):
        shared = rng.standard_normal((2, looks))
        for look in range(1, looks):
            shared[:, look] = rho * shared[:, look - 1] + np.sqrt(1 - rho**2) * shared[:, look]
        shared *= np.array([[wobble], [times * wobble]])
        runs = level * (1 + shared[:, :, None]) + 0.03 * rng.standard_normal((2, looks, prompts))
        tables[measure] = runs[:, -1:]
        wobbles[measure, "all"] = [wobble_of_looks(range(looks), run) for run in runs]
    tasks = [f"t{i % 6}" for i in range(prompts)]
    with_wobble = compare_arms(tables, tasks, [Item("b", 1, 0)], draws=DRAWS, wobbles=wobbles)
    without = compare_arms(tables, tasks, [Item("b", 1, 0)], draws=DRAWS)
    return {"false findings": missed(with_wobble.effects), "prompts alone": missed(without.effects)}


def ablation(
    seed: int, arms: int = 5, seeds: int = 3, wobble: float = 0.01, interaction: float = 0.0, times: float = 1.0,
    noise: float = 0.04, prompts: int = 72,
) -> Numbers:  # fmt: skip
    """Arms of equal truth whose runs wobble, with seeds as blocks, on two measures. times: of the last arm's wobble."""
    rng = np.random.default_rng(seed)
    sds = np.full((arms, 1, 1), wobble)
    sds[-1] *= times
    tables = {}
    for measure in ("a", "b"):
        values = rng.uniform(0.1, 0.6, prompts) + interaction * rng.standard_normal((arms, 1, prompts))
        values = values + sds * rng.standard_normal((arms, seeds, 1)) + wobble * rng.standard_normal((1, seeds, 1))
        tables[measure] = values + noise * rng.standard_normal((arms, seeds, prompts))
    items = [Item(f"s{i}", i, 0) for i in range(1, arms)]
    found = compare_arms(tables, [f"t{i % 6}" for i in range(prompts)], items, draws=DRAWS)
    return {"false findings": missed([*found.effects, *found.pairs])}


def missed(effects: Any) -> float:
    """1 if any interval leaves out the true difference, 0."""
    return float(any(e.lo > 0 or e.hi < 0 for e in effects))


SINGLE = [
    *(Case(f"wobble {100 * w:g} %", single_runs, {"wobble": w}) for w in (0.005, 0.01, 0.02)),
    Case("wobble 1 %, correlation 0.7", single_runs, {"wobble": 0.01, "rho": 0.7}),
    Case("wobble 2 %, 2 looks", single_runs, {"wobble": 0.02, "looks": 2}),
    Case("wobble 2 %, 6 looks", single_runs, {"wobble": 0.02, "looks": 6}),
    Case("wobble 1 %, 480 prompts", single_runs, {"wobble": 0.01, "prompts": 480}),
    Case("one wobbles three times as much", single_runs, {"wobble": 0.01, "times": 3.0}),
]
ABLATIONS = [
    Case("5 arms x 3 seeds", ablation),
    Case("the same, no wobble", ablation, {"wobble": 0.0}),
    Case("the same, wobble twice as large", ablation, {"wobble": 0.02}),
    Case("the same, prompts favor an arm", ablation, {"interaction": 0.03}),
    Case("2 arms x 3 seeds", ablation, {"arms": 2}),
    Case("5 x 3, one arm wobbles three times as much", ablation, {"times": 3.0}),
    Case("the same, prompts favor an arm", ablation, {"times": 3.0, "interaction": 0.03}),
]


# the split


def split(seed: int, k: int, accuracy: float, wobble: float, change: float, after: float | None = None) -> Numbers:
    """Every distance changes by `change`; accuracy goes from `accuracy` to `after`. Truth by many completions."""
    rng = np.random.default_rng(seed)
    prompts = 72
    p, easiness = accuracies(rng, [accuracy, accuracy if after is None else after], prompts)
    spread = 0.4 * np.exp(0.35 * (-0.45 * easiness + 0.89 * rng.standard_normal(prompts)))
    shared = 1 + wobble * rng.standard_normal(2)
    sides = []
    for i, factor in enumerate((1.0, 1 + change)):
        scale = np.full(prompts, factor * shared[i])
        sides.append(draw_pairs(rng, p[i], scale * spread, scale * 0.6, scale * 0.7, k))
    found = decompose_pairs(*sides, draws=DRAWS, wobble=wobble)
    truth = expected_split(p, spread, change)
    covered = [lo <= truth[name] <= hi for name, (lo, hi) in found.intervals.items()]
    leak = (found.quality_control - truth["quality_control"]) / truth["total"] if truth["total"] else 0.0
    return {"coverage": float(np.mean(covered)), "leak": float(leak)}


def expected_split(p: Any, spread: Any, change: float) -> Numbers:
    """The split of expectations: pair weights p^2, 2 p (1 - p), (1 - p)^2."""
    w0, w1 = (np.column_stack([q**2, 2 * q * (1 - q), (1 - q) ** 2]) for q in p)
    d0 = np.column_stack([spread, np.full_like(spread, 0.7), np.full_like(spread, 0.6)])
    d1 = d0 * (1 + change)
    parts = [((w1 - w0) * (d0 + d1) / 2).sum(axis=1).mean(), *((w0 + w1) / 2 * (d1 - d0)).mean(axis=0)]
    return dict(zip(PARTS, map(float, parts), strict=True)) | {"total": float(sum(parts))}


LEAKS = [
    Case(f"K = {k}, accuracy {a}", split, {"k": k, "accuracy": a, "wobble": 0.0, "change": -0.3})
    for k in (4, 8, 16)
    for a in (0.2, 0.5, 0.8)
]
SPLITS = [
    Case(f"wobble {100 * w:g} %, accuracy {a} to {b}", split,
         {"k": 16, "accuracy": a, "after": b, "wobble": w, "change": c})
    for w in (0.0, 0.01, 0.02)
    for a, b, c in ((0.5, 0.5, 0.0), (0.4, 0.7, -0.2))
]  # fmt: skip


# stages


def stages(seed: int, wobble: float) -> Numbers:
    """base, SFT (-20 %), DPO (no change), six tasks of 12 prompts, the default wobble."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.6, (6, 12))
    order, loss = ["base", "sft", "dpo"], {"base": 1.0, "sft": 0.8, "dpo": 0.8}
    values = {}
    for stage in order:
        shared = loss[stage] * (1 + wobble * rng.standard_normal())
        values[stage] = {f"t{i}": row * shared + 0.03 * rng.standard_normal(12) for i, row in enumerate(level)}
    found = stage_attribution(values, order)
    assert found.interval is not None
    truth = {"sft": -0.2, "dpo": 0.0}
    covered = [found.interval[s][0] <= truth[s] <= found.interval[s][1] for s in truth]
    return {"coverage": float(np.mean(covered)), "first collapse right": float(found.first_collapse == "sft")}


STAGES = [Case(f"wobble {100 * w:g} %", stages, {"wobble": w}) for w in (0.0, 0.005, 0.01, 0.02)]

SECTIONS = [
    ("The logged curve of correct answers when accuracy alone moves: mean change", CURVES, 0.15, "{:+.1%}"),
    ("Two single runs of equal truth, 72 prompts, 21 looks: share with any false finding", SINGLE, 1.0, "{:.3f}"),
    ("Ablations of equal truth, 72 prompts: share with any false finding", ABLATIONS, 1.0, "{:.3f}"),
    ("The split, every distance 30 % smaller: share of the change that goes to quality control, wrongly", LEAKS, 1.0, "{:.3f}"),
    ("The split, K = 16, 72 prompts: coverage of its five 95 % intervals", SPLITS, 1.0, "{:.3f}"),
    ("Stages with the default wobble: coverage, and the first collapse named right", STAGES, 1.0, "{:.3f}"),
]  # fmt: skip


def table(title: str, cases: list[Case], share: float, form: str, runs: int, first: int) -> list[str]:
    """share: of the runs that this section gets."""
    means = {}
    count = max(1, round(share * runs))
    for case in track(cases, title[:40], transient=True):
        rows = [case.run(seed, **case.settings) for seed in range(first, first + count)]
        means[case.name, len(means)] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    columns = [name for name in next(iter(means.values())) if not (name == "leak" and cases is SPLITS)]
    columns = [name for name in columns if not (name == "coverage" and cases is LEAKS)]
    lines = [f"{title} ({count} runs a row).", "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(form.format(row[c]) for c in columns)} |" for (name, _), row in means.items()]
    return [*lines, ""]


def main() -> int:
    def more(parser: Any) -> None:
        parser.add_argument("--runs", type=int, default=400, help="runs per case")
        parser.add_argument("--seed", type=int, default=1_000_000, help="seed of the first run of every case")
        parser.add_argument("--only", default="", help="only sections whose title contains this")
        parser.add_argument("--write", type=Path, help="a Markdown file: replace the part between its two marks")

    chosen = options(__doc__, more)
    started, result = time.process_time(), Result()
    for title, cases, share, form in SECTIONS:
        if chosen.only in title:
            result.add(*table(title, cases, share, form, chosen.runs, chosen.seed))
    minutes = (time.process_time() - started) / 60
    result.add(
        f"`python benchmarks/comparisons.py --runs {chosen.runs}`, seeds from {chosen.seed}, {minutes:.0f} minutes of one core."
    )
    if chosen.write:
        place(chosen.write, "comparisons", result.lines)
    return publish(result, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
