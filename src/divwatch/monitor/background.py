"""Scores are computed while training goes on, in a process of its own: it shares no random state, thread setting or
interpreter lock with the training, and a verifier that hangs or dies takes nothing along.

Looks are handed over by step; what they hold lies in the run directory. At most WAITING of them are under way.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any, NamedTuple

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError, one_line
from divwatch.monitor.score_look import LookScorer, load_models
from divwatch.records import Prompt, ScoredLook
from divwatch.store.run_directory import RunDirectory

# Looks handed over and not scored, above which looks that are due are put off.
WAITING = 8
# Seconds in which a look must be scored, the start of the process and the loading of its models included.
LIMIT = 1800.0

Scored = dict[str, Any]  # {path, step, result} or {path, step, error}; path: the run directory


class Job(NamedTuple):
    """A look that was handed over and is not scored yet."""

    path: str
    step: int
    seconds: float


class Inline:
    """The same interface without a process: a look is scored when it is handed over."""

    busy = behind = False

    def __init__(self, config: WatchConfig) -> None:
        self._models = load_models(config)
        self._scorers: dict[str, LookScorer] = {}
        self._scored: list[Scored] = []

    def open(self, store: RunDirectory, prompts: Sequence[Prompt], config: WatchConfig, max_looks: int) -> None:
        self._scorers[str(store.path)] = LookScorer(store, prompts, config, max_looks, self._models)

    def submit(self, store: RunDirectory, step: int, seconds: float) -> None:
        done = {"path": str(store.path), "step": step}
        try:
            self._scored.append(done | {"result": self._scorers[str(store.path)].score(step, seconds)})
        except Exception as error:
            self._scored.append(done | {"error": one_line(error), "raised": error})

    def poll(self) -> list[Scored]:
        done, self._scored = self._scored, []
        return done

    def wait(self, limit: float = LIMIT) -> list[Scored]:
        return self.poll()

    def abandon(self) -> list[Scored]:
        return []

    def close(self) -> None:
        pass


class Background:
    """A scoring process, ready once made; it is started anew where it dies, and a look on which it dies twice is given up.

    Raises DivwatchError where a model that the metrics need cannot be loaded.
    """

    def __init__(self, config: WatchConfig) -> None:
        self._told = [json.dumps(config.as_dict())]
        self._waiting: deque[Job] = deque()
        self._deaths = 0  # on the look at the head
        self._since = 0.0  # when the look at the head was begun
        self._process: subprocess.Popen[str] | None = None
        self._start()
        self._wait_ready()

    def open(self, store: RunDirectory, prompts: Sequence[Prompt], config: WatchConfig, max_looks: int) -> None:
        """Names a run directory whose looks will be handed over."""
        told: dict[str, Any] = {"path": str(store.path), "prompts": [asdict(p) for p in prompts]}
        told |= {"config": config.as_dict(), "max_looks": max_looks}
        self._told.append(json.dumps(told, default=str))
        self._tell(self._told[-1])

    def _start(self) -> None:
        """Starts the process; returns at once, while it loads its models. Where none can be started it is as if it had died."""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._told_next: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._since = time.monotonic()
        try:
            self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
            self._process = subprocess.Popen(
                [sys.executable, "-m", "divwatch.monitor.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                encoding="utf-8",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the training run, which then closes this one
            )
        except OSError as error:  # no memory, process or file handle is left
            self._log = io.BytesIO(one_line(error).encode())
            self._lines.put(None)
            return
        weakref.finalize(self, _end, self._process, self._told_next)
        threading.Thread(target=_write, args=(self._process.stdin, self._told_next), daemon=True).start()
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        for line in self._told:
            self._tell(line)
        for job in self._waiting:
            self._tell(json.dumps(job._asdict()))

    def _wait_ready(self) -> None:
        try:
            line = self._lines.get(timeout=LIMIT)
        except queue.Empty:
            line = None
        message = json.loads(line) if line else {"refused": f"the scoring process did not start ({self._last_words()})"}
        if "refused" in message:
            self.close()
            raise DivwatchError(message["refused"])

    def submit(self, store: RunDirectory, step: int, seconds: float) -> None:
        """Hands a look over."""
        if not self._waiting:
            self._since, self._deaths = time.monotonic(), 0
        self._waiting.append(Job(str(store.path), step, seconds))
        if self._process is not None and self._process.poll() is None:
            self._tell(json.dumps(self._waiting[-1]._asdict()))
        else:
            self._start()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    @property
    def behind(self) -> bool:
        """Whether so many looks wait that no other should be taken."""
        return len(self._waiting) >= WAITING

    def poll(self) -> list[Scored]:
        """What has been scored since the last call; returns at once."""
        done: list[Scored] = []
        while not self._lines.empty():
            done += self._heard(self._lines.get())
        if self._waiting and time.monotonic() - self._since > LIMIT:
            done += self._give_up(f"not scored within {LIMIT:.0f} s")
            self.close()
            self._start()
        return done

    def wait(self, limit: float = LIMIT) -> list[Scored]:
        """Waits until all that was handed over is scored, at most `limit` seconds."""
        done, until = self.poll(), time.monotonic() + limit
        while self._waiting and time.monotonic() < until:
            try:
                done += self._heard(self._lines.get(timeout=0.5))
            except queue.Empty:
                done += self.poll()
        return done

    def abandon(self) -> list[Scored]:
        """Gives up what is not scored; its completions stay in the run directory and are scored on resume."""
        left = list(self._waiting)
        self._waiting.clear()
        return [{"path": j.path, "step": j.step, "error": "training ended before it was scored"} for j in left]

    def close(self) -> None:
        if self._process is not None:
            _end(self._process, self._told_next)

    def _heard(self, line: str | None) -> list[Scored]:
        """A line of the process; None: it has ended."""
        if line is None:
            return self._ended()
        try:
            message = json.loads(line)
        except ValueError:
            return []  # it died while it spoke
        if not self._waiting or (message.get("path"), message.get("step")) != self._waiting[0][:2]:
            return []
        self._next()
        if "result" in message:
            message["result"] = ScoredLook.from_json(message["result"])
        return [message]

    def _ended(self) -> list[Scored]:
        if not self._waiting:
            return []
        self._deaths += 1
        status = self._process.wait() if self._process is not None else None
        why = f"the scoring process ended with status {status} ({self._last_words()})"
        done = self._give_up(why) if self._deaths > 1 else []
        self._start()
        return done

    def _give_up(self, why: str) -> list[Scored]:
        job = self._waiting[0]
        self._next()
        return [{"path": job.path, "step": job.step, "error": why}]

    def _next(self) -> None:
        self._waiting.popleft()
        self._since, self._deaths = time.monotonic(), 0

    def _tell(self, line: str) -> None:
        """Handed to a thread that writes: a pipe that the process does not read holds nothing up."""
        self._told_next.put(line)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _write(stream: Any, lines: queue.SimpleQueue[str | None]) -> None:
    """Until it is told to stop or the process has ended, which the reader notices."""
    with contextlib.suppress(BrokenPipeError, ValueError, OSError):
        while (line := lines.get()) is not None:
            stream.write(line + "\n")
            stream.flush()


def _read(stream: Any, lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[str], told_next: queue.SimpleQueue[str | None]) -> None:
    told_next.put(None)
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _environment() -> dict[str, str]:
    """The training's own, less its place in a launch and its accelerators; modules are found where it finds them."""
    launch = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
    mine = {
        name: value
        for name, value in os.environ.items()
        if name not in launch and not name.startswith(("ACCELERATE_", "TORCHELASTIC_", "FSDP_"))
    }
    mine["CUDA_VISIBLE_DEVICES"] = ""
    mine["OMP_NUM_THREADS"] = str(max(1, min(8, (os.cpu_count() or 1) // 2)))
    mine["TOKENIZERS_PARALLELISM"] = "false"
    mine["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return mine
