"""Runs programs, each with its tests: two processes per program, joined by a socket, started and ended here."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.processes import count_cores
from divwatch.verify.sandbox import container
from divwatch.verify.sandbox.job import DEFAULT_LIMITS, Job, Limits, Outcome

_GRACE = 0.1  # seconds
_LONGEST_OUTCOME = 1 << 14  # bytes


def run_programs(
    jobs: Sequence[Job],
    limits: Limits = DEFAULT_LIMITS,
    *,
    unsafe_code: bool = False,
    workers: int | None = None,
) -> list[Outcome]:
    """One outcome per job, in order. Programs run side by side at the lowest priority.

    unsafe_code: run them as plain processes if no sandbox is available; limits on CPU, memory and time still apply.
    workers: programs at a time; by default, as many as there are cores.

    Raises DivwatchError if no sandbox is available, unless `unsafe_code`; with no jobs, that is all it does.
    """
    bubblewrap = _require_sandbox(unsafe_code)
    if not jobs:
        return []
    with ThreadPoolExecutor(min(workers or count_cores(), len(jobs)), initializer=_lowest_priority) as pool:
        return list(pool.map(lambda job: _run(job, limits, bubblewrap), jobs))


def _lowest_priority() -> None:
    """For this thread and the processes that it starts. Only on Linux, where a thread has its own priority."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _require_sandbox(unsafe_code: bool) -> str | None:
    """The path of bubblewrap, or None if programs may run without it."""
    path, problem = container.find_bubblewrap()
    if path is not None:
        problem = _try_out(path)
    if not problem:
        return path
    if unsafe_code:
        return None
    raise DivwatchError(
        f"code cannot be run without a sandbox ({problem}): install bubblewrap 0.7 or newer (apt-get install "
        "bubblewrap), or set watch_unsafe_code: true to run what the model writes without one"
    )


@cache
def _try_out(bubblewrap: str) -> str:
    """Runs a program in a sandbox: the reason if it does not work here, otherwise an empty text."""
    job = Job(sources=["def f(x):\n    return x + 1\n"], tests=["assert f(1) == 2"], names=["f"])
    return _run(job, DEFAULT_LIMITS, bubblewrap).reason


def _run(job: Job, limits: Limits, bubblewrap: str | None) -> Outcome:
    deadline = time.monotonic() + limits.wall_seconds
    with contextlib.ExitStack() as stack:
        tests_end, program_end = (stack.enter_context(s) for s in socket.socketpair())
        start = _Starter(stack, limits, bubblewrap)
        start("program", {"sources": job.sources}, program_end, subprocess.DEVNULL)
        tests = start(
            "tests",
            {"preamble": job.preamble, "tests": job.tests, "names": job.names, "check": job.check},
            tests_end,
            subprocess.PIPE,
        )
        for end in (tests_end, program_end):  # so that each side sees when the other has ended
            end.close()
        return _read_outcome(tests, deadline, limits)


class _Starter:
    """Starts runners and ends them, whatever happens, when `stack` is left."""

    def __init__(self, stack: contextlib.ExitStack, limits: Limits, bubblewrap: str | None) -> None:
        self.stack, self.limits, self.bubblewrap = stack, limits, bubblewrap

    def __call__(self, role: str, job: dict[str, Any], channel: socket.socket, stdout: int) -> subprocess.Popen[bytes]:
        request = json.dumps({"limits": self.limits.of_process()} | job).encode()
        arguments = [role, str(channel.fileno())]
        if self.bubblewrap is None:
            command = [*container.interpreter(), str(container.RUNNER), *arguments]
            fds: list[int] = []
            folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="divwatch-"))
        else:
            command, fds = container.in_container(self.bubblewrap, self.limits.file_bytes, arguments, self.stack)
            folder = "/"
        process = subprocess.Popen(
            command,
            stdin=self.stack.enter_context(container.unnamed_file(request)),
            stdout=stdout,
            stderr=subprocess.PIPE if stdout == subprocess.PIPE else subprocess.DEVNULL,
            env={},
            cwd=folder,
            pass_fds=[channel.fileno(), *fds],
            start_new_session=True,
        )
        self.stack.callback(_end, process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started: its container, or its process group if there is none."""
    try:
        process.wait(_GRACE)  # most end by themselves once the other side has ended
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _read_outcome(tests: subprocess.Popen[bytes], deadline: float, limits: Limits) -> Outcome:
    assert tests.stdout is not None
    output = _read(tests.stdout.fileno(), deadline, _LONGEST_OUTCOME)
    if output is None:
        return Outcome(False, f"timed out after {limits.wall_seconds:g} s")
    messages = [json.loads(line) for line in output.splitlines() if line.endswith(b"}")]
    if not messages:
        return Outcome(None, f"the sandbox did not start: {_last_error(tests)}")
    if len(messages) < 2:
        return Outcome(False, "the tests ended without a result (out of CPU time or memory)")
    return Outcome(messages[1]["passed"], str(messages[1]["reason"]))


def _read(fd: int, deadline: float, longest: int) -> bytes | None:
    """All that comes until the other end closes, at most `longest` bytes; None at the deadline."""
    content = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(content) < longest:
        seconds = deadline - time.monotonic()
        if seconds <= 0 or not poll.poll(seconds * 1000):
            return None
        part = os.read(fd, longest)
        if not part:
            break
        content += part
    return content


def _last_error(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    text = _read(process.stderr.fileno(), time.monotonic() + 1, 1 << 12) or b""
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {process.poll()}"
