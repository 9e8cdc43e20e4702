"""Looks are scored while training continues, in a child process: it shares no random state, thread setting or interpreter
lock with the training, and a verifier that hangs or crashes cannot take the training with it.

A look is handed over by its step; its completions lie in the run directory. At most WAITING looks wait for their scores.
`Inline` is the same interface without a process.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError, one_line
from divwatch.monitor.score_look import LookScorer, load_models
from divwatch.processes import ChildError, ChildProcess, count_cores
from divwatch.records import Prompt, ScoredLook
from divwatch.store.run_directory import RunDirectory

# Looks without scores above which no further look is taken.
WAITING = 8
# Seconds for the scores of one look, including the start of the process and the loading of its models.
LIMIT = 1800.0


class Scored(NamedTuple):
    """What became of a look that was handed over: the scored look, or the error in one line.

    path: its run directory. raised: the error itself, if the look was scored in this process.
    """

    path: str
    step: int
    look: ScoredLook | None = None
    error: str = ""
    raised: Exception | None = None


class Job(NamedTuple):
    """A look that has no scores yet. `seconds`: how long it took to sample."""

    path: str
    step: int
    seconds: float


class Inline:
    """Scores a look when it is handed over, in the training process."""

    busy = behind = False

    def __init__(self, config: WatchConfig) -> None:
        self._models = load_models(config)
        self._scorers: dict[str, LookScorer] = {}
        self._scored: list[Scored] = []

    def open(self, store: RunDirectory, prompts: Sequence[Prompt], config: WatchConfig, max_looks: int) -> None:
        self._scorers[str(store.path)] = LookScorer(store, prompts, config, max_looks, self._models)

    def submit(self, store: RunDirectory, step: int, seconds: float) -> None:
        path = str(store.path)
        try:
            self._scored.append(Scored(path, step, self._scorers[path].score(step, seconds)))
        except Exception as error:
            self._scored.append(Scored(path, step, error=one_line(error), raised=error))

    def poll(self) -> list[Scored]:
        scored, self._scored = self._scored, []
        return scored

    def wait(self, limit: float = LIMIT) -> list[Scored]:
        return self.poll()

    def abandon(self) -> list[Scored]:
        return []

    def close(self) -> None:
        pass


class Background:
    """A scoring process that is ready to use. It is restarted when it ends; a look on which it ends twice is given up.

    limit: seconds for one look; after that the look is given up and the process restarted.
    Raises DivwatchError if a model that the metrics need cannot be loaded.
    """

    def __init__(self, config: WatchConfig, limit: float = LIMIT) -> None:
        self._config, self._limit = config, limit
        self._opened: list[dict[str, Any]] = []
        self._waiting: deque[Job] = deque()
        self._failures = 0  # of the process, on the look at the head
        self._child = self._start()
        try:
            self._child.receive(limit)
        except (ChildError, TimeoutError) as error:
            self.close()
            raise DivwatchError(f"scoring cannot start: {error}") from None
        except DivwatchError:
            self.close()
            raise

    def open(self, store: RunDirectory, prompts: Sequence[Prompt], config: WatchConfig, max_looks: int) -> None:
        """Announces a run directory whose looks will be handed over."""
        request: dict[str, Any] = {"path": str(store.path), "prompts": [asdict(p) for p in prompts]}
        request |= {"config": config.as_dict(), "max_looks": max_looks}
        self._opened.append(json.loads(json.dumps(request, default=str)))  # a data set's references may hold dates
        self._child.send(self._opened[-1])

    def submit(self, store: RunDirectory, step: int, seconds: float) -> None:
        """Hands over a look whose completions are stored."""
        if not self._waiting:
            self._restart_clock()
        self._waiting.append(Job(str(store.path), step, seconds))
        if self._child.alive:
            self._child.send(self._waiting[-1]._asdict())
        else:
            self._restart()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    @property
    def behind(self) -> bool:
        """Whether so many looks wait that no further one should be taken."""
        return len(self._waiting) >= WAITING

    def poll(self) -> list[Scored]:
        """The looks scored since the last call; returns at once."""
        scored: list[Scored] = []
        while self._waiting and (more := self._receive(0)) is not None:
            scored += more
        if self._waiting and time.monotonic() - self._since > self._limit:
            scored += self._give_up(f"not scored within {self._limit:.0f} s")
            self._restart()
        return scored

    def wait(self, limit: float = LIMIT) -> list[Scored]:
        """Waits until every look is scored, at most `limit` seconds."""
        scored, until = self.poll(), time.monotonic() + limit
        while self._waiting and time.monotonic() < until:
            more = self._receive(0.5)
            scored += self.poll() if more is None else more
        return scored

    def abandon(self) -> list[Scored]:
        """Gives up the looks that are not scored. Their completions stay in the run directory and are scored on resume."""
        jobs = list(self._waiting)
        self._waiting.clear()
        return [Scored(job.path, job.step, error="training ended before it was scored") for job in jobs]

    def close(self) -> None:
        self._child.close()

    def _start(self) -> ChildProcess:
        """A new process that knows all open runs and waiting looks; it may still be loading its models."""
        self._since = time.monotonic()
        threads = max(1, min(8, count_cores() // 2))
        server = f"{__name__}:serve"
        child = ChildProcess(server, self._config.as_dict(), name="scoring process", threads=threads)
        for request in [*self._opened, *(job._asdict() for job in self._waiting)]:
            child.send(request)
        return child

    def _restart(self) -> None:
        self._child.close()
        self._child = self._start()

    def _receive(self, seconds: float) -> list[Scored] | None:
        """The looks that one reply completes, which may be none; None if no reply comes within `seconds`."""
        try:
            reply = self._child.receive(seconds)
        except TimeoutError:
            return None
        except (ChildError, DivwatchError) as error:
            self._failures += 1
            given_up = self._give_up(str(error)) if self._failures > 1 else []
            self._restart()
            return given_up
        if reply is None:  # to the start or to `open`
            return []
        job = self._next()
        if "error" in reply:
            return [Scored(job.path, job.step, error=reply["error"])]
        return [Scored(job.path, job.step, ScoredLook.from_json(reply["look"]))]

    def _give_up(self, why: str) -> list[Scored]:
        job = self._next()
        return [Scored(job.path, job.step, error=why)]

    def _next(self) -> Job:
        self._restart_clock()
        return self._waiting.popleft()

    def _restart_clock(self) -> None:
        self._since, self._failures = time.monotonic(), 0


def serve(config: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    """In the scoring process: loads the models and returns the handler of the requests that `Background` sends."""
    models = load_models(WatchConfig(**config))
    scorers: dict[str, LookScorer] = {}

    def handle(request: dict[str, Any]) -> dict[str, Any] | None:
        path = request["path"]
        if "prompts" in request:
            prompts = [Prompt(**prompt) for prompt in request["prompts"]]
            settings = WatchConfig(**request["config"])
            scorers[path] = LookScorer(RunDirectory(Path(path)), prompts, settings, request["max_looks"], models)
            return None
        try:
            return {"look": scorers[path].score(request["step"], request["seconds"]).to_json()}
        except Exception as error:
            return {"error": one_line(error)}

    return handle
