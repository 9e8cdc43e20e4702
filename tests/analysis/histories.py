"""Histories of runs whose kind of change is known: correct and wrong outputs with distances of their own."""

from __future__ import annotations

import numpy as np

from divwatch.analysis.history import History
from divwatch.records import PromptScores

K = 16


def history(
    *,
    looks: int = 8,
    per_task: int = 16,
    tasks: tuple[str, ...] = ("pair", "expr", "word"),
    accuracy=0.6,
    correct_distance=0.4,
    wrong_distance=0.5,
    across=0.6,
    ead=0.5,
    usable=1.0,
    finished=None,
    repetition=0.02,
    judged: bool = True,
    floor: float = 0.5,
    only_task: str | None = None,
    wobble: float = 0.01,
    seed: int = 0,
) -> History:
    """Each level is a number, a pair (before, after) ramped over looks 2 and 3, or a list of every look's."""
    rng = np.random.default_rng(seed)
    names = [task for task in tasks for _ in range(per_task)]
    n = len(names)
    own = {name: rng.normal(1, 0.15, n).clip(0.5, 1.5) for name in ("correct", "wrong", "across", "ead")}
    paths = {
        name: _path(value, looks)
        for name, value in {
            "accuracy": accuracy,
            "correct": correct_distance,
            "wrong": wrong_distance,
            "across": across,
            "ead": ead,
            "usable": usable,
            "repetition": repetition,
        }.items()
    }
    chance = rng.normal(0, 0.1, n)
    taken = []
    for look in range(looks):
        at = {name: np.full(n, path[look]) for name, path in paths.items()}
        if only_task is not None:
            for name, path in paths.items():
                at[name] = np.where(np.array(names) == only_task, at[name], path[0])
        shared = 1 + wobble * rng.standard_normal()
        k = rng.binomial(K, at["usable"])
        right = rng.binomial(k, (at["accuracy"] + chance).clip(0.02, 0.98))
        wrong = k - right
        counts = np.column_stack([right * (right - 1) / 2, right * wrong, wrong * (wrong - 1) / 2])
        levels = [at["correct"] * own["correct"], at["wrong"] * own["wrong"], at["wrong"] * own["wrong"]]
        distances = np.column_stack([(level * shared + 0.03 * rng.standard_normal(n)).clip(0.01) for level in levels])
        distances[counts == 0] = np.nan
        total = counts.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            everything = np.where(total > 0, np.nansum(counts * distances, axis=1) / total, np.nan)
        noise = 0.02 * rng.standard_normal((2, n))
        values = {
            "diversity/sbert": everything,
            "diversity/ead": at["ead"] * own["ead"] * shared + noise[0],
            "across/sbert": at["across"] * own["across"] * shared + noise[1],
            "quality/usable": k / K,
            "quality/repetition": rng.binomial(K, at["repetition"]) / K,
        }
        if finished is not None:
            values["quality/finished"] = np.full(n, _path(finished, looks)[look])
        if judged:
            values["correct_diversity/sbert"] = distances[:, 0]
            values["quality/accuracy"] = right / K
            for g, group in enumerate(("cc", "cw", "ww")):
                values[f"pairs/{group}_count"], values[f"pairs/{group}_distance"] = counts[:, g], distances[:, g]
        ids = [f"{task}-{i}" for i, task in enumerate(names)]
        taken.append((25 * look, PromptScores(ids, names, values), bool((k / K).mean() >= floor)))
    return History.of(taken)


def _path(value, looks: int) -> np.ndarray:
    if isinstance(value, list):
        return np.array(value, dtype=float)
    before, after = value if isinstance(value, tuple) else (value, value)
    return np.interp(np.arange(looks), [1, 3], [before, after])
