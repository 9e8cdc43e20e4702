"""The record of a watched run: a run directory that is started or resumed, and the rows that a look leaves in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from divwatch.config import COMPARABLE, NOT_RECORDED, WatchConfig
from divwatch.errors import DivwatchError, one_line
from divwatch.outputs.terminal import alarm_message, say, why_not_comparable
from divwatch.panel import fingerprint
from divwatch.records import Change, Completion, Prompt, ScoredLook
from divwatch.store.run_directory import RunDirectory


class Record:
    """Writes one run directory. `start` or `resume` comes first."""

    def __init__(self, store: RunDirectory) -> None:
        self.store = store
        self._info: dict[str, Any] = {}
        self._alarms: set[tuple[str, str]] = set()

    def start(self, info: dict[str, Any]) -> None:
        """A new record. One that is already there is moved aside."""
        self.store.create(info)
        self._info = self.store.info()

    def claim(self, config: WatchConfig, prompts: Sequence[Prompt]) -> None:
        """Makes sure that the record that is there can be resumed with these settings and prompts.

        Raises DivwatchError if looks would not be comparable with those on record, or another process is writing.
        """
        self.store.claim()
        info = self.store.info()
        changed = _changed(info["settings"], config.as_dict())
        changed.pop("panel", None)  # the file may have moved; the prompts are compared below
        differ = [f"watch_{name} {old!r}, now {new!r}" for name, (old, new) in changed.items() if name in COMPARABLE]
        if differ or fingerprint(prompts) != info["panel"]["fingerprint"]:
            raise DivwatchError(
                f"{self.store.path} was watched with {', '.join(differ) or 'other prompts or in another form'}: resume "
                "with the settings and the data that it began with, or train into another output_dir"
            )

    def resume(
        self, step: int, max_steps: int, config: WatchConfig, processes: int, tracked: dict[str, Any] | None
    ) -> None:
        """Continues a claimed record at `step`: later looks are dropped. run.json keeps which settings changed, and the
        W&B run that was `tracked` before if there is another one now."""
        info = self.store.info()
        old = info["settings"] | {"processes": info.get("processes")}
        changed = _changed(old, config.as_dict() | {"processes": processes})
        if changed:
            info |= {"resumed": [*info.get("resumed", []), {"step": step, "changed": changed}]}
        before = info.get("wandb")
        if tracked and before != tracked:
            info |= {"wandb": tracked, "wandb_before": [*info.get("wandb_before", []), before]}
        self.store.write_info(info | {"max_steps": max_steps, "ended": None})
        self.store.resume_at(step)
        self._info = self.store.info()
        self._alarms = {(event["task"], event["key"]) for event in self.store.events()}

    def store_look(self, step: int, completions: Sequence[Completion], embeddings: Any = None) -> None:
        """Stores a look before it is scored, so that a crash loses no completion."""
        if not self.store.exists:  # somebody has removed it
            self.store.create(self._info)
        if embeddings is not None:
            self.store.write_embeddings(step, *embeddings)
        self.store.write_completions(step, completions)

    def add_look(self, look: ScoredLook, seconds: float | None = None) -> None:
        self.store.append_look(look_row(look, seconds))

    def add_alarms(self, look: ScoredLook, checkpoint_before: Callable[[Change], Path | None] | None) -> list[Change]:
        """Stores the alarms that are new, and returns them.

        checkpoint_before: the checkpoint from before an alarm's fall, which those of the whole panel record; None where no
        checkpoints are kept.
        """
        new = [alarm for alarm in look.assessment.alarms if (alarm.task, alarm.key) not in self._alarms]
        for alarm in new:
            self._alarms.add((alarm.task, alarm.key))
            row = event_row(look, alarm)
            if checkpoint_before is not None and alarm.task == "all":
                early = checkpoint_before(alarm)
                row["checkpoint"] = None if early is None else str(early)
            self.store.append_event(row)
        return new

    def add_failure(self, step: int, reason: str, status: str = "failed", seconds: float | None = None) -> None:
        """A look without scores: `failed`, or `unscored` if its completions are stored. Prints a message on failure."""
        spent = {} if seconds is None else {"total": round(seconds, 3)}
        row = {"step": step, "status": status, "reason": reason, "time": time.time(), "seconds": spent}
        try:
            self.store.append_look(row)
        except OSError as error:
            say(f"divwatch: the failure could not be recorded either ({error.strerror}): check {self.store.path}")

    def store_training(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Stores what the trainer logged so far; the report shows it under the curves."""
        with suppress(OSError):  # it never matters more than training
            self.store.write_training(history)

    def end(self) -> None:
        """Notes the end, so that `divwatch top` shows that no look will follow, and lets other processes write."""
        try:
            self.store.write_info(self.store.info() | {"ended": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
        except (OSError, DivwatchError) as error:
            say(f"divwatch: could not record the end of the run: {one_line(error)}")
        self.store.release()


def look_row(look: ScoredLook, seconds: float | None = None) -> dict[str, Any]:
    """A scored look's line of looks.jsonl. seconds: what training waited for it."""
    spent = {"sample": look.sample_seconds, "score": look.score_seconds}
    return {
        "step": look.step,
        "status": look.status,
        "reason": why_not_comparable(look),
        "time": look.time,
        "seconds": spent if seconds is None else spent | {"total": round(seconds, 3)},
        "usable_share": look.usable_share,
        "finished_share": look.finished_share,
        "closed_share": look.closed_share,
        "unjudged": look.unverified,
        "tasks": look.tasks,
        "verdict": look.assessment.verdict,
    }


def event_row(look: ScoredLook, alarm: Change) -> dict[str, Any]:
    """An alarm's line of events.jsonl."""
    return {
        "step": look.step,
        "kind": look.assessment.verdict["kind"],
        "task": alarm.task,
        "key": alarm.key,
        "onset_step": alarm.onset_step,
        "onset_interval": list(alarm.onset_interval or ()),
        "change": alarm.change,
        "change_interval": list(alarm.change_interval),
        "confirmed": alarm.confirmed,
        "message": alarm_message(alarm),
    }


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """name -> [old, new] of the values that differ; a setting that the old record lacks counts as what was done then."""
    known = WatchConfig().as_dict() | NOT_RECORDED | dict(old)
    return {name: [known.get(name), value] for name, value in new.items() if value != known.get(name)}
