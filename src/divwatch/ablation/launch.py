"""Runs a plan, one launch after another. What is finished is kept, what is half done goes on, what fails is reported.

`ablation.json` in the plan's output folder says which arms and seeds there are, for `divwatch compare`. A run that ended
well leaves `finished.json` with the settings it had, and everything it printed is in its `log.txt`.
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

from divwatch.ablation.plan import Plan, Run
from divwatch.errors import DivwatchError
from divwatch.files import read_json_object, write_atomically

RECORD = "ablation.json"
FINISHED = "finished.json"
LOG = "log.txt"
GRACE = 30.0  # seconds in which an interrupted run may close what it holds


@dataclass(frozen=True)
class Outcome:
    """How a run ended: done, kept (it had been done before) or failed, with the reason."""

    run: Run
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
    """The arms and seeds of the plan, beside the runs. Raises DivwatchError where the folder cannot be written."""
    arms = [{"name": a.name, "changes": dict(a.changes), "left_out": a.left_out} for a in plan.arms]
    record = {"recipe": str(plan.recipe), "config": str(plan.config), "arms": arms, "seeds": list(plan.seeds)}
    try:
        plan.output_dir.mkdir(parents=True, exist_ok=True)
        _write(plan.output_dir / RECORD, record)
    except OSError as error:
        raise DivwatchError(f"cannot write {plan.output_dir} ({error.strerror}): choose another output_dir") from None


def check_kept(plan: Plan, runs: list[Run]) -> None:
    """Raises DivwatchError where a finished run had other settings: one plan, one folder."""
    for run in runs:
        had = finished(run)
        if had is not None and had != _told(plan, run):
            raise DivwatchError(
                f"{run.output_dir} was run with other settings than the plan has now: choose another output_dir, or remove it"
            )


def launch_all(plan: Plan, runs: list[Run], say: Callable[[str], None]) -> Iterator[Outcome]:
    """The outcome of each run, as it comes. A run that fails does not stop the others; Ctrl-C does."""
    for number, run in enumerate(runs, 1):
        if finished(run) is not None:
            yield Outcome(run, "kept")
            continue
        checkpoint = last_checkpoint(run.output_dir)
        going_on = f", going on from {checkpoint.name}" if checkpoint else ""
        say(f"[{number}/{len(runs)}] {run.name}{going_on} (log: {run.output_dir / LOG})")
        yield _launch(plan, run, checkpoint)


def finished(run: Run) -> dict[str, Any] | None:
    """The settings with which the run came to its end, or None."""
    try:
        return read_json_object(run.output_dir / FINISHED)
    except (OSError, DivwatchError):
        return None


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint: the trainer writes `trainer_state.json` last."""
    found = [p.parent for p in folder.glob("checkpoint-*/trainer_state.json") if p.parent.name[11:].isdigit()]
    return max(found, key=lambda p: int(p.name[11:]), default=None)


def _launch(plan: Plan, run: Run, checkpoint: Path | None) -> Outcome:
    run.output_dir.mkdir(parents=True, exist_ok=True)
    more = {"resume_from_checkpoint": str(checkpoint)} if checkpoint else {}
    started = time.monotonic()
    status = _run(plan.command(run, **more), run.output_dir / LOG)
    seconds = time.monotonic() - started
    if status:
        return Outcome(run, "failed", seconds, _reason(run.output_dir / LOG, status))
    _write(run.output_dir / FINISHED, _told(plan, run))
    return Outcome(run, "done", seconds)


def _run(command: list[str], log: Path) -> int:
    """Exit status of the launch. Where this process is interrupted, all that it launched ends with it."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        for how, seconds in ((signal.SIGINT, GRACE), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, how)
                process.wait(seconds)
        raise


def _told(plan: Plan, run: Run) -> dict[str, Any]:
    """What decides a run's result, as JSON gives it back."""
    told = {"recipe": str(plan.recipe), "config": str(plan.config), "launch": plan.launch, "settings": run.settings}
    return json.loads(json.dumps(told, default=str))


def _reason(log: Path, status: int) -> str:
    """The line that says what went wrong: a recipe's own `error:`, else the exception of a traceback, else the status.

    The launcher's own traceback comes after the program's: its last lines say only that a program has failed.
    """
    lines = log.read_text(errors="replace").splitlines()
    own = [line for line in lines if line.startswith("error: ")]
    if own:
        return own[-1].removeprefix("error: ")
    raised = [line for line in lines if line[:1].isalpha() and "Error: " in line.split(" ", 1)[0] + " "]
    raised = [line for line in raised if not line.startswith("subprocess.CalledProcessError")]
    return raised[-1] if raised else f"exit status {status}"


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1, default=str))
