"""What a watched run measured, for the plan of the next one: seconds of a look and of a step, and how long answers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.plan.cost import Cost, Look
from divwatch.store.reader import SCORED, RunReader


@dataclass(frozen=True)
class Like:
    """The figures of a watched run.

    model, processes, max_steps: of the run. prompts: of its panel. settings: its settings.
    look_seconds: the median over its looks, without blame, and without the first, which warms up, if there are others.
    step_seconds: mean over its steps, without looks; None if the record does not tell.
    mean_tokens, longest: new tokens of its completions, in the first and the last look.
    tokens: task -> mean tokens of its completions. sources: of its training data; None if it was not watched with blame.
    """

    model: str
    processes: int
    max_steps: int
    prompts: int
    settings: WatchConfig
    look_seconds: float
    step_seconds: float | None
    mean_tokens: float
    longest: int
    tokens: Mapping[str, float]
    sources: int | None

    @property
    def measured(self) -> dict[str, Any]:
        """What was measured, for JSON."""
        others = ("model", "settings", "prompts", "sources")
        return {name: value for name, value in asdict(self).items() if name not in others}

    def look(self, prompt_tokens: int) -> Look:
        """Its looks, whose prompts are taken to have `prompt_tokens`."""
        return Look(self.prompts, self.settings.samples, prompt_tokens, self.longest, self.mean_tokens, True)

    def mean_within(self, limits: Mapping[str, int]) -> float:
        """Mean tokens of a completion in a panel with these tasks and limits; tasks that the run lacks count as its mean."""
        return mean(min(self.tokens.get(task, self.mean_tokens), limit) for task, limit in limits.items())


def read_like(path: Path) -> Like:
    """The figures of the run in an output directory. Raises DivwatchError if it has no look with scores."""
    run = RunReader.of(path)
    info = run.info()
    looks = [look for look in run.looks() if look["status"] in SCORED]
    blames = run.blames()
    blamed = {line["step"]: float(line.get("seconds") or 0.0) for line in blames}
    totals = {look["step"]: float(look["seconds"]["total"]) for look in looks if "total" in look["seconds"]}
    seconds = [total - blamed.get(step, 0.0) for step, total in totals.items()]
    if not seconds:
        raise DivwatchError(f"{run.path} has no look with scores to learn from: give a run that took some")
    tables = [run.completion_table(looks[i]["step"]) for i in sorted({0, len(looks) - 1})]
    lengths: dict[str, list[int]] = {}
    for table in tables:
        for task, tokens in zip(table["task"].to_pylist(), table["tokens"].to_pylist(), strict=True):
            lengths.setdefault(task, []).append(tokens)
    whole = [tokens for of_task in lengths.values() for tokens in of_task]
    return Like(
        str(info["model"]),
        int(info.get("processes") or 1),
        run.max_steps(),
        len(info["panel"]["prompts"]),
        WatchConfig.of_record(info["settings"]),
        median(seconds[1:] or seconds),
        _step_seconds(run, looks),
        mean(whole),
        max(whole),
        {task: mean(of_task) for task, of_task in lengths.items()},
        max((len(line.get("sources") or ()) for line in blames), default=None) or None,
    )


def _step_seconds(run: RunReader, looks: list[dict[str, Any]]) -> float | None:
    """From the clock that `auto` keeps; else from when the first and the last look were scored, less the looks after it."""
    marks = (run.schedule() or {}).get("marks") or []
    try:
        (first, begin, *_), (last, end, *_) = marks[0], marks[-1]
    except (IndexError, TypeError, ValueError):
        first, begin, last = looks[0]["step"], looks[0]["time"], looks[-1]["step"]
        end = looks[-1]["time"] - sum(look["seconds"].get("total", 0.0) for look in looks[1:])
    return (end - begin) / (last - first) if last > first and end > begin else None


def calibrated(cost: Cost, reference: Cost, like: Like) -> Cost:
    """The cost of a look and a step as the run's clock says, where the model of the cost says `reference` for that run."""
    look = like.look_seconds / reference.seconds
    step = 1.0 if like.step_seconds is None else like.step_seconds / reference.step_seconds
    parts = {name: getattr(cost, name) * look for name in ("seconds", "gather", "prefill", "decode")}
    return replace(cost, **parts, step_seconds=cost.step_seconds * step)
