"""Runs a plan, one launch after another: finished runs are kept, interrupted ones resume, failures are reported.

`ablation.json` in the plan's output folder lists arms and seeds for `divwatch compare`. A run that succeeded leaves
`finished.json` with its settings, and `log.txt` holds everything it printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divwatch.ablation.plan import Plan, PlannedRun
from divwatch.errors import DivwatchError
from divwatch.files import read_json_object, write_atomically

RECORD = "ablation.json"
FINISHED = "finished.json"
LOG = "log.txt"
GRACE = 30.0  # seconds that an interrupted run has to end by itself


@dataclass(frozen=True)
class Outcome:
    """How a run ended. status: done, kept (an earlier call finished it) or failed."""

    run: PlannedRun
    status: str
    seconds: float = 0.0
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.status} in {self.seconds:.0f} s" + (f": {self.reason}" if self.reason else "")

    def as_dict(self) -> dict[str, Any]:
        return {
            "arm": self.run.arm.name,
            "seed": self.run.seed,
            "output_dir": str(self.run.output_dir),
            "status": self.status,
            "seconds": round(self.seconds, 1),
            "reason": self.reason,
        }


def write_record(plan: Plan) -> None:
    """Writes the arms and seeds of the plan beside its runs. Raises DivwatchError if the folder cannot be written."""
    arms = [{"name": a.name, "changes": dict(a.changes), "left_out": a.left_out} for a in plan.arms]
    record = {"recipe": str(plan.recipe), "config": str(plan.config), "arms": arms, "seeds": list(plan.seeds)}
    try:
        plan.output_dir.mkdir(parents=True, exist_ok=True)
        _write(plan.output_dir / RECORD, record)
    except OSError as error:
        raise DivwatchError(f"cannot write {plan.output_dir} ({error.strerror}): choose another output_dir") from None


def check_kept(plan: Plan, runs: list[PlannedRun]) -> None:
    """Raises DivwatchError if a run was finished with other settings than the plan has now."""
    for run in runs:
        before = finished_settings(run)
        if before is not None and before != _settings_of(plan, run):
            raise DivwatchError(
                f"{run.output_dir} was run with other settings than the plan has now: choose another output_dir, or remove it"
            )


def launch_all(plan: Plan, runs: list[PlannedRun], say: Callable[[str], None]) -> Iterator[Outcome]:
    """Launches the runs and yields the outcome of each. A run that fails does not stop the others; Ctrl-C does."""
    for number, run in enumerate(runs, 1):
        if finished_settings(run) is not None:
            yield Outcome(run, "kept")
            continue
        checkpoint = last_checkpoint(run.output_dir)
        resumes = f", resuming from {checkpoint.name}" if checkpoint else ""
        say(f"[{number}/{len(runs)}] {run.name}{resumes} (log: {run.output_dir / LOG})")
        yield _launch(plan, run, checkpoint)


def finished_settings(run: PlannedRun) -> dict[str, Any] | None:
    """The settings with which the run was finished; None if it was not."""
    try:
        return read_json_object(run.output_dir / FINISHED)
    except (OSError, DivwatchError):
        return None


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint. The trainer writes `trainer_state.json` last: after a kill it is missing or cut."""
    checkpoints = [p for p in folder.glob("checkpoint-*") if p.name[11:].isdigit()]
    newest_first = sorted(checkpoints, key=lambda p: int(p.name[11:]), reverse=True)
    return next((p for p in newest_first if _is_complete(p)), None)


def _is_complete(checkpoint: Path) -> bool:
    try:
        return bool(read_json_object(checkpoint / "trainer_state.json"))
    except (OSError, DivwatchError):
        return False


def _launch(plan: Plan, run: PlannedRun, checkpoint: Path | None) -> Outcome:
    run.output_dir.mkdir(parents=True, exist_ok=True)
    more = {"resume_from_checkpoint": str(checkpoint)} if checkpoint else {}
    started = time.monotonic()
    status = _run(plan.command(run, **more), run.output_dir / LOG)
    seconds = time.monotonic() - started
    if status:
        return Outcome(run, "failed", seconds, _reason(run.output_dir / LOG, status))
    _write(run.output_dir / FINISHED, _settings_of(plan, run))
    return Outcome(run, "done", seconds)


def _run(command: list[str], log: Path) -> int:
    """The exit status of the launch. An interrupt of this process also ends everything that it launched."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        for number, seconds in ((signal.SIGINT, GRACE), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(seconds)
        raise


def _settings_of(plan: Plan, run: PlannedRun) -> dict[str, Any]:
    """Everything that decides a run's result, as it reads back from JSON."""
    settings = {"recipe": str(plan.recipe), "config": str(plan.config), "launch": plan.launch, "settings": run.settings}
    return json.loads(json.dumps(settings, default=str))


def _reason(log: Path, status: int) -> str:
    """The line of the log that names the problem: a recipe's `error:`, else an exception, else the exit status.

    The launcher's traceback comes after the program's and says only that the program failed.
    """
    lines = log.read_text(errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    exceptions = [line for line in lines if line[:1].isalpha() and "Error: " in line.split(" ", 1)[0] + " "]
    exceptions = [line for line in exceptions if not line.startswith("subprocess.CalledProcessError")]
    return (errors or exceptions or [f"exit status {status}"])[-1]


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1, default=str))
