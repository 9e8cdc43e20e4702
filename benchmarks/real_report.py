"""What the runs of real.py show, for docs/real.md: changes, differences, split, stages, wobble, samples, and a figure.

Each function takes the runs that have ended, so the page can be written while others still train. Intervals are over
prompts, after averaging over the seeds, unless a heading says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import wobble
from measuring import place
from real import ARMS, folder_of
from scipy import stats

from divwatch.analysis.compare import Item, compare_arms
from divwatch.analysis.intervals import Interval, bootstrap_ratio
from divwatch.store.tables import RunTables, lineages, load_run, load_runs

KEY, TASK = "diversity/sbert", "noveltybench"
ACCURACY, CHECKED = "quality/accuracy", "ifeval"
PAIRS = [("one", "many"), ("dpo-one", "dpo-many"), ("dpo-one", "null"), ("dpo-many", "null")]
Runs = dict[str, dict[int, RunTables]]  # arm -> seed -> run
Floats = np.ndarray
SHOWN = ("Tell me a funny joke", "Name one reputed job", "Who is a popular writer")  # beginnings of prompts to quote
SAMPLES, CHARACTERS = 4, 90


def write(seeds: Sequence[int], docs: Path) -> None:
    """Writes the results into docs/real.md and the figure into docs/images. Prints the results."""
    runs = read(seeds)
    lines = [f"Runs: {'; '.join(f'{arm}, seeds {list(of_arm)}' for arm, of_arm in runs.items())}.", ""]
    for part in (changes, differences, split, stages, null_wobble, samples):
        lines += [*part(runs), ""]
    print("\n".join(lines))
    place(docs / "real.md", "results", lines[:-1])
    figure(runs, docs / "images" / "real.png")


def read(seeds: Sequence[int]) -> Runs:
    """The runs that have ended."""
    runs: Runs = {}
    for arm in ARMS.values():
        for seed in seeds:
            if (folder_of(arm, seed) / "done").is_file():
                runs.setdefault(arm.name, {})[seed] = load_run(folder_of(arm, seed) / "divwatch")
    return runs


def ends(run: RunTables, key: str = KEY, task: str = TASK) -> pd.DataFrame:
    """Columns `first` and `last`: the values of a task's prompts at the first and the last comparable look."""
    steps = [step for step, comparable in run.scored_looks() if comparable]
    looks = [run.values_at(step, key) for step in (steps[0], steps[-1])]
    table = pd.concat(looks, axis=1, keys=["first", "last"])
    return table.xs(task, level="task").dropna()


def by_prompt(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Each prompt's mean over the runs, of the prompts that all of them have."""
    return pd.concat(dict(enumerate(tables)), axis=1).dropna().T.groupby(level=1).mean().T


def change(table: pd.DataFrame) -> Interval:
    """(last - first) / first of the means over prompts."""
    return bootstrap_ratio(table[["first", "last"]], (-1, 1), (1, 0))


def changes(runs: Runs) -> list[str]:
    lines = [
        f"| run | `{TASK}` first | last | change | by seed | alarms | `{CHECKED}` accuracy | change, points | usable; ended |",
        "|---" * 9 + "|",
    ]
    for arm, of_arm in runs.items():
        values = by_prompt(ends(run) for run in of_arm.values())
        accuracy = by_prompt(ends(run, ACCURACY, CHECKED) for run in of_arm.values())
        points = bootstrap_ratio(accuracy.assign(unit=1.0)[["first", "last", "unit"]], (-1, 1, 0), (0, 0, 1))
        seeds = ", ".join(signed(change(ends(run)).mean) for run in of_arm.values())
        alarms = sum(bool(run.events) for run in of_arm.values())
        last = pd.DataFrame([run.looks.iloc[-1] for run in of_arm.values()])
        row = [
            f"`{arm}`",
            f"{values['first'].mean():.3f}",
            f"{values['last'].mean():.3f}",
            percent(change(values)),
            f"{seeds} %",
            f"{alarms} of {len(of_arm)}",
            f"{share(accuracy['first'])}, then {share(accuracy['last'])}",
            percent(points, ""),
            f"{share(last['usable_share'])}; {share(last['finished_share'])}",
        ]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def differences(runs: Runs) -> list[str]:
    lines = [
        "| difference of the changes, points | over prompts | by seed | over seeds (t) | both (`divwatch compare`) |",
        "|---" * 5 + "|",
    ]
    for plus, minus in PAIRS:
        seeds = sorted(set(runs.get(plus, {})) & set(runs.get(minus, {})))
        if not seeds:
            continue
        tables = [difference(runs[plus][seed], runs[minus][seed]) for seed in seeds]
        each = [float(table["d"].mean() / table["first"].mean()) for table in tables]
        whole = bootstrap_ratio(by_prompt(tables)[["d", "first"]], (1, 0), (0, 1))
        row = [f"`{plus}` - `{minus}`", percent(whole, ""), ", ".join(map(signed, each))]
        row += [over_seeds(each), with_runs(runs, plus, minus, seeds)] if len(seeds) > 1 else ["-", "-"]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def over_seeds(values: list[float]) -> str:
    """Mean and Student's interval."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    return percent(Interval(mean, *stats.t.interval(0.95, len(values) - 1, mean, error), len(values)), "")


def difference(plus: RunTables, minus: RunTables) -> pd.DataFrame:
    """By prompt: d, the difference of the two changes, and first, the level where both began."""
    both = pd.concat([ends(plus), ends(minus)], axis=1, keys=["plus", "minus"]).dropna()
    moved = both.xs("last", axis=1, level=1) - both.xs("first", axis=1, level=1)
    first = both.xs("first", axis=1, level=1).mean(axis=1)
    return pd.DataFrame({"d": moved["plus"] - moved["minus"], "first": first})


def with_runs(runs: Runs, plus: str, minus: str, seeds: Sequence[int]) -> str:
    """The difference at the last look, with the noise between runs in its interval."""
    table = pd.concat({(a, s): ends(runs[a][s])["last"] for a in (minus, plus) for s in seeds}, axis=1).dropna()
    values = table.to_numpy().T.reshape(2, len(seeds), -1)
    (effect,) = compare_arms({KEY: values}, [TASK] * len(table), [Item(plus, 1, 0)]).effects
    return percent(Interval(*(x / effect.level for x in (effect.value, effect.lo, effect.hi)), effect.n), "")


def split(runs: Runs) -> list[str]:
    from divwatch.outputs.report.findings import assess_stage

    parts = ("total", "quality_control", "genuine_narrowing", "cross_narrowing", "error_narrowing")
    lines = [f"| run, split of `{CHECKED}` | {' | '.join(p.replace('_', ' ') for p in parts)} |", "|---" * 6 + "|"]
    for arm, of_arm in runs.items():
        found = [assess_stage(run).splits.get(CHECKED) for run in of_arm.values()]
        found = [one for one in found if one is not None]
        if found:
            cells = [spread([getattr(one, part) for one in found], "{:+.3f}") for part in parts]
            lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    return lines


def stages(runs: Runs) -> list[str]:
    from divwatch.store.attribution import attribute_stages

    lines = [
        "| lineage, mean of both tasks | SFT, % of the model's diversity | second stage | kept | second stage by seed |",
        "|---|---|---|---|---|",
    ]
    for arm in [name for name in runs if ARMS[name].start]:
        found = []
        for seed in runs[arm]:
            (chain,) = lineages(load_runs([folder_of(ARMS[arm], seed)]))
            found.append(attribute_stages(chain, KEY, names=["first", "second"]))
        shares = [spread([100 * one.share[stage] for one in found], "{:+.0f}") for stage in ("first", "second")]
        kept = spread([100 * one.retained for one in found], "{:.0f}")
        intervals = "; ".join("[{:+.0f}, {:+.0f}]".format(*(100 * x for x in one.interval["second"])) for one in found)
        lines.append(f"| `many`, then `{arm}` | {shares[0]} | {shares[1]} | {kept} | {intervals} |")
    return lines


def null_wobble(runs: Runs) -> list[str]:
    """What all prompts of a look share in runs that should not change, beyond the noise of sampling."""
    if "null" not in runs:
        return []
    series = [wobble.relative_series(looks_of(run)) for run in runs["null"].values()]
    lines = ["| `null` | change of the mean at each look, % | noise of one look's change, % |", "|---|---|---|"]
    for (seed, run), (y, noise) in zip(runs["null"].items(), series, strict=True):
        steps = [step for step, comparable in run.scored_looks() if comparable]
        moved = ", ".join(f"{100 * (v - y[0]):+.1f} (step {step})" for step, v in zip(steps, y, strict=True))
        error = np.sqrt(noise[0, 0] + np.diag(noise) - 2 * noise[0])[1:].mean()
        lines.append(f"| seed {seed} | {moved} | {100 * error:.1f} |")
    lines += ["", f"Wobble, from {wobble.described(series, largest=0.15)}."]
    return lines


def looks_of(run: RunTables) -> Floats:
    """[prompts, looks] of the task's prompts that have a value at every comparable look."""
    steps = [step for step, comparable in run.scored_looks() if comparable]
    return pd.concat([run.values_at(step, KEY) for step in steps], axis=1).xs(TASK, level="task").dropna().to_numpy()


def samples(runs: Runs) -> list[str]:
    """The first samples of some prompts before and after: the same random numbers at every look."""
    if not {"one", "many"} <= set(runs):
        return []
    seed = min(set(runs["one"]) & set(runs["many"]))
    one, many = runs["one"][seed], runs["many"][seed]
    prompts = {p["id"]: p["text"] for p in one.meta["panel"]["prompts"] if p["text"].startswith(SHOWN)}
    looks = {"before": (one, 0), "`one`, last look": (one, -1), "`many`, last look": (many, -1)}
    lines = []
    for id, text in prompts.items():
        lines += [f"*{text}* (seed {seed})", ""]
        for name, (run, which) in looks.items():
            table = run.completions(run.completion_steps()[which])
            texts = table[table["prompt_id"] == id].sort_values("sample")["text"][:SAMPLES]
            lines.append(f"- {name}: {' / '.join(quoted(text) for text in texts)}")
        lines.append("")
    return lines[:-1]


def figure(runs: Runs, path: Path) -> None:
    """The change since the model: a thin line for each seed, a thick one for their mean."""
    from divwatch.outputs.charts.area import Point, Series
    from divwatch.outputs.charts.export import sheet, write_png
    from divwatch.outputs.charts.pipeline import Axis, Panel, pipeline_chart

    def curve(run: RunTables, base: float, slot: int) -> list[Point]:
        rows = run.means[(run.means["task"] == TASK) & (run.means["key"] == KEY)]
        return [
            Point(slot + step / run.max_steps, level / base - 1)
            for step, level in zip(rows["step"], rows["mean"], strict=True)
        ]

    def series(arm: str, colour: int) -> list[Series]:
        curves = {}
        for seed, run in runs.get(arm, {}).items():
            base = ends(runs["many"][seed] if ARMS[arm].start else run)["first"].mean()
            curves[seed] = curve(run, base, int(bool(ARMS[arm].start)))
        drawn = [Series(f"{arm}, seed {seed}", [points], colour, thin=True) for seed, points in curves.items()]
        mean = [Point(at[0].x, float(np.mean([p.y for p in at]))) for at in zip(*curves.values(), strict=True)]
        return [*drawn, Series(f"{arm}, mean", [mean], colour)] if mean else []

    names = {"one": 0, "many": 1, "null": 2, "dpo-one": 3, "dpo-many": 4}
    groups = {
        "SFT on one teacher or on 16": ("one", "many"),
        "SFT on 16, then SFT or DPO": ("many", "null", "dpo-one", "dpo-many"),
    }
    drawn = [(title, [s for arm in arms for s in series(arm, names[arm])]) for title, arms in groups.items()]
    values = [point.y for _, group in drawn for s in group for point in s.segments[0]]
    limits = (min(values) - 0.03, max(values) + 0.03)
    charts = []
    for (title, group), slots in zip(drawn, (["SFT"], ["SFT", "SFT or DPO"]), strict=True):
        panel = Panel("Change of diversity, NoveltyBench", group, unit=" %", y_range=limits)
        charts.append((title, str(pipeline_chart([panel], Axis(slots), title, panel_height=240))))
    legend = [(name, colour, 0) for name, colour in names.items() if name in runs]
    write_png(sheet(charts, columns=2, legend=legend), path)


def signed(share: float) -> str:
    return f"{100 * share:+.0f}"


def percent(of: Interval, unit: str = " %") -> str:
    return f"{signed(of.mean)}{unit} [{signed(of.lo)}, {signed(of.hi)}]"


def spread(values: Sequence[float], form: str) -> str:
    """Mean over seeds (least to most)."""
    text: Callable[[Any], str] = form.format
    return f"{text(np.mean(values))} ({text(min(values))} to {text(max(values))})"


def share(of: pd.Series) -> str:
    return f"{100 * of.mean():.0f} %"


def quoted(text: str) -> str:
    line = " ".join(text.split()).replace("|", "/").replace("*", "")
    return f"“{line[:CHARACTERS]}{'...' if len(line) > CHARACTERS else ''}”"
