"""Run directories as dataframes: what can be read is read, what cannot is named in `RunTables.notes`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from divwatch.errors import DivwatchError
from divwatch.records import PromptScores
from divwatch.store.lineage import chains, parent_of
from divwatch.store.pairing import ids_to_pair, recorded_prompts
from divwatch.store.reader import SCORED, RunReader, length_of
from divwatch.store.search import find_runs

LOOK_COLUMNS = ["step", "status", "reason", "time", "sample_seconds", "score_seconds", "total_seconds"]
# Shares of the completions of a look, in [0, 1], and the answers that were not judged, by reason.
LOOK_COLUMNS += ["usable_share", "finished_share", "closed_share", "unjudged"]
MEAN_COLUMNS = ["step", "task", "key", "mean", "lo", "hi", "n"]


@dataclass
class RunTables:
    """One training stage as its run directory holds it.

    looks:  one row per look: `LOOK_COLUMNS`.
    means:  one row per look, task and key: `MEAN_COLUMNS`, as written in looks.jsonl.
    scores: one row per look and prompt: `step`, `id`, `task` and a column per key.
    max_steps: length of the stage in optimizer steps (`length_of`).
    notes: what could not be read, a line each.
    pair_ids: prompt id -> the id to pair it by across the lineage, where another stage asks something else under its id.
    """

    directory: Path
    meta: dict[str, Any]
    max_steps: int
    looks: pd.DataFrame
    means: pd.DataFrame
    scores: pd.DataFrame
    events: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    pair_ids: dict[str, str] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return str(self.meta.get("stage") or self.directory.parent.name)

    @property
    def parent(self) -> Path | None:
        """The run directory of the stage before, if it can be found."""
        return parent_of(self.directory, self.meta)

    def scored_looks(self) -> list[tuple[int, bool]]:
        """(step, comparable) of the looks whose scores could be read."""
        readable = set(self.scores["step"])
        looks = zip(self.looks["step"], self.looks["status"], strict=True)
        return [(int(step), status == "ok") for step, status in looks if status in SCORED and step in readable]

    def last_comparable(self) -> int | None:
        """The step of the last look that can be compared with others."""
        return next((step for step, comparable in reversed(self.scored_looks()) if comparable), None)

    def prompt_scores(self, step: int) -> PromptScores:
        """Per-prompt values of one look."""
        scores = self.scores[self.scores["step"] == step]
        values = {key: scores[key].to_numpy(dtype=float) for key in scores.columns if "/" in key}
        return PromptScores(self.paired(scores["id"]), list(scores["task"]), values)

    def values_at(self, step: int, key: str) -> pd.Series:
        """Per-prompt values of one look and key, indexed by task and id; empty if the key was not measured."""
        scores = self.scores[self.scores["step"] == step]
        if key not in scores.columns:
            return pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], []], names=["task", "id"]))
        scores = scores.assign(id=self.paired(scores["id"]))
        return scores.drop_duplicates(["task", "id"]).set_index(["task", "id"])[key]

    def completions(self, step: int) -> pd.DataFrame:
        """The completions of one look, with the ids to pair by; empty if none are stored or the file cannot be read."""
        if step not in self.completion_steps():
            return pd.DataFrame()
        try:
            table = RunReader(self.directory).completion_table(step).to_pandas()
        except DivwatchError as error:
            self.notes.append(f"completions of step {step} cannot be read ({error})")
            return pd.DataFrame()
        return table.assign(prompt_id=self.paired(table["prompt_id"])) if "prompt_id" in table.columns else table

    def prompt_texts(self) -> dict[str, str]:
        """The texts of the run's prompts by the ids to pair by; empty if the run does not hold them."""
        prompts = recorded_prompts(self.meta)
        return dict(zip(self.paired(prompts), (str(p.get("text") or "") for p in prompts.values()), strict=True))

    def paired(self, ids: Iterable[str]) -> list[str]:
        """Prompt ids of the run as the ids to pair by."""
        return [self.pair_ids.get(id, id) for id in ids]

    def training(self) -> list[dict[str, float]]:
        """The trainer's loss and reward by step."""
        return RunReader(self.directory).training()

    def blames(self) -> list[dict[str, Any]]:
        """The lines of blame.jsonl by step, without those that are damaged."""
        return [line for line in RunReader(self.directory, []).blames() if _is_blame(line)]

    def planned_looks(self) -> int | None:
        return RunReader(self.directory).planned_looks()

    def completion_steps(self) -> list[int]:
        return RunReader(self.directory).completion_steps()


def load_runs(paths: Sequence[Path]) -> list[RunTables]:
    """The runs under `paths` and, if they can still be found, their ancestors."""
    directories = find_runs(paths)
    runs: dict[Path, RunTables] = {}
    while directories:
        directory = directories.pop(0)
        if directory not in runs:
            runs[directory] = load_run(directory)
            directories += [parent] if (parent := runs[directory].parent) else []
    return list(runs.values())


def load_run(directory: Path) -> RunTables:
    """One run directory. Raises DivwatchError if run.json cannot be read."""
    notes: list[str] = []
    reader = RunReader(directory, notes)
    meta, looks, events = reader.info(), reader.looks(), reader.events()
    scores = _scores(reader, [look["step"] for look in looks if look.get("status", "ok") in SCORED], notes)
    return RunTables(directory, meta, length_of(meta, looks), _looks(looks), _means(looks), scores, events, notes)


def lineages(runs: Sequence[RunTables]) -> list[list[RunTables]]:
    """Chains of runs from the first stage to each last one, in order of training (see `lineage.chains`)."""
    by_directory = {run.directory.resolve(): run for run in runs}

    def parent(directory: Path) -> Path | None:
        older = by_directory[directory].parent
        return older if older in by_directory else None

    paths = chains(by_directory, parent)
    loaded = [[by_directory[path] for path in chain] for chain in paths]
    for chain in loaded:
        for run, names in zip(chain, ids_to_pair([run.meta for run in chain]), strict=True):
            run.pair_ids = names
    return sorted(loaded, key=lambda chain: [str(run.meta.get("created", "")) for run in chain])


def _looks(looks: list[dict[str, Any]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for look in looks:
        seconds = look["seconds"] if isinstance(look.get("seconds"), dict) else {}
        rows.append(
            {
                "step": look["step"],
                "status": str(look.get("status", "ok")),
                "reason": str(look.get("reason") or ""),
                "time": look.get("time"),
                **{f"{part}_seconds": _number(seconds.get(part)) for part in ("sample", "score", "total")},
                **{name: _number(look.get(name)) for name in ("usable_share", "finished_share", "closed_share")},
                "unjudged": look["unjudged"] if isinstance(look.get("unjudged"), dict) else {},
            }
        )
    return pd.DataFrame(rows, columns=LOOK_COLUMNS)


def _means(looks: list[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for look in looks:
        tasks = look["tasks"] if isinstance(look.get("tasks"), dict) else {}
        for task, values in tasks.items():
            for key, value in values.items() if isinstance(values, dict) else ():
                if isinstance(value, dict):
                    numbers = [_number(value.get(name)) for name in ("mean", "lo", "hi", "n")]
                    rows.append([look["step"], str(task), str(key), *numbers])
    return pd.DataFrame(rows, columns=MEAN_COLUMNS)


def _scores(reader: RunReader, steps: list[int], notes: list[str]) -> pd.DataFrame:
    frames = []
    for step in steps:
        try:
            frames.append(reader.score_table(step).to_pandas().assign(step=step))
        except DivwatchError as error:
            notes.append(f"scores of step {step} cannot be read ({error})")
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["step", "id", "task"])


def _is_blame(line: dict[str, Any]) -> bool:
    sources = line.get("sources")
    if not isinstance(sources, dict) or not {"blamed", "explained", "rows"} <= line.keys():
        return False
    return bool(sources) and all(isinstance(tasks, dict) and "all" in tasks for tasks in sources.values())


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
