"""A background thread that does jobs in order: divwatch's only way to run its own code beside the caller in one process.

`concurrent.futures.ThreadPoolExecutor(1)` does this too, but Python waits for its thread at exit, so a job that hangs would
keep the training process from ending. This thread is a daemon.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from divwatch.errors import one_line

Result = TypeVar("Result")


class _Job(NamedTuple):
    future: Future[Any]
    work: Callable[[], Any]
    what: str


class BackgroundThread:
    """Does jobs in order on one daemon thread, which starts with the first job. Handing a job over never blocks.

    pending: how many jobs may wait or run.
    report: called on the thread as `report(what, reason)` if a job fails, once for each distinct reason.
    """

    def __init__(self, name: str, pending: int = 512, report: Callable[[str, str], None] | None = None) -> None:
        self._name, self._pending, self._report = name, pending, report
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._unfinished: dict[int, str] = {}  # id of a job's future -> what the job is
        self._reported: set[str] = set()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], Result], what: str = "job") -> Future[Result]:
        """Queues a job, named `what` in reports. Raises queue.Full if too many are pending."""
        if len(self._unfinished) >= self._pending:
            raise queue.Full(f"{self._pending} jobs are pending")
        future: Future[Result] = Future()
        self._unfinished[id(future)] = what
        self._jobs.put(_Job(future, work, what))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return future

    def close(self, seconds: float) -> list[str]:
        """Waits at most `seconds` for the jobs that are left; returns the names of those that are not done.

        The thread ends after its last job, even if nobody waits for it any more.
        """
        if self._thread is None:
            return []
        self._jobs.put(None)
        self._thread.join(seconds)
        unfinished = list(self._unfinished.values()) if self._thread.is_alive() else []
        self._thread = None
        return unfinished

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.future.set_result(job.work())
            except BaseException as error:  # SystemExit too: it must not end the thread
                job.future.set_exception(error)
                self._report_once(job.what, one_line(error))
            del self._unfinished[id(job.future)]

    def _report_once(self, what: str, reason: str) -> None:
        if self._report is not None and reason not in self._reported:
            self._reported.add(reason)
            self._report(what, reason)
