"""Model-written programs, each run against its tests in sandboxes of its own: `run_programs(jobs) -> verdicts`.

A sandbox is a bubblewrap container: empty but for the interpreter's own files (read-only) and a small scratch directory,
no network, no environment, user, process and IPC namespaces of its own, the system calls of `seccomp.py` refused, limits
on CPU, memory, files and time, killed when it ends, when time is up, or when this process dies. `runner.py` says how
program and tests are kept apart. Where bubblewrap cannot work, nothing is run (`require`).
"""

from __future__ import annotations

import contextlib
import json
import os
import py_compile
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from divwatch.errors import DivwatchError
from divwatch.verify.sandbox import seccomp

_RUNNER = Path(__file__).with_name("runner.py")
_INSIDE = "/runner.pyc"
_STDLIB = ("stdlib", "platstdlib")
_GRACE = 0.1  # seconds
_LONGEST_VERDICT = 1 << 14  # bytes


@dataclass(frozen=True)
class Limits:
    """Of one program, and again of its tests. Wall time is far above CPU time: training may hold the cores."""

    cpu_seconds: int = 5
    wall_seconds: float = 30.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20  # of one file, and of all files together
    open_files: int = 64

    def of_process(self) -> dict[str, int]:
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }


DEFAULT = Limits()


@dataclass(frozen=True)
class Job:
    """A program and its tests.

    sources:  the program's text; of several readings the first that compiles.
    preamble: code of the data set that the tests need around them (imports, helpers).
    tests:    pieces of code that raise where the program is wrong.
    names:    what the program must define.
    check:    a function of the tests that takes `names[0]`; None where the tests call it by name.
    """

    sources: list[str]
    tests: list[str]
    names: list[str] = field(default_factory=list)
    preamble: str = ""
    check: str | None = None


class Verdict(NamedTuple):
    """`passed` is None where it cannot be said (the sandbox or the tests failed, not the program)."""

    passed: bool | None
    reason: str


def run_programs(
    jobs: Sequence[Job], limits: Limits = DEFAULT, *, unsafe_code: bool = False, workers: int | None = None
) -> list[Verdict]:
    """A verdict a job, in order: as many at once as there are cores, all at the lowest priority.

    `unsafe_code` runs them as plain processes where no sandbox can be had (limits on CPU, memory and time still hold).
    Raises DivwatchError where neither is to be had.
    """
    if not jobs:
        return []
    sandboxed = require(unsafe_code)
    with ThreadPoolExecutor(min(workers or cores(), len(jobs)), initializer=lowest_priority) as pool:
        return list(pool.map(lambda job: _run(job, limits, sandboxed), jobs))


def require(unsafe_code: bool = False) -> bool:
    """True: programs can be run in a sandbox. False: they cannot, but may be run without. Else DivwatchError."""
    problem = unavailable()
    if problem is None:
        return True
    if unsafe_code:
        return False
    raise DivwatchError(
        f"code cannot be judged without a sandbox ({problem}): install bubblewrap 0.7 or newer (apt-get install "
        "bubblewrap), or set watch_unsafe_code: true to run what the model writes without one"
    )


@cache
def unavailable() -> str | None:
    """Why there is no sandbox here, or None: a program is run in one to find out."""
    if not sys.platform.startswith("linux"):
        return f"bubblewrap needs Linux, this is {sys.platform}"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    if seccomp.program() is None:
        return "no list of system calls for this processor"
    job = Job(sources=["def f(x):\n    return x + 1\n"], tests=["assert f(1) == 2"], names=["f"])
    return _run(job, DEFAULT, sandboxed=True).reason or None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lowest_priority() -> None:
    """Of this thread alone (on Linux priorities are per thread) and so of the processes that it starts."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


# one program


def _run(job: Job, limits: Limits, sandboxed: bool) -> Verdict:
    deadline = time.monotonic() + limits.wall_seconds
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(s) for s in socket.socketpair())
        about = {"limits": limits.of_process()}
        start = _Starter(stack, limits, sandboxed)
        start("program", about | {"sources": job.sources}, theirs, subprocess.DEVNULL)
        tests = start(
            "tests",
            about | {"preamble": job.preamble, "tests": job.tests, "names": job.names, "check": job.check},
            ours,
            subprocess.PIPE,
        )
        for end in (ours, theirs):  # each side sees when the other has ended
            end.close()
        return _verdict(tests, deadline, limits)


class _Starter:
    """Starts runners and ends them, whatever happens, when `stack` is left."""

    def __init__(self, stack: contextlib.ExitStack, limits: Limits, sandboxed: bool) -> None:
        self.stack, self.limits, self.sandboxed = stack, limits, sandboxed

    def __call__(self, role: str, job: dict[str, Any], channel: socket.socket, stdout: int) -> subprocess.Popen[bytes]:
        given = self.stack.enter_context(_file(json.dumps(job).encode()))
        command = [*_python(), _INSIDE if self.sandboxed else str(_RUNNER), role, str(channel.fileno())]
        fds = [channel.fileno()]
        if self.sandboxed:
            code, rules = (self.stack.enter_context(_file(c)) for c in (_compiled(), seccomp.program() or b""))
            fds += [code.fileno(), rules.fileno()]
            given_by_fd = ["--ro-bind-data", str(fds[1]), _INSIDE, "--remount-ro", "/", "--seccomp", str(fds[2])]
            command = [*_bubblewrap(self.limits.file_bytes), *given_by_fd, *command]
            folder = "/"
        else:
            folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="divwatch-"))
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=stdout,
            stderr=subprocess.PIPE if stdout == subprocess.PIPE else subprocess.DEVNULL,
            env={},
            cwd=folder,
            pass_fds=fds,
            start_new_session=True,
        )
        self.stack.callback(_end, process)
        return process


def _file(content: bytes) -> IO[bytes]:
    """Content to be read from a descriptor: it has no name that a program could open."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(content)
    file.seek(0)
    return file


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started: bubblewrap's process namespace ends with it, and its group where there is none."""
    try:
        process.wait(_GRACE)  # most end by themselves once the other side has
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _verdict(tests: subprocess.Popen[bytes], deadline: float, limits: Limits) -> Verdict:
    assert tests.stdout is not None
    said = _read(tests.stdout.fileno(), deadline, _LONGEST_VERDICT)
    if said is None:
        return Verdict(False, f"timed out after {limits.wall_seconds:g} s")
    lines = [json.loads(line) for line in said.splitlines() if line.endswith(b"}")]
    if not lines:
        return Verdict(None, f"the sandbox did not start: {_complaint(tests)}")
    if len(lines) < 2:
        return Verdict(False, "the tests ended without a verdict (out of CPU time or memory)")
    return Verdict(lines[1]["passed"], str(lines[1]["reason"]))


def _read(fd: int, deadline: float, longest: int) -> bytes | None:
    """All that comes until the other end closes, at most `longest` bytes; None at the deadline."""
    said = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(said) < longest:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return None
        part = os.read(fd, longest)
        if not part:
            break
        said += part
    return said


def _complaint(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    text = _read(process.stderr.fileno(), time.monotonic() + 1, 1 << 12) or b""
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {process.poll()}"


# the container


@cache
def _python() -> tuple[str, ...]:
    """The interpreter under this environment, and nothing of the environment: no packages, no user's start-up files."""
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return (executable, "-I", "-S", "-B", "-X", "utf8")


@cache
def _compiled() -> bytes:
    """runner.py compiled: twice a program, compiling it would take as long as bubblewrap does."""
    with tempfile.TemporaryDirectory(prefix="divwatch-") as folder:
        made = py_compile.compile(str(_RUNNER), os.path.join(folder, "runner.pyc"), doraise=True)
        return Path(made or "").read_bytes()


@cache
def _bubblewrap(scratch_bytes: int) -> tuple[str, ...]:
    path = shutil.which("bwrap")
    assert path is not None
    made = [path, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    made += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    made += ["--size", str(scratch_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for place in _needed():
        made += ["--ro-bind", place, place]
    made += ["--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"]
    return tuple(made)


def _needed() -> list[str]:
    """The files that the interpreter needs: itself, its standard library, shared libraries. No /etc but the index of
    libraries, no /proc, no home."""
    base = dict.fromkeys(("base", "platbase", "installed_base", "installed_platbase"), sys.base_prefix)
    places = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", _python()[0]]
    places += [os.path.join(sys.base_prefix, "lib"), *(sysconfig.get_path(name, vars=base) for name in _STDLIB)]
    places = [place for place in dict.fromkeys(places) if os.path.exists(place)]
    return [place for place in places if not any(place.startswith(f"{other}/") for other in places)]
