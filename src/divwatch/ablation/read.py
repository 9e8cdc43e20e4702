"""Runs on disk as values by arm, seed and prompt: from the folder of an ablation, or from any folders of runs."""

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
from divwatch.analysis.compare import Item, Wobbles
from divwatch.analysis.history import ALL, History, alarm_metric
from divwatch.analysis.run_noise import Wobble, wobble_of_looks
from divwatch.errors import DivwatchError
from divwatch.files import read_json_object
from divwatch.records import PromptScores
from divwatch.store.pairing import other_prompts
from divwatch.store.reader import RunReader
from divwatch.store.search import find_runs
from divwatch.words import counted

QUALITY = "quality/accuracy"
# Settings that decide the values of a look: runs that differ in one of them are not compared.
MUST_MATCH = ("samples", "temperature", "top_p", "max_new_tokens", "encoder", "form", "thinking", "think_tokens")


@dataclass(frozen=True)
class ArmRuns:
    """Runs that differ only in their seed. left_out: the source that the arm leaves out, None for other arms."""

    name: str
    runs: dict[int, RunReader]
    left_out: str | None = None


@dataclass(frozen=True)
class ArmValues:
    """What is compared. values: measure -> [arms, seeds, prompts], NaN if not computable; names[0] is the reference.

    sources: every other arm leaves one source out, and effects are those of the sources. notes: what is left out, and why.
    wobbles: with one seed, (measure, task) -> the wobble of each arm's run from look to look; else empty.
    """

    names: list[str]
    seeds: list[int]
    tasks: list[str]
    values: dict[str, NDArray[np.float64]]
    items: list[Item]
    sources: bool
    notes: list[str]
    wobbles: Wobbles


def read_arms(paths: Sequence[Path], against: str | None = None, metric: str | None = None) -> ArmValues:
    """The arms under `paths`: one folder of an ablation, or one folder for each arm, whose runs are its seeds.

    against: the name of the reference arm (default: `full`, else the first). metric: the diversity metric (default: the
    one that raises alarms). Raises DivwatchError for fewer than two arms and for runs with different settings.
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
    _check_settings([run for arm in arms for run in arm.runs.values()])
    _check_steps(arms, looks, notes)
    ids, tasks = _common_prompts(
        [run for arm in arms for run in arm.runs.values()], [s for arm in looks for _, s in arm]
    )
    keys = _measures(looks[0][0][1], metric)
    values = {k: np.array([[_column(scores, k, ids) for _, scores in arm] for arm in looks]) for k in keys}
    values = {k: table for k, table in values.items() if np.isfinite(table).any()}
    sources = all(arm.left_out is not None for arm in arms[1:]) and arms[0].left_out is None
    items = [
        Item(arm.left_out, 0, i) if sources and arm.left_out else Item(arm.name, i, 0)
        for i, arm in enumerate(arms)
        if i
    ]
    wobbles = _wobbles([run for arm in arms for run in arm.runs.values()], ids, list(values)) if len(seeds) == 1 else {}
    return ArmValues(
        [arm.name for arm in arms], seeds, tasks, values, items, sources, list(dict.fromkeys(notes)), wobbles
    )


# runs


def _of_ablation(folder: Path, notes: list[str]) -> list[ArmRuns]:
    try:
        record = read_json_object(folder / RECORD)
    except DivwatchError:
        raise DivwatchError(f"{folder / RECORD} is damaged: run divwatch ablate again to rewrite it") from None
    arms = []
    for arm in record["arms"]:
        runs = {}
        for seed in record["seeds"]:
            output_dir = folder / arm["name"] / f"seed-{seed}"
            if (output_dir / FINISHED).is_file():
                runs[seed] = RunReader.of(output_dir)
            else:
                notes.append(f"{arm['name']} seed {seed} is not finished and is left out")
        if runs:
            arms.append(ArmRuns(arm["name"], runs, arm["left_out"]))
    return arms


def _of_folders(paths: Sequence[Path]) -> list[ArmRuns]:
    """One arm for each folder. The run of a folder with a single run counts as seed 0."""
    arms = []
    for path, name in zip(paths, _short_names([Path(p) for p in paths]), strict=True):
        below = [RunReader(run) for run in find_runs([path])]
        runs = {0: below[0]} if len(below) == 1 else {_seed(run): run for run in below}
        if len(runs) < len(below):
            raise DivwatchError(f"{path} holds two runs with the same seed: an arm's runs differ only in their seed")
        arms.append(ArmRuns(name, runs))
    return arms


def _seed(run: RunReader) -> int:
    return (run.info().get("seeds") or {}).get("train") or 0


def _short_names(paths: list[Path]) -> list[str]:
    """The paths without their common beginning."""
    whole = [os.path.abspath(p.parent if p.name == "divwatch" else p) for p in paths]
    if len(set(whole)) < len(whole):
        raise DivwatchError("the same run is given twice: name each once")
    shared = os.path.commonpath(whole)
    return [os.path.relpath(path, shared) if path != shared else os.path.basename(path) for path in whole]


def _reference_first(arms: list[ArmRuns], against: str | None) -> list[ArmRuns]:
    names = [arm.name for arm in arms]
    if against is not None and against not in names:
        raise DivwatchError(f"no arm {against!r} with a finished run: the arms are {', '.join(names)}")
    reference = against or (FULL if FULL in names else names[0] if names else None)
    return sorted(arms, key=lambda arm: arm.name != reference)


def _paired(arms: list[ArmRuns], notes: list[str]) -> tuple[list[ArmRuns], list[int]]:
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
    return [ArmRuns(arm.name, {s: arm.runs[s] for s in seeds}, arm.left_out) for arm in arms], seeds


# values


def _last_look(run: RunReader, notes: list[str]) -> tuple[int, PromptScores]:
    comparable = run.comparable_steps()
    if not comparable:
        raise DivwatchError(f"{run.path} has no comparable look: see looks.jsonl for the reasons")
    if comparable[-1] != run.looks()[-1]["step"]:
        notes.append(f"{run.path.parent}: its last look is not comparable, step {comparable[-1]} is taken")
    return comparable[-1], run.scores(comparable[-1])


def _check_settings(runs: list[RunReader]) -> None:
    first = runs[0].info()["settings"]
    for run in runs[1:]:
        theirs = run.info()["settings"]
        for name in MUST_MATCH:
            if theirs.get(name) != first.get(name):
                raise DivwatchError(
                    f"{run.path.parent} was watched with {name} {theirs.get(name)!r}, {runs[0].path.parent} with "
                    f"{first.get(name)!r}: watch both with the same settings, or measure both again (divwatch measure)"
                )


def _check_steps(arms: list[ArmRuns], looks: list[list[tuple[int, PromptScores]]], notes: list[str]) -> None:
    steps = {arm.name: sorted({step for step, _ in mine}) for arm, mine in zip(arms, looks, strict=True)}
    if len({step for mine in steps.values() for step in mine}) > 1:
        by_arm = "; ".join(f"{name}: {', '.join(map(str, mine))}" for name, mine in steps.items())
        notes.append(f"the last looks are at different steps ({by_arm})")


def _common_prompts(runs: list[RunReader], all_scores: list[PromptScores]) -> tuple[list[str], list[str]]:
    """(ids, tasks) of the prompts of every run, in the first run's order. A run drops prompts in its training data."""
    infos = [run.info() for run in runs]
    differ = set().union(*(other_prompts(info, infos[0]) for info in infos[1:]))
    shared = set.intersection(*(set(scores.ids) for scores in all_scores)) - differ
    prompts = [(i, t) for i, t in zip(all_scores[0].ids, all_scores[0].tasks, strict=True) if i in shared]
    fewest = min(len(scores.ids) for scores in all_scores)
    if 2 * len(prompts) < fewest or not prompts:
        raise DivwatchError(
            f"the runs share {len(prompts)} of {counted(fewest, 'prompt')}: watch them with one watch_panel, watch_prompts and "
            "watch_seed" + (f" ({len(differ)} ids ask something else in another run)" if differ else "")
        )
    return [i for i, _ in prompts], [t for _, t in prompts]


def _wobbles(runs: Sequence[RunReader], ids: Sequence[str], keys: Sequence[str]) -> Wobbles:
    """(measure, task or "all") -> the wobble of each run over its comparable looks, on the prompts `ids`."""
    wobbles: dict[tuple[str, str], list[Wobble]] = {}
    for run in runs:
        history = History.of([(step, _only(run.scores(step), ids), True) for step in run.comparable_steps()])
        for key in keys:
            missing = np.full((len(history.steps), len(ids)), np.nan)
            for task in (ALL, *dict.fromkeys(history.tasks)):
                values = history.series_of(history.values.get(key, missing), task)
                wobbles.setdefault((key, task), []).append(wobble_of_looks(history.steps, values))
    return wobbles


def _only(scores: PromptScores, ids: Sequence[str]) -> PromptScores:
    """The scores of the prompts `ids`, in their order."""
    at = {prompt: i for i, prompt in enumerate(scores.ids)}
    rows = [at[i] for i in ids if i in at]
    columns = {key: np.asarray(column, dtype=float)[rows] for key, column in scores.values.items()}
    return PromptScores([scores.ids[i] for i in rows], [scores.tasks[i] for i in rows], columns)


def _measures(scores: PromptScores, metric: str | None) -> list[str]:
    known = [key.removeprefix("diversity/") for key in scores.values if key.startswith("diversity/")]
    if metric is not None and metric not in known:
        raise DivwatchError(f"metric {metric!r} was not measured: choose from {', '.join(known)}")
    metric = metric or alarm_metric(scores.values) or (known[0] if known else None)
    return [key for key in (f"diversity/{metric}", f"correct_diversity/{metric}", QUALITY) if key in scores.values]


def _column(scores: PromptScores, key: str, ids: list[str]) -> Any:
    at = {prompt: i for i, prompt in enumerate(scores.ids)}
    column = scores.values.get(key)
    return [np.nan] * len(ids) if column is None else [column[at[i]] for i in ids]
