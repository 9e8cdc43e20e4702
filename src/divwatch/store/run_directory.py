"""The run directory: what a run was and what every look saw. Written atomically, readable after a crash.

run.json                          settings, model, stage, lineage, parent, panel, versions
looks.jsonl                       one line per look
completions/step-00000100.parquet one row per completion
scores/step-00000100.parquet      one row per prompt
events.jsonl                      alarms
schedule.json                     the steps of the looks, planned ones as well, and the times they are planned from
blame.jsonl                       with watch_blame: one line per look, sources by their effect on diversity
training.json                     the trainer's loss and reward by step
"""

from __future__ import annotations

import errno
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.files import append_line, json_line, write_atomically
from divwatch.records import Completion, PromptSamples, PromptScores
from divwatch.store.parquet import write_parquet
from divwatch.store.reader import FORMAT, NAME, SCORED, TRAINING, WRITER, RunReader, training_rows


class RunDirectory(RunReader):
    """Reads and writes one `<output_dir>/divwatch/`. Damaged lines raise DivwatchError."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock: Any = None

    def create(self, info: dict[str, Any]) -> None:
        """Starts a new record. One that is already there is moved aside, never overwritten."""
        try:
            if self.exists:
                self.move_aside()
            for folder in ("completions", "scores"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            self.claim()
            self._discard_drafts()  # of a run that was killed before its first run.json was whole
            self.write_info(info)
        except OSError as error:
            raise DivwatchError(
                f"cannot write {self.path} ({error.strerror}): choose an output_dir that can be written"
            ) from None

    def move_aside(self) -> RunDirectory:
        """Gives an older record of the same output directory another name, and returns it."""
        self.claim()
        number = next(n for n in range(1, 10_000) if not self.path.with_name(f"{NAME}-{n}").exists())
        return RunDirectory(self.path.rename(self.path.with_name(f"{NAME}-{number}")))

    def claim(self) -> None:
        """Locks the directory for this process until `release` or its end. Raises DivwatchError if another holds it.

        A file system without locks gives no protection.
        """
        try:
            import fcntl
        except ImportError:
            return
        lock = (self.path / ".lock").open("ab")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise DivwatchError(
                    f"another run is writing {self.path}: choose another output_dir, or wait until it has ended"
                ) from None
        self._lock = lock
        write_atomically(self.path / WRITER, json.dumps(_this_process()).encode())

    def release(self) -> None:
        """Gives the lock of `claim` back."""
        if self._lock is not None:
            self._lock.close()

    def write_info(self, info: dict[str, Any]) -> None:
        write_atomically(self.path / "run.json", json.dumps({"format": FORMAT, **info}, indent=1, default=str).encode())

    def write_schedule(self, schedule: dict[str, Any]) -> None:
        write_atomically(self.path / "schedule.json", json.dumps(schedule).encode())

    def write_training(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Stores the loss and the reward of a trainer's log history, for the report."""
        write_atomically(self.path / TRAINING, json.dumps(training_rows(history)).encode())

    def write_completions(self, step: int, completions: Sequence[Completion]) -> None:
        """Stores the completions of a look before anything is scored, so that a crash loses no sample."""
        self._write_rows("completions", step, [asdict(c) for c in completions])

    def write_judged(self, step: int, completions: Sequence[Completion], samples: Sequence[PromptSamples]) -> None:
        """Writes the completions again, with what verification added: answer_text, usable, correct, answer."""
        by_id = {s.id: s for s in samples}
        rows = []
        for c in completions:
            s = by_id[c.prompt_id]
            judged = {"answer_text": s.outputs[c.sample], "usable": s.usable[c.sample]}
            judged["correct"] = None if s.correct is None else s.correct[c.sample]
            judged["answer"] = None if s.answers is None else s.answers[c.sample]
            rows.append(asdict(c) | judged)
        self._write_rows("completions", step, rows)

    def write_scores(self, step: int, scores: PromptScores) -> None:
        columns = {key: [float(v) for v in values] for key, values in scores.values.items()}
        write_parquet(self._file("scores", step), {"id": scores.ids, "task": scores.tasks, **columns})

    def write_embeddings(self, step: int, keys: Sequence[bytes], rows: Any) -> None:
        """Stores embeddings that the training devices computed until the look is scored."""
        import numpy as np

        buffer = io.BytesIO()
        np.savez(buffer, keys=np.frombuffer(b"".join(keys), dtype="V16"), rows=rows)
        write_atomically(self._embeddings(step), buffer.getvalue())

    def take_embeddings(self, step: int) -> tuple[list[bytes], Any] | None:
        """Reads and removes what `write_embeddings` stored: (keys, rows), or None if there are none."""
        import numpy as np

        path = self._embeddings(step)
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            keys, rows = [bytes(key) for key in stored["keys"]], stored["rows"]
        path.unlink()
        return keys, rows

    def write_blame(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Stores what blame found at a look, so that later lines of blame.jsonl can add it up."""
        import numpy as np

        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomically(self._blame(step), buffer.getvalue())

    def append_blame(self, line: dict[str, Any]) -> None:
        append_line(self.path / "blame.jsonl", line)

    def append_look(self, look: dict[str, Any]) -> None:
        append_line(self.path / "looks.jsonl", look)

    def append_event(self, event: dict[str, Any]) -> None:
        append_line(self.path / "events.jsonl", event)

    def resume_at(self, step: int) -> None:
        """Rewinds the record to a checkpoint at `step`.

        Later looks and events are removed, and so are files that a crash left half written. Looks without readable
        scores become `unscored`, so that they are scored again.
        """
        looks = [self._with_readable_scores(look) for look in self.looks() if look["step"] <= step]
        events = [event for event in self.events() if event["step"] <= step]
        files = {"looks.jsonl": looks, "events.jsonl": events}
        if blames := self.blames():
            files["blame.jsonl"] = [line for line in blames if line["step"] <= step]
        for name, lines in files.items():
            write_atomically(self.path / name, b"".join(json_line(line) for line in lines))
        for folder in ("completions", "scores"):
            for later in [s for s in self._steps(folder) if s > step]:
                self._file(folder, later).unlink()
                self._embeddings(later).unlink(missing_ok=True)
                self._blame(later).unlink(missing_ok=True)
        self._discard_drafts()

    def _discard_drafts(self) -> None:
        for draft in self.path.rglob("*.tmp"):
            draft.unlink()

    def _with_readable_scores(self, look: dict[str, Any]) -> dict[str, Any]:
        reason = look.get("reason")
        if look["status"] in SCORED:
            try:
                self.scores(look["step"])
                return look
            except DivwatchError as error:
                reason = str(error)
        elif not self._file("completions", look["step"]).is_file():
            return look  # it failed before anything was sampled
        sampled = {key: value for key, value in look.items() if key in ("step", "time", "seconds")}
        return sampled | {"status": "unscored", "reason": reason}

    def _embeddings(self, step: int) -> Path:
        return self.path / "scores" / f"embeddings-{step:08d}.npz"

    def _write_rows(self, folder: str, step: int, rows: list[dict[str, Any]]) -> None:
        write_parquet(self._file(folder, step), {name: [row[name] for row in rows] for name in rows[0]})


def _this_process() -> dict[str, Any]:
    import psutil

    return {"host": platform.node(), "pid": os.getpid(), "started": psutil.Process().create_time()}
