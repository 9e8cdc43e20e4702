"""How a look's numbers reach the trainer's log history, every tracker in `report_to`, and W&B.

`trainer.log` is never called: TRL's override flushes the trainer's own metric windows. W&B is never given `step=`: it drops
steps below its counter. Every name is defined exactly there, because overlapping globs are matched in random order.
What W&B does with a look, however long it takes and however it fails, happens on its own thread.
"""

from __future__ import annotations

import copy
import os
import queue
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from divwatch.errors import one_line
from divwatch.outputs.names import AXIS, PIPELINE_AXIS, TABLE
from divwatch.outputs.terminal import say
from divwatch.threads import BackgroundThread

# Calls that may wait for W&B, two a look; further ones are dropped.
PENDING = 512


def add_to_log_history(state: Any, step: int, scalars: Mapping[str, float]) -> Any:
    """Adds the scalars to the log history at the look's own step; returns the trainer's state as it was at that step."""
    then = copy.copy(state)
    then.global_step = step
    entry = {**scalars, "step": step}
    if state.epoch is not None:
        share = step / state.global_step if state.global_step else 1.0
        then.epoch = entry["epoch"] = round(state.epoch * share, 4)
    state.log_history.append(entry)
    return then


def log_to_trainer(trainer: Any, step: int, scalars: Mapping[str, float]) -> None:
    """Logs to the log history and to every reporting callback but W&B's, at the look's own step.

    A callback that fails does not affect the others.
    """
    from transformers.integrations import WandbCallback

    then = add_to_log_history(trainer.state, step, scalars)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, _reporters()) and not isinstance(callback, WandbCallback):
            try:
                callback.on_log(trainer.args, then, trainer.control, logs=dict(scalars), model=trainer.model)
            except Exception as error:
                name = type(callback).__name__
                say(f"divwatch: the look at step {step} could not be logged by {name}: {one_line(error)}")


def reports(trainer: Any) -> bool:
    """Whether the trainer has a tracker."""
    return any(isinstance(callback, _reporters()) for callback in trainer.callback_handler.callbacks)


def _reporters() -> tuple[Any, ...]:
    """The reporting callbacks that transformers knows, named in report_to or added by hand."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return tuple(INTEGRATION_TO_CALLBACK.values())


def wandb_run(trainer: Any) -> Any:
    """The W&B run of the trainer's WandbCallback; None if it has no such callback or W&B is off."""
    if not _reports_to_wandb(trainer):
        return None
    import wandb

    return wandb.run


def _reports_to_wandb(trainer: Any) -> bool:
    from transformers.integrations import WandbCallback

    return any(isinstance(callback, WandbCallback) for callback in trainer.callback_handler.callbacks)


def start_wandb_run(trainer: Any, group: str, job_type: str) -> None:
    """Opens the W&B run that the trainer's callback would open, but in a group and with a job type.

    WANDB_RUN_GROUP and WANDB_JOB_TYPE take precedence. A run that is already open is left as it is.
    """
    if not _reports_to_wandb(trainer):
        return
    import wandb

    if wandb.run is not None or trainer.state.is_hyper_param_search:
        return
    wandb.init(
        project=os.getenv("WANDB_PROJECT", "huggingface"),
        name=trainer.args.run_name,
        group=os.getenv("WANDB_RUN_GROUP", group),
        job_type=os.getenv("WANDB_JOB_TYPE", job_type),
    )


# The id of a W&B run -> the run directory whose looks it gets.
_WATCHED: dict[str, Path] = {}


def warn_if_shared(run: Any, path: Path) -> None:
    """A line if the W&B run has the looks of another training: nobody finished it before this one began."""
    number = getattr(run, "id", None)
    if number is None:
        return
    other, _WATCHED[number] = _WATCHED.get(number, path), path
    if other != path:
        say(
            f"divwatch: the open W&B run holds the looks of {other} already, and those of {path} are added to it: call "
            "wandb.finish() between two trainings to keep them apart"
        )


class WandbLog:
    """Sends looks to one W&B run. No method blocks, except `close`, which has a time limit.

    Without a run every method does nothing. A failure is logged once, and training continues.
    pending: calls that may wait for W&B; further ones are dropped.
    """

    def __init__(self, pending: int = PENDING) -> None:
        self._run: Any = None
        self._pending = pending
        self._start_thread()
        self._defined: set[str] = set()
        self._table: Any = None
        self._sent: set[int] = set()

    def open(
        self, run: Any, settings: Mapping[str, Any], before: Mapping[str, Any] | None = None, sent: Collection[int] = ()
    ) -> dict[str, Any] | None:
        """Adds the monitor's settings to the run's config; returns what run.json should keep of the run.

        before: the W&B run in run.json. sent: steps that it received; they are not sent again to the same run.
        """
        self._run, self._defined, self._table = run, set(), None
        self._start_thread()
        if run is None:
            return None
        try:
            record = {name: str(getattr(run, name)) for name in ("id", "name", "group", "project", "dir")}
        except Exception as error:
            say(f"divwatch: cannot read the id of the W&B run: {one_line(error)}")
            record = {}
        again = before is not None and before.get("id") == record.get("id")
        self._sent = set(sent) if again else set()
        self._do("settings", lambda: run.config.update({"divwatch": dict(settings)}, allow_val_change=True))
        return record

    def log(self, step: int, pipeline_step: int, scalars: Mapping[str, float]) -> None:
        """Scalars on the step of their look."""
        self._do(f"look at step {step}", lambda: self._log(step, pipeline_step, scalars))

    def log_look(
        self,
        step: int,
        pipeline_step: int,
        scalars: Mapping[str, float],
        read_rows: Callable[[], Sequence[Sequence[Any]]],
    ) -> None:
        """A look's scalars, then its rows of the table, which are read when they are sent; each look is sent once.

        Two calls of `run.log`: a table first asks the server, and one that hangs or refuses must not take the curves along.
        """
        if step in self._sent:
            return
        self._sent.add(step)
        self.log(step, pipeline_step, scalars)
        table = f"table of the look at step {step}"
        self._do(table, lambda: self._log(step, pipeline_step, {TABLE: self._add_to_table(read_rows())}))

    def log_table(
        self, step: int, pipeline_step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """A whole table, which replaces the last one of this name."""
        self._do(f"{name} of step {step}", lambda: self._log(step, pipeline_step, {name: _table(columns, rows)}))

    def _log(self, step: int, pipeline_step: int, values: Mapping[str, Any]) -> None:
        for name in (AXIS, PIPELINE_AXIS):
            self._define(name)
        for name in values:
            self._define(name, step_metric=AXIS)
        self._run.log({AXIS: step, PIPELINE_AXIS: pipeline_step, **values})

    def _define(self, name: str, **axis: str) -> None:
        if name not in self._defined:
            self._run.define_metric(name, **axis)
            self._defined.add(name)

    def _add_to_table(self, rows: Sequence[Sequence[Any]]) -> Any:
        if self._table is None:
            import wandb

            self._table = wandb.Table(columns=list(TABLE_COLUMNS), log_mode="INCREMENTAL")
        for row in rows:
            self._table.add_data(*row)
        return self._table

    def alert(self, title: str, text: str) -> None:
        """A message that W&B forwards by mail or Slack, as set in the user's W&B account."""
        self._do("alert", lambda: self._run.alert(title=title[:64], text=text, level="WARN"))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Sets summary fields, by which a table of runs can be sorted."""
        self._do("summary", lambda: self._run.summary.update(dict(values)))

    def upload(self, folder: Path) -> None:
        """Logs the run directory as an artifact: all completions, scores and settings."""
        self._do("artifact", lambda: self._upload(folder))

    def _upload(self, folder: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"divwatch-{self._run.id}", type="divwatch")
        artifact.add_dir(str(folder))
        self._run.log_artifact(artifact)

    def _start_thread(self) -> None:
        self._thread = BackgroundThread("divwatch W&B", self._pending, self._report_failure)
        self._behind = False

    def close(self, limit: float) -> None:
        """Waits at most `limit` seconds until W&B has received everything."""
        unsent = self._thread.close(limit)
        if unsent:
            names = ", ".join(unsent[:3]) + (", ..." if len(unsent) > 3 else "")
            say(f"divwatch: W&B has not answered for {limit:.0f} s and is not waited for ({names})")

    def _do(self, what: str, job: Callable[[], Any]) -> None:
        if self._run is None:
            return
        try:
            self._thread.submit(job, what)
        except queue.Full:
            if not self._behind:
                self._behind = True
                say("divwatch: W&B has fallen behind: further looks are in the run directory only")

    def _report_failure(self, what: str, reason: str) -> None:
        say(f"divwatch: W&B rejected the {what}: {reason}. Further identical errors are hidden")


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])


TABLE_COLUMNS: list[str | int] = ["step", "task", "prompt", "sample", "completion", "correct", "usable"]


def table_rows(
    step: int, texts: Mapping[str, str], completions: Sequence[Mapping[str, Any]], prompts_per_task: int = 1
) -> list[list[Any]]:
    """The completions of the first prompts of each task, which are the same at every look.

    texts: prompt id -> prompt. completions: rows of the run directory, verified.
    """
    prompts: dict[str, dict[str, None]] = {}  # task -> its prompts, in the order of the panel
    for row in completions:
        prompts.setdefault(row["task"], {})[row["prompt_id"]] = None
    shown = {prompt for ids in prompts.values() for prompt in list(ids)[:prompts_per_task]}
    return [
        [step, row["task"], texts[row["prompt_id"]], row["sample"], row["answer_text"], row["correct"], row["usable"]]
        for row in completions
        if row["prompt_id"] in shown
    ]
