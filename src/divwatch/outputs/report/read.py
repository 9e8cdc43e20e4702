"""Run directories into dataframes: loading only, nothing is computed here.

A run directory may still be written to, may have been killed in the middle of a line or moved to another machine.
What can be read is read; what cannot is named in `Run.notes`, so that the page says it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from divwatch.errors import DivwatchError, one_line
from divwatch.files import BadLine, read_json_object, try_jsonl
from divwatch.store.run_directory import find_runs, read_parquet, steps_of

LOOK_COLUMNS = ["step", "status", "reason", "time", "sample_seconds", "score_seconds", "total_seconds"]
# Shares of the completions of a look, in [0, 1], and what was not judged: reason -> answers.
LOOK_COLUMNS += ["usable_share", "finished_share", "closed_share", "unjudged"]
MEASURED = ("ok", "not_comparable")  # the statuses of looks that have scores
MEAN_COLUMNS = ["step", "task", "key", "mean", "lo", "hi", "n"]


@dataclass
class Run:
    """One training stage as its run directory holds it.

    looks:  a row a look: `LOOK_COLUMNS`.
    means:  a row a look, task and key: `MEAN_COLUMNS`, as written in looks.jsonl.
    scores: a row a look and prompt: `step`, `id`, `task` and a column per key.
    max_steps: length of the stage in optimizer steps: what was planned, or the last look where that is not recorded.
    """

    directory: Path
    meta: dict[str, Any]
    max_steps: int
    looks: pd.DataFrame
    means: pd.DataFrame
    scores: pd.DataFrame
    events: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    @property
    def stage(self) -> str:
        return str(self.meta.get("stage") or self.directory.parent.name)

    def completions(self, step: int) -> pd.DataFrame:
        """The completions of one look; empty where none were kept or the file cannot be read."""
        path = self.directory / "completions" / f"step-{step:08d}.parquet"
        if not path.is_file():
            return pd.DataFrame()
        frame = _read_parquet(path, self.notes)
        return pd.DataFrame() if frame is None else frame

    def completion_steps(self) -> list[int]:
        return steps_of(self.directory / "completions")


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs under `paths` and, where they can still be found, the parents that they name."""
    directories = find_runs(paths)
    runs: dict[Path, Run] = {}
    while directories:
        directory = directories.pop(0)
        if directory in runs:
            continue
        runs[directory] = load_run(directory)
        parent = parent_directory(runs[directory])
        if parent is not None and parent not in runs:
            directories.append(parent)
    return list(runs.values())


def load_run(directory: Path) -> Run:
    """One run directory. Raises DivwatchError where run.json cannot be read."""
    try:
        meta = read_json_object(directory / "run.json")
    except (OSError, DivwatchError) as error:
        raise DivwatchError(
            f"cannot read {directory / 'run.json'}: {one_line(error, kind=False)} (remove this run from the report)"
        ) from None
    notes: list[str] = []
    records = read_jsonl(directory / "looks.jsonl", notes)
    # A look that was repeated (a resumed run) counts once: the last line for a step is the one that stands.
    by_step = {int(r["step"]): r for r in records if _is_step(r.get("step"))}
    records = [by_step[step] for step in sorted(by_step)]
    events = read_jsonl(directory / "events.jsonl", notes)
    ok = [int(r["step"]) for r in records if r.get("status", "ok") in MEASURED]
    looks, scores = _looks(records), _scores(directory, ok, notes)
    return Run(directory, meta, _max_steps(meta, looks), looks, _means(records), scores, events, notes)


def parent_directory(run: Run) -> Path | None:
    """The divwatch directory of the run's parent, or None.

    The recorded path first; where the runs were moved together, the same relative place beside this run.
    """
    recorded = run.meta.get("parent")
    if not recorded or not isinstance(recorded, str):
        return None
    candidates = [Path(recorded)]
    own = run.meta.get("output_dir")
    if isinstance(own, str):
        relative = os.path.relpath(_absolute(recorded), _absolute(own))
        candidates.append(run.directory.parent / relative)
    candidates.append(run.directory.parent.parent / Path(recorded).parent.name / "divwatch")
    for candidate in candidates:
        for place in (candidate, candidate / "divwatch"):
            if (place / "run.json").is_file():
                return place.resolve()
    return None


def lineages(runs: Sequence[Run]) -> list[list[Run]]:
    """Chains of runs from the first stage to each last one, in order of training.

    A run that two others continue belongs to both chains (Olmo 3's Instruct SFT starts from Think SFT).
    """
    by_directory = {run.directory.resolve(): run for run in runs}
    parents: dict[Path, Path | None] = {}
    for directory, run in by_directory.items():
        parent = parent_directory(run)
        parents[directory] = parent if parent in by_directory else None
    inner = set(parents.values())
    chains = []
    for leaf in (d for d in by_directory if d not in inner):
        chain: list[Path] = []
        here: Path | None = leaf
        while here is not None and here not in chain:
            chain.append(here)
            here = parents[here]
        chains.append([by_directory[d] for d in reversed(chain)])
    # A run that names itself as its parent, at any remove, has no last stage: show it alone rather than lose it.
    covered = {run.directory for chain in chains for run in chain}
    chains += [[run] for d, run in by_directory.items() if d not in covered]
    return sorted(chains, key=lambda chain: [str(run.meta.get("created", "")) for run in chain])


def read_jsonl(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file; lines that do not parse (a torn last line) are left out and counted in `notes`."""
    if not path.is_file():
        return []
    rows = [row for _, row in try_jsonl(path)]
    records = [row for row in rows if not isinstance(row, BadLine)]
    if bad := len(rows) - len(records):
        notes.append(
            f"{path.name}: {bad} line{'s' * (bad > 1)} could not be read and {'were' if bad > 1 else 'was'} left out"
        )
    return records


def _absolute(path: str) -> str:
    return path if os.path.isabs(path) else os.path.join(os.sep, path)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 10**12


def _looks(records: list[dict[str, Any]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for r in records:
        seconds = r["seconds"] if isinstance(r.get("seconds"), dict) else {}
        rows.append(
            {
                "step": int(r["step"]),
                "status": str(r.get("status", "ok")),
                "reason": str(r.get("reason") or ""),
                "time": r.get("time"),
                "sample_seconds": _number(seconds.get("sample")),
                "score_seconds": _number(seconds.get("score")),
                "total_seconds": _number(seconds.get("total")),
                **{name: _number(r.get(name)) for name in ("usable_share", "finished_share", "closed_share")},
                "unjudged": r.get("unjudged") if isinstance(r.get("unjudged"), dict) else {},
            }
        )
    return pd.DataFrame(rows, columns=LOOK_COLUMNS)


def _means(records: list[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for r in records:
        tasks = r["tasks"] if isinstance(r.get("tasks"), dict) else {}
        for task, values in tasks.items():
            for key, v in values.items() if isinstance(values, dict) else ():
                if isinstance(v, dict):
                    n = _number(v.get("n"))
                    row = [int(r["step"]), str(task), str(key), *(_number(v.get(f)) for f in ("mean", "lo", "hi")), n]
                    rows.append(row)
    return pd.DataFrame(rows, columns=MEAN_COLUMNS)


def _scores(directory: Path, steps: list[int], notes: list[str]) -> pd.DataFrame:
    frames = []
    for step in steps:
        path = directory / "scores" / f"step-{step:08d}.parquet"
        if not path.is_file():
            notes.append(f"look at step {step}: no scores file")
            continue
        frame = _read_parquet(path, notes)
        if frame is not None and {"id", "task"} <= set(frame.columns):
            frames.append(frame.assign(step=step))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["step", "id", "task"])


def _read_parquet(path: Path, notes: list[str]) -> pd.DataFrame | None:
    try:
        return read_parquet(path).to_pandas()
    except DivwatchError as error:
        notes.append(f"{path.parent.name}/{path.name}: cannot be read ({error})")
        return None


def _max_steps(meta: dict[str, Any], looks: pd.DataFrame) -> int:
    planned, last = _number(meta.get("max_steps")), int(looks["step"].max()) if len(looks) else 0
    # Trainers write -1 where the length follows from the epochs.
    return max(int(planned) if planned > 0 else 0, last, 1)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
