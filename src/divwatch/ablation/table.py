"""A comparison as rows for CSV and JSON, tables for a terminal, and a sentence for each measure."""

from __future__ import annotations

from typing import Any

from divwatch.ablation.read import QUALITY, ArmValues
from divwatch.analysis.compare import Comparison, Effect
from divwatch.files import without_nan
from divwatch.outputs.numbers import percent, plain
from divwatch.words import counted, signed

TITLES = {"diversity": "diversity", "correct_diversity": "correct-answer diversity", "quality": "accuracy"}


def rows(arms: ArmValues, comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each effect, or for a difference of two effects (`other`). Only effects over the whole panel have ranks."""
    table = []
    for effect in (*comparison.effects, *comparison.by_task, *comparison.pairs):
        ranked = (
            comparison.ranks[effect.measure].get(effect.name) if effect.task == "all" and not effect.other else None
        )
        table.append(
            {
                "kind": "pair" if effect.other else "source" if arms.sources else "arm",
                "measure": effect.measure, "task": effect.task, "name": effect.name, "other": effect.other,
                "difference": effect.value, "lo": effect.lo, "hi": effect.hi, "p": effect.p, "se": effect.se,
                "prompts": effect.n, "per_cent": per_cent(effect),
                "rank_lo": ranked[0] if ranked else None, "rank_hi": ranked[1] if ranked else None,
            }
        )  # fmt: skip
    return table


def per_cent(effect: Effect) -> float | None:
    """The effect in per cent of the reference arm's mean; accuracy in points."""
    if effect.measure == QUALITY:
        return 100 * effect.value
    return 100 * effect.value / effect.level if effect.level > 0 else None


def as_dict(arms: ArmValues, comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as JSON values; NaN is None."""
    table = without_nan(rows(arms, comparison))
    return {
        "arms": arms.names,
        "reference": arms.names[0],
        "seeds": arms.seeds,
        "prompts": len(arms.tasks),
        "level": comparison.level,
        "run_df": comparison.run_df,
        "effects": [row for row in table if row["kind"] != "pair"],
        "pairs": [row for row in table if row["kind"] == "pair"],
        "findings": findings(arms, comparison),
        "notes": arms.notes,
    }


def findings(arms: ArmValues, comparison: Comparison) -> list[str]:
    """One sentence for each measure: what lowers it, what raises it, and what stands out."""
    sentences = []
    for measure in arms.values:
        mine = sorted((e for e in comparison.effects if e.measure == measure), key=lambda e: e.value)
        lower, higher = [e for e in mine if e.hi < 0], [e for e in mine if e.lo > 0]
        parts = [
            f"{_joined(lower)} lower{_s(lower)} it" if lower else "",
            f"{_joined(higher)} raise{_s(higher)} it" if higher else "",
        ]
        what = "; ".join(part for part in parts if part) or "no clear effect"
        sentences.append(f"{title(measure)}: {what}; {_standing_out([e.name for e in mine], comparison, measure)}")
    return sentences


def _standing_out(names: list[str], comparison: Comparison, measure: str) -> str:
    """The names (lowest effect first) that are certainly below, or above, every other one."""
    if len(names) < 2:
        return "one difference, nothing to rank"
    ranks = comparison.ranks[measure]
    last = len(names)
    lowest = [n for n in names if ranks[n] == (1, 1)]
    highest = [n for n in names if ranks[n] == (last, last)]
    if lowest or highest:
        return " and ".join(
            [f"{n} is below all others" for n in lowest] + [f"{n} is above all others" for n in highest]
        )
    differ = any(rank != (1, last) for rank in ranks.values())
    return "some differ from each other" if differ else "none ranks above another"


def _joined(effects: list[Effect]) -> str:
    return ", ".join(e.name for e in effects)


def _s(effects: list[Effect]) -> str:
    return "s" if len(effects) == 1 else ""


def title(measure: str) -> str:
    """What a measure is called in text.

    >>> title("correct_diversity/sbert")
    'correct-answer diversity (sbert)'
    """
    group, _, metric = measure.partition("/")
    return TITLES.get(group, group) + (f" ({metric})" if measure != QUALITY else "")


def show(arms: ArmValues, comparison: Comparison, by_task: bool = False) -> None:
    """Prints the ranking, the findings and the notes; `by_task` adds the effects of every task."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, width=max(Console().width, 110))
    meaning = f"effect of a source: {arms.names[0]} - without it" if arms.sources else f"arm - {arms.names[0]}"
    size = (
        f"{counted(len(arms.names), 'arm')} x {counted(len(arms.seeds), 'seed')}, {counted(len(arms.tasks), 'prompt')} of "
        f"{counted(len(set(arms.tasks)), 'task')}"
    )
    print(f"{size}; {meaning}; simultaneous {comparison.level:.0%} intervals")
    what = "source" if arms.sources else "arm"
    for measure in arms.values:
        mine = sorted((e for e in comparison.effects if e.measure == measure), key=lambda e: e.value)
        extra = [[_rank(e, comparison), _largest(e, comparison)] for e in mine]
        console.print(
            _table(title(measure), [what, *_HEADS, "rank", "largest on"], mine, [[e.name] for e in mine], extra)
        )
        tasks = sorted((e for e in comparison.by_task if e.measure == measure), key=lambda e: (e.task, e.value))
        if by_task and tasks:
            firsts = [[e.task, e.name] for e in tasks]
            console.print(
                _table(f"{title(measure)}, by task", ["task", what, *_HEADS], tasks, firsts, [[]] * len(tasks))
            )
    for line in [*findings(arms, comparison), *(f"note: {note}" for note in arms.notes), *_caution(comparison)]:
        console.print(line)


_HEADS = ("effect", "interval", "of the reference", "p")


def _table(
    head: str, columns: list[str], effects: list[Effect], firsts: list[list[str]], extra: list[list[str]]
) -> Any:
    """firsts, extra: the cells before and after the numbers of each effect."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, title=head, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < len(firsts[0]) else "right", no_wrap=True)
    for effect, first, last in zip(effects, firsts, extra, strict=True):
        table.add_row(*first, *_numbers(effect), *last)
    return table


def _numbers(effect: Effect) -> list[str]:
    share = per_cent(effect)
    known = effect.p == effect.p  # too few prompts give an effect and no interval
    text = "" if share is None else plain(percent(share / 100, digits=1))
    return [
        signed(effect.value, 4),
        f"[{signed(effect.lo, 4)}, {signed(effect.hi, 4)}]" if known else "",
        text.replace("%", "points") if effect.measure == QUALITY else text,
        "" if not known else "< 0.001" if effect.p < 0.001 else f"{effect.p:.3f}",
    ]


def _rank(effect: Effect, comparison: Comparison) -> str:
    lo, hi = comparison.ranks[effect.measure][effect.name]
    return str(lo) if lo == hi else f"{lo} to {hi}"


def _largest(effect: Effect, comparison: Comparison) -> str:
    """The task with the largest effect, of those whose interval excludes 0."""
    mine = [e for e in comparison.by_task if (e.measure, e.name) == (effect.measure, effect.name)]
    largest = max((e for e in mine if e.lo > 0 or e.hi < 0), key=lambda e: abs(e.value), default=None)
    return "" if largest is None else f"{largest.task} {signed(largest.value, 3)}"


def _caution(comparison: Comparison) -> list[str]:
    if comparison.run_df:
        return []
    return [
        "note: one run an arm (or one seed in common): intervals hold how much a run moves from look to look, not how runs "
        "differ with their seed"
    ]
