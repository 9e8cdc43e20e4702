"""Runs as arms: from the folders of an ablation, or any folders of runs, to values by arm, seed and prompt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divwatch.ablation.launch import FINISHED, RECORD
from divwatch.ablation.plan import FULL
from divwatch.analysis.assess import PRIMARY
from divwatch.analysis.compare import Item
from divwatch.errors import DivwatchError
from divwatch.files import read_json_object
from divwatch.records import PromptScores
from divwatch.store.run_directory import RunDirectory
from divwatch.store.search import find_runs

QUALITY = "quality/accuracy"
# Settings of a look that decide its values: runs that differ in one are not compared.
MUST_MATCH = ("samples", "temperature", "top_p", "max_new_tokens", "encoder", "form", "thinking", "think_tokens")


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone. left_out: the source whose effect this arm shows, None for other arms."""

    name: str
    runs: dict[int, RunDirectory]
    left_out: str | None = None


@dataclass(frozen=True)
class Arms:
    """What is compared. values: measure -> [arms, seeds, prompts]; arms[0] is the reference.

    sources: the arms leave one source out each, and effects are those of the sources. notes: what was left out, and why.
    """

    names: list[str]
    seeds: list[int]
    tasks: list[str]
    values: dict[str, NDArray[np.float64]]
    items: list[Item]
    sources: bool
    notes: list[str]


def read_arms(paths: Sequence[Path], against: str | None = None, metric: str | None = None) -> Arms:
    """The arms under `paths`: an ablation's folder, or a folder an arm (the runs below it are its seeds).

    against: the reference; default: `full`, else the first. metric: of the diversity measures; default: what carries the
    alarm. Raises DivwatchError where there are no two arms, or where they were not watched alike.
    """
    notes: list[str] = []
    ablation = len(paths) == 1 and (Path(paths[0]) / RECORD).is_file()
    arms = _of_ablation(Path(paths[0]), notes) if ablation else _of_folders(paths)
    arms = _reference_first(arms, against)
    if len(arms) < 2:
        raise DivwatchError(
            f"{len(arms)} arm with a run in {', '.join(map(str, paths))}: give an ablation's folder, or two runs or more"
        )
    arms, seeds = _paired(arms, notes)
    looks = [[_last_look(run, notes) for run in arm.runs.values()] for arm in arms]
    _check_alike([run for arm in arms for run in arm.runs.values()])
    _check_steps(arms, looks, notes)
    ids, tasks = _common_prompts([scores for arm in looks for _, scores in arm])
    keys = _measures(looks[0][0][1], metric)
    values = {k: np.array([[_column(scores, k, ids) for _, scores in arm] for arm in looks]) for k in keys}
    values = {k: table for k, table in values.items() if np.isfinite(table).any()}
    sources = all(arm.left_out is not None for arm in arms[1:]) and arms[0].left_out is None
    items = [
        Item(arm.left_out, 0, i) if sources and arm.left_out else Item(arm.name, i, 0)
        for i, arm in enumerate(arms)
        if i
    ]
    return Arms([arm.name for arm in arms], seeds, tasks, values, items, sources, list(dict.fromkeys(notes)))


# which runs


def _of_ablation(folder: Path, notes: list[str]) -> list[Arm]:
    try:
        record = read_json_object(folder / RECORD)
    except DivwatchError:
        raise DivwatchError(f"{folder / RECORD} is damaged: run divwatch ablate again, which writes it anew") from None
    arms = []
    for told in record["arms"]:
        runs = {}
        for seed in record["seeds"]:
            place = folder / told["name"] / f"seed-{seed}"
            if (place / FINISHED).is_file():
                runs[seed] = RunDirectory.of(place)
            else:
                notes.append(f"{told['name']} seed {seed} is not finished and is left out")
        if runs:
            arms.append(Arm(told["name"], runs, told["left_out"]))
    return arms


def _of_folders(paths: Sequence[Path]) -> list[Arm]:
    """A folder an arm. A single run stands for its arm whatever its seed: 0."""
    arms = []
    for path, name in zip(paths, _short([Path(p) for p in paths]), strict=True):
        found = [RunDirectory(run) for run in find_runs([path])]
        runs = {0: found[0]} if len(found) == 1 else {_seed(run): run for run in found}
        if len(runs) < len(found):
            raise DivwatchError(f"{path} holds two runs with the same seed: an arm's runs differ in their seed alone")
        arms.append(Arm(name, runs))
    return arms


def _seed(run: RunDirectory) -> int:
    return (run.info().get("seeds") or {}).get("train") or 0


def _short(paths: list[Path]) -> list[str]:
    """Paths without what they begin with alike."""
    whole = [os.path.abspath(p.parent if p.name == "divwatch" else p) for p in paths]
    if len(set(whole)) < len(whole):
        raise DivwatchError("the same run is given twice: name each once")
    shared = os.path.commonpath(whole)
    return [os.path.relpath(path, shared) if path != shared else os.path.basename(path) for path in whole]


def _reference_first(arms: list[Arm], against: str | None) -> list[Arm]:
    names = [arm.name for arm in arms]
    if against is not None and against not in names:
        raise DivwatchError(f"no arm {against!r} with a finished run: the arms are {', '.join(names)}")
    wanted = against or (FULL if FULL in names else None)
    return sorted(arms, key=lambda arm: arm.name != wanted) if wanted else arms


def _paired(arms: list[Arm], notes: list[str]) -> tuple[list[Arm], list[int]]:
    """The arms with the seeds that all of them have."""
    seeds = [s for s in arms[0].runs if all(s in arm.runs for arm in arms)]
    if not seeds:
        raise DivwatchError(
            "the arms have no seed in common ("
            + "; ".join(f"{arm.name}: {', '.join(map(str, arm.runs))}" for arm in arms)
            + "): train them with the same seeds"
        )
    for arm in arms:
        extra = sorted(set(arm.runs) - set(seeds))
        if extra:
            notes.append(f"{arm.name}: seed {', '.join(map(str, extra))} is left out, not every arm has it")
    return [Arm(arm.name, {s: arm.runs[s] for s in seeds}, arm.left_out) for arm in arms], seeds


# what they hold


def _last_look(run: RunDirectory, notes: list[str]) -> tuple[int, PromptScores]:
    looks = run.looks()
    comparable = [look["step"] for look in looks if look["status"] == "ok"]
    if not comparable:
        raise DivwatchError(f"{run.path} has no comparable look: see looks.jsonl for the reasons")
    if comparable[-1] != looks[-1]["step"]:
        notes.append(f"{run.path.parent}: its last look is not comparable, step {comparable[-1]} is taken")
    return comparable[-1], run.scores(comparable[-1])


def _check_alike(runs: list[RunDirectory]) -> None:
    first = runs[0].info()["settings"]
    for run in runs[1:]:
        theirs = run.info()["settings"]
        for name in MUST_MATCH:
            if theirs.get(name) != first.get(name):
                raise DivwatchError(
                    f"{run.path.parent} was watched with {name} {theirs.get(name)!r}, {runs[0].path.parent} with "
                    f"{first.get(name)!r}: watch them alike, or measure both anew (divwatch measure)"
                )


def _check_steps(arms: list[Arm], looks: list[list[tuple[int, PromptScores]]], notes: list[str]) -> None:
    steps = {arm.name: sorted({step for step, _ in mine}) for arm, mine in zip(arms, looks, strict=True)}
    if len({step for mine in steps.values() for step in mine}) > 1:
        told = "; ".join(f"{name}: {', '.join(map(str, mine))}" for name, mine in steps.items())
        notes.append(f"the last looks are at different steps ({told})")


def _common_prompts(all_scores: list[PromptScores]) -> tuple[list[str], list[str]]:
    """Prompts that every run was asked, in the first run's order. A run leaves out those that are in its training data."""
    shared = set.intersection(*(set(scores.ids) for scores in all_scores))
    kept = [(i, t) for i, t in zip(all_scores[0].ids, all_scores[0].tasks, strict=True) if i in shared]
    fewest = min(len(scores.ids) for scores in all_scores)
    if 2 * len(kept) < fewest or not kept:
        raise DivwatchError(
            f"the runs share {len(kept)} of {fewest} prompts: watch them with one watch_panel, watch_prompts and watch_seed"
        )
    return [i for i, _ in kept], [t for _, t in kept]


def _measures(scores: PromptScores, metric: str | None) -> list[str]:
    known = [key.removeprefix("diversity/") for key in scores.values if key.startswith("diversity/")]
    if metric is not None and metric not in known:
        raise DivwatchError(f"metric {metric!r} was not measured: choose from {', '.join(known)}")
    chosen = metric or next((m for m in PRIMARY if m in known), known[0] if known else None)
    wanted = [f"diversity/{chosen}", f"correct_diversity/{chosen}", QUALITY]
    return [key for key in wanted if key in scores.values]


def _column(scores: PromptScores, key: str, ids: list[str]) -> Any:
    at = {prompt: i for i, prompt in enumerate(scores.ids)}
    column = scores.values.get(key)
    return [np.nan] * len(ids) if column is None else [column[at[i]] for i in ids]
