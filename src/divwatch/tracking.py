"""Where a look's numbers go: the trainer's log history, every tracker in `report_to`, and W&B under the contract's names.

`trainer.log` is never called: TRL's override flushes the trainer's own metric windows. W&B is never given `step=`: a step
below its counter is dropped. Every name is defined exactly there, for overlapping globs are matched in random order.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

AXIS = "train/global_step"
PIPELINE_AXIS = "divwatch/pipeline_step"
LOGGED_GROUPS = ("diversity", "correct_diversity", "quality")


def look_scalars(tasks: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """`{task: {group/metric: {mean, ...}}}` as `{group/task/metric: mean}`, missing values left out.

    >>> look_scalars({"all": {"diversity/sbert": {"mean": 0.4}, "pairs/cc_count": {"mean": 9.0}}})
    {'diversity/all/sbert': 0.4}
    """
    scalars = {}
    for task, values in tasks.items():
        for key, summary in values.items():
            group, metric = key.split("/", 1)
            mean = summary["mean"]
            if group in LOGGED_GROUPS and mean is not None and mean == mean:
                scalars[f"{group}/{task}/{metric}"] = float(mean)
    return scalars


def assessment_scalars(assessment: Any) -> dict[str, float]:
    """What is known after a look, under the contract's names: change and onset by task, the split, the alarm."""
    scalars: dict[str, float] = {"collapse/alarm": float(assessment.collapsed)}
    for (task, key), status in assessment.statuses.items():
        prefix = f"collapse/{task}" if key.startswith("diversity/") else f"collapse_correct/{task}"
        if status.change == status.change:
            scalars[f"{prefix}/change"] = float(status.change)
        if status.onset_step is not None:
            scalars[f"{prefix}/onset_step"] = float(status.onset_step)
    for task, split in assessment.splits.items():
        for part in ("quality_control", "genuine_narrowing", "cross_narrowing", "error_narrowing"):
            value = getattr(split, part)
            if value == value:
                scalars[f"decomposition/{task}/{part}"] = float(value)
    return scalars


def log_to_trainer(trainer: Any, step: int, scalars: Mapping[str, float]) -> None:
    """Into the log history and to every reporting callback but W&B's, at the look's own step."""
    from transformers.integrations import WandbCallback, get_reporting_integration_callbacks

    state = trainer.state
    entry = {**scalars, "step": step}
    if state.epoch is not None and step == state.global_step:
        entry["epoch"] = round(state.epoch, 4)
    state.log_history.append(entry)
    then = copy.copy(state)
    then.global_step = step
    reporters = tuple(get_reporting_integration_callbacks(trainer.args.report_to))
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, reporters) and not isinstance(callback, WandbCallback):
            callback.on_log(trainer.args, then, trainer.control, logs=dict(scalars), model=trainer.model)


class WandbLog:
    """The run that the trainer's WandbCallback opened. Without one every method does nothing."""

    def __init__(self) -> None:
        self._defined: set[str] = set()
        self._table: Any = None

    @property
    def run(self) -> Any:
        import sys

        wandb = sys.modules.get("wandb")  # not imported: then nobody logs to it
        return wandb.run if wandb is not None else None

    def configure(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Puts the monitor's settings into the run's config; returns what run.json should remember of the run."""
        run = self.run
        if run is None:
            return None
        run.config.update({"divwatch": dict(settings)}, allow_val_change=True)
        return {"id": run.id, "name": run.name, "group": run.group, "project": run.project, "dir": run.dir}

    def log(self, step: int, pipeline_step: int, scalars: Mapping[str, float], rows: Sequence[Sequence[Any]]) -> None:
        """One call to `run.log` a look, scalars and the new table rows together."""
        run = self.run
        if run is None:
            return
        import wandb

        for name in (AXIS, PIPELINE_AXIS):
            if name not in self._defined:
                run.define_metric(name)
                self._defined.add(name)
        for name in set(scalars) - self._defined:
            run.define_metric(name, step_metric=AXIS)
            self._defined.add(name)
        if self._table is None:
            self._table = wandb.Table(columns=list(TABLE_COLUMNS), log_mode="INCREMENTAL")
            run.define_metric("watch/completions", step_metric=AXIS)
        for row in rows:
            self._table.add_data(*row)
        run.log({**scalars, AXIS: step, PIPELINE_AXIS: pipeline_step, "watch/completions": self._table})

    def alert(self, title: str, text: str) -> None:
        run = self.run
        if run is not None:
            run.alert(title=title[:64], text=text, level="WARN")

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Summary fields: what a table of runs is sorted by."""
        run = self.run
        if run is not None:
            run.summary.update(dict(values))


TABLE_COLUMNS: list[str | int] = ["step", "task", "prompt", "sample", "completion", "correct", "usable"]


def table_rows(
    step: int, texts: Mapping[str, str], samples: Sequence[Any], prompts_per_task: int = 1
) -> list[list[Any]]:
    """The completions of the first prompts of each task: the same prompts at every look, so that one can be followed."""
    rows: list[list[Any]] = []
    seen: dict[str, int] = {}
    for sample in samples:
        seen[sample.task] = seen.get(sample.task, 0) + 1
        if seen[sample.task] > prompts_per_task:
            continue
        for k, output in enumerate(sample.outputs):
            correct = None if sample.correct is None else bool(sample.correct[k])
            rows.append([step, sample.task, texts[sample.id], k, output, correct, bool(sample.usable[k])])
    return rows
