"""Where a look's numbers become words: the terminal, the trainer's log, its trackers, and W&B."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from divwatch.errors import one_line
from divwatch.outputs.blame import COLUMNS, blame_line, blame_rows, blame_scalars
from divwatch.outputs.names import BLAME_TABLE, OVERHEAD, SECONDS, assessment_scalars, look_scalars, summary_values
from divwatch.outputs.other_trackers import OtherTrackers
from divwatch.outputs.terminal import alarm_message, look_line, say
from divwatch.outputs.tracking import (
    WandbLog,
    add_to_log_history,
    log_to_trainer,
    reports,
    start_wandb_run,
    table_rows,
    wandb_run,
    warn_if_shared,
)
from divwatch.records import Change, RunAssessment, ScoredLook
from divwatch.store.reader import RunReader

# Seconds that the end of training waits for W&B.
CLOSE_LIMIT = 60.0


class Publisher:
    """Publishes the looks of one run, on rank 0.

    texts: prompt id -> prompt, for the table of completions. offset: optimizer steps of the stages before this one.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.texts: dict[str, str] = {}
        self.offset = 0
        self._wandb = WandbLog()
        self._others = OtherTrackers(trainer)

    def start_tracking(self, group: str, job_type: str) -> None:
        """Opens the W&B run in the lineage's group, before the trainer's own callback would open one without a group."""
        try:
            start_wandb_run(self.trainer, group, job_type)
        except Exception as error:  # the trainer's callback will raise it again if it matters
            say(f"divwatch: could not open a W&B run in group {group!r}: {one_line(error)}")

    def open(
        self,
        path: Path,
        settings: Mapping[str, Any],
        before: Mapping[str, Any] | None = None,
        sent: Collection[int] = (),
    ) -> dict[str, Any] | None:
        """Connects to the trackers; returns what run.json should keep of the W&B run. See `WandbLog.open`."""
        if not reports(self.trainer):
            say(f"divwatch: report_to names no tracker: looks go to {path} and to the trainer's log history only")
        run = wandb_run(self.trainer)
        warn_if_shared(run, path)
        return self._wandb.open(run, settings, before, sent)

    def look(self, look: ScoredLook, store: RunReader, seconds: float, overhead: float) -> dict[str, float]:
        """Publishes a look that training waited `seconds` for; returns its scalars by name."""
        say(f"{look_line(look)} | {seconds:.1f} s")
        scalars = look_scalars(look.tasks) | assessment_scalars(look.assessment)
        scalars |= {SECONDS: seconds, OVERHEAD: overhead}
        log_to_trainer(self.trainer, look.step, scalars)
        rows = partial(self._table, look.step, store)
        self._wandb.log_look(look.step, self.offset + look.step, scalars, rows)
        self._others.table(look.step, rows)
        return scalars

    def _table(self, step: int, store: RunReader) -> list[list[Any]]:
        return table_rows(step, self.texts, store.completions(step))

    def full_look(self, look: ScoredLook) -> None:
        """Publishes a look at full length: its levels, under `full/`."""
        say(f"at full length: {look_line(look)}")
        scalars = {f"full/{name}": value for name, value in look_scalars(look.tasks).items()}
        log_to_trainer(self.trainer, look.step, scalars)
        self._wandb.log(look.step, self.offset + look.step, scalars)

    def blame(self, line: Mapping[str, Any]) -> None:
        """Publishes blame at a look: a line of blame.jsonl."""
        say(blame_line(line))
        step, scalars = line["step"], blame_scalars(line)
        log_to_trainer(self.trainer, step, scalars)
        self._wandb.log(step, self.offset + step, scalars)
        self._wandb.log_table(step, self.offset + step, BLAME_TABLE, COLUMNS, blame_rows(line))

    def alarm(self, alarm: Change, alert: bool) -> None:
        """Publishes an alarm. alert: W&B sends a message about it."""
        say("divwatch: " + alarm_message(alarm))
        if alert:
            title = f"Diversity collapse since step {alarm.onset_step}"
            self._wandb.alert(title, alarm_message(alarm))
            self._others.alert(title, alarm_message(alarm))

    def restore(self, state: Any, step: int, tasks: dict[str, Any], assessment: RunAssessment) -> None:
        """Adds a look to the log history of a resumed run, whose checkpoint was written before the look was scored."""
        add_to_log_history(state, step, look_scalars(tasks) | assessment_scalars(assessment))

    def close(self, assessment: RunAssessment | None, path: Path) -> None:
        """Publishes what the run showed; waits for W&B, within bounds. assessment: None if no look was scored."""
        if assessment is not None:
            self._wandb.summarise(summary_values(assessment))
            self._wandb.upload(path)
        self._wandb.close(CLOSE_LIMIT)
        self._others.close(CLOSE_LIMIT)
        if assessment is not None:
            say(f"divwatch: {assessment.verdict['sentence']} Record: {path}")
