"""`divwatch score A.jsonl B.jsonl ...`: differences between files of outputs, paired by prompt.

Every file is scored at the same number of outputs: metrics that grow with it are rarefied to the smallest K. Differences
are means over prompts that both files have; intervals cover prompts (`analysis/compare.py`) and hold for all files of a
metric together (single-step max-t).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from divwatch.analysis.compare import Effect, Item, compare_arms
from divwatch.errors import DivwatchError
from divwatch.files import without_nan
from divwatch.metrics.scoring import RAREFIED
from divwatch.outputs.numbers import change, plain
from divwatch.score_file.rows import Row, read_rows
from divwatch.words import signed

GROUPS = {"metrics": "diversity", "correct": "correct_diversity"}
LONGER = 1.2  # ratio of mean lengths from which on a warning is due


def common_metrics(metrics: Sequence[str], ks: Sequence[int]) -> list[str]:
    """The metrics at the smallest K: where the files differ in it, those that grow with K are rarefied.

    >>> common_metrics(["ead", "sbert"], [8, 8]), common_metrics(["ead", "sbert"], [16, 8])
    (['ead', 'sbert'], ['ead@8', 'sbert'])
    """
    if len(set(ks)) == 1:
        return list(metrics)
    return [f"{name}@{min(ks)}" if name in RAREFIED else name for name in metrics]


def compare_scores(paths: Sequence[Path], results: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """How the second and later files stand to the first: `differences`, a sentence for each in `findings`, `warnings`.

    results: of `score_file` for each path. Raises DivwatchError if two files share no prompt.
    """
    names = _names(paths)
    rows = [{_key(row): row for row in read_rows(path)} for path in paths]
    shared = [key for key in rows[0] if all(key in other for other in rows[1:])]
    if not shared:
        raise DivwatchError(
            f"{' and '.join(map(str, paths))} have no prompt in common: prompts are paired by text, else by id"
        )
    differences: list[dict[str, Any]] = []
    for part, group in GROUPS.items():
        for metric in results[0][part]:
            if metric == "n_prompts" or any(metric not in result[part] for result in results):
                continue
            if part == "correct" and metric in RAREFIED:
                continue  # it grows with the number of correct outputs, so with accuracy
            values = [
                _column(result[part][metric]["per_prompt"], own, shared)
                for result, own in zip(results, rows, strict=True)
            ]
            differences += _differences(f"{group}/{metric}", values, [rows[0][k].task for k in shared], names, seed)
    accuracy = [_accuracy(result, own, shared) for result, own in zip(results, rows, strict=True)]
    if all(np.isfinite(column).any() for column in accuracy):
        differences += _differences("quality/accuracy", accuracy, [rows[0][k].task for k in shared], names, seed)
    return without_nan(
        {
            "files": [str(path) for path in paths],
            "against": names[0],
            "prompts": len(shared),
            "differences": differences,
            "findings": [_sentence(name, names[0], differences) for name in names[1:]],
            "warnings": _warnings(names, results, rows, shared),
        }
    )


def _differences(
    key: str, values: Sequence[np.ndarray], tasks: Sequence[str], names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    items = [Item(name, at, 0) for at, name in enumerate(names) if at]
    effects = compare_arms({key: np.stack(values)[:, None, :]}, tasks, items, seed=seed).effects
    return [_row(effect, names[0]) for effect in effects]


def _row(effect: Effect, against: str) -> dict[str, Any]:
    relative = effect.measure != "quality/accuracy"
    scale = (1 / effect.level if effect.level > 0 else float("nan")) if relative else 1.0
    return {
        "file": effect.name,
        "against": against,
        "metric": effect.measure,
        "difference": effect.value,
        "ci95": [effect.lo, effect.hi],
        "relative": effect.value * scale,
        "relative_ci95": [effect.lo * scale, effect.hi * scale],
        "p": effect.p,
        "prompts": effect.n,
    }


def _sentence(name: str, against: str, differences: Sequence[dict[str, Any]]) -> str:
    """`B is 12 % less diverse than A [-15, -9]; correct answers -4 % [-9, +1]; accuracy ...`."""
    mine = {row["metric"]: row for row in differences if row["file"] == name}
    first = next((m for m in ("diversity/sbert", *mine) if m in mine), None)
    if first is None:
        return f"{name} cannot be compared with {against}: no metric has a value on prompts of both"
    row = mine[first]
    parts = [f"{name} is {_amount(row['relative'], against)} {_interval(row)} ({first.split('/')[1]})"]
    correct = mine.get("correct_" + first)
    if correct is not None:
        parts.append(f"correct answers {plain(change(correct['relative'], *correct['relative_ci95']))}")
    if (accuracy := mine.get("quality/accuracy")) is not None:
        lo, hi = accuracy["ci95"]
        parts.append(f"accuracy {signed(100 * accuracy['difference'])} points [{signed(100 * lo)}, {signed(100 * hi)}]")
    return "; ".join(parts)


def _amount(value: float, against: str) -> str:
    """
    >>> _amount(-0.12, "A"), _amount(0.001, "A")
    ('12 % less diverse than A', 'as diverse as A')
    """
    size = f"{100 * abs(value):.0f}"
    return (
        f"as diverse as {against}"
        if size == "0"
        else f"{size} % {'less' if value < 0 else 'more'} diverse than {against}"
    )


def _interval(row: dict[str, Any]) -> str:
    lo, hi = row["relative_ci95"]
    return "" if np.isnan(lo) else f"[{signed(100 * lo)}, {signed(100 * hi)}]"


def _warnings(
    names: Sequence[str], results: Sequence[dict[str, Any]], rows: Sequence[dict[str, Row]], shared: Sequence[str]
) -> list[str]:
    lines = []
    ks = [result["k"] for result in results]
    if len(set(ks)) > 1:
        counts = ", ".join(f"{k} in {name}" for name, k in zip(names, ks, strict=True))
        lines.append(
            f"outputs per prompt differ ({counts}): metrics that grow with their number are rarefied to {min(ks)}"
        )
    for name, own in zip(names, rows, strict=True):
        if len(own) > len(shared):
            lines.append(
                f"{len(own) - len(shared)} of {len(own)} prompts of {name} are not in every file and are left out"
            )
    words = [float(np.mean([len(text.split()) for key in shared for text in own[key].outputs])) for own in rows]
    for name, mean in zip(names[1:], words[1:], strict=True):
        if max(mean, words[0]) > LONGER * min(mean, words[0]):
            lines.append(
                f"outputs of {name} have {mean:.0f} words on average, those of {names[0]} {words[0]:.0f}: diversity depends "
                "on length, so part of a difference may be length"
            )
    return lines


def _key(row: Row) -> str:
    """What prompts are paired by: the task and text, or the id where there is no text."""
    return f"{row.task}\0{row.prompt}" if row.prompt else f"\0{row.id}"


def _column(per_prompt: dict[str, float | None], rows: dict[str, Row], shared: Sequence[str]) -> np.ndarray:
    values = [per_prompt.get(rows[key].id) for key in shared]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _accuracy(result: dict[str, Any], rows: dict[str, Row], shared: Sequence[str]) -> np.ndarray:
    flags = [result["is_correct"].get(rows[key].id) for key in shared]
    return np.array([np.mean(own) if own else np.nan for own in flags], dtype=float)


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the files, with as much of their folders as tells them apart."""
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return [name.removesuffix(".jsonl") for name in names]
    raise DivwatchError("the same file is given twice: name each once")
