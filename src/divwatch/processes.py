"""A child Python process that answers requests: divwatch's only way to run its own code in another process.

    child = ChildProcess("package.module:serve", argument)  # the child calls handle = serve(argument)
    child.receive(60)                                       # its first reply, None: it is ready
    child.ask(request, seconds=10)                          # handle(request)

`send` and `receive` are the two halves of `ask`, for a caller that does not want to wait.

Guarantees:
- The child runs a fresh interpreter. It neither forks a process that has threads and a GPU context nor imports the
  training script, which may have no `if __name__ == "__main__"`.
- Requests and replies are lines of JSON on pipes that only the two processes hold. Nothing is unpickled, and what a
  library prints goes to a log, the last line of which explains why a child ended.
- A request has a time limit; a child that exceeds it is killed together with the processes it forked.
- The child ends when its parent does, however that ends: on Linux by PR_SET_PDEATHSIG, elsewhere because its input ends.
  Linux sends that signal when the parent's *thread* that started the child ends, so keep that thread.
- Ctrl-C reaches the parent alone, and the child runs at the lowest priority, without GPUs and outside the launch.

Packages that were considered: multiprocessing and concurrent.futures (spawn) import the training script in the child, and
so does pebble, which adds time limits to them. loky does not, but it cannot end one call that hangs, its workers outlive
a parent that is killed while they work, and results come back pickled. None sets the child's environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping
from typing import IO, Any

from divwatch.errors import DivwatchError, one_line

Lines = queue.SimpleQueue[bytes | None]  # None: there are no more
Handler = Callable[[Any], Any]

# What torchrun and accelerate tell a process of its place in a launch.
_LAUNCH = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE",
           "ROLE_WORLD_SIZE", "ROLE_NAME")  # fmt: skip
_LAUNCH_PREFIXES = ("MASTER_", "ACCELERATE_", "TORCHELASTIC_", "FSDP_")
_CLOSE_LIMIT = 10.0  # seconds until a killed process must be gone
_LAST_WORDS = 1 << 14  # bytes of the log that are read


def count_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ChildError(RuntimeError):
    """The child ended, could not be started, or its server raised an error. The message is one line."""


class ChildProcess:
    """A child process that runs `server`, "module:function", until it is closed or collected.

    The function is called with `arguments` and returns the handler of requests. All of them are JSON values.

    name: what messages call the process. threads: for OpenMP, BLAS and torch. variables: added to the environment.
    A process that cannot be started behaves like one that ended at once.
    """

    def __init__(
        self,
        server: str,
        *arguments: Any,
        name: str = "child process",
        threads: int = 1,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._requests: Lines = queue.SimpleQueue()
        self._replies: Lines = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.send(list(arguments))
        try:
            self._start(server, _environment(threads) | dict(variables or {}))
        except (OSError, RuntimeError) as error:  # no memory, process, thread or file handle is left
            self.close()
            self._process, self._failure = None, f"the {name} could not be started ({one_line(error)})"
            self._replies.put(None)

    def _start(self, server: str, environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 -- read when the process has ended
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "divwatch.processes", server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, _end, os.getpid(), self._process, self._requests)
        for work in ((_write, self._process.stdin, self._requests), (_read, self._process.stdout, self._replies)):
            threading.Thread(target=work[0], args=work[1:], daemon=True, name=f"divwatch {self._name}").start()

    @property
    def pid(self) -> int | None:
        """The process id; None if the process could not be started."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, request: Any) -> None:
        """Queues a request and returns at once, even if the child does not read.

        Raises TypeError or ValueError if the request is not JSON.
        """
        self._requests.put(json.dumps(request).encode() + b"\n")

    def receive(self, seconds: float | None = None) -> Any:
        """The next reply: None for the start, then one for each request, in order.

        Raises TimeoutError if none comes within `seconds` (None: no limit), ChildError if the child has ended or
        its server failed, and DivwatchError if the server raised one.
        """
        try:
            line = self._replies.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"the {self._name} did not reply within {seconds:g} s") from None
        if line is None:
            self._replies.put(None)  # for the next call
            raise ChildError(self._explain_end())
        message = json.loads(line)
        if "error" in message:
            raise (DivwatchError if message["wrong_input"] else ChildError)(message["error"])
        return message["reply"]

    def ask(self, request: Any, seconds: float | None = None) -> Any:
        """Sends a request and waits for its reply. Errors are those of `send` and `receive`."""
        self.send(request)
        return self.receive(seconds)

    def close(self) -> None:
        """Kills the process, and what it forked. Returns within seconds; does nothing the second time."""
        if self._process is not None:
            self._finalizer()

    def _explain_end(self) -> str:
        if self._process is None or self._log is None:
            return self._failure
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_LIMIT)
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), _LAST_WORDS, max(0, size - _LAST_WORDS)).decode("utf-8", "replace")
        lines = text.strip().splitlines() or ["no output"]
        return f"the {self._name} ended with status {self._process.returncode} ({lines[-1].strip()})"


def _write(stream: IO[bytes], lines: Lines) -> None:
    """Until there are no more lines or the process has ended, which `_read` notices."""
    with contextlib.suppress(OSError, ValueError), stream:
        while (line := lines.get()) is not None:
            stream.write(line)
            stream.flush()


def _read(stream: IO[bytes], lines: Lines) -> None:
    with stream:
        for line in stream:
            if line.endswith(b"\n"):  # else the process died while it wrote
                lines.put(line)
    lines.put(None)


def _end(parent: int, process: subprocess.Popen[bytes], requests: Lines) -> None:
    if os.getpid() != parent:
        return  # a fork of the parent, such as a DataLoader worker, does not own the child
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # the child leads its own process group
    requests.put(None)  # only now: the child ends with its input, and the group would stay
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_CLOSE_LIMIT)


def _environment(threads: int) -> dict[str, str]:
    """The parent's variables without its place in the launch and its GPUs; modules are found where the parent finds them."""
    environment = {n: v for n, v in os.environ.items() if n not in _LAUNCH and not n.startswith(_LAUNCH_PREFIXES)}
    return environment | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),
    }


# in the child


def main() -> None:
    """Serves requests until the input ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    with contextlib.suppress(OSError):
        os.nice(19)
    requests: Lines = queue.SimpleQueue()
    source, sink = _take_pipes()
    threading.Thread(target=_read_until_parent_ends, args=(source, requests), daemon=True).start()
    try:
        _serve(sys.argv[1], requests, sink)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(1)  # a thread that a library left running must not keep this process


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Requests and replies under descriptors that nobody else knows; prints go to the log, and standard input is empty."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def _read_until_parent_ends(source: IO[bytes], requests: Lines) -> None:
    for line in source:
        requests.put(line)
    os._exit(0)


def _serve(server: str, requests: Lines, sink: IO[bytes]) -> None:
    module, _, function = server.partition(":")
    handler: Handler | None = None

    def start(arguments: list[Any]) -> None:
        nonlocal handler
        handler = getattr(importlib.import_module(module), function)(*arguments)

    while (line := requests.get()) is not None:
        sink.write(_reply(start if handler is None else handler, json.loads(line)))
        sink.flush()
        if handler is None:
            return


def _reply(handler: Handler, request: Any) -> bytes:
    try:
        text = json.dumps({"reply": handler(request)})
    except Exception as error:
        wrong_input = isinstance(error, DivwatchError)
        text = json.dumps({"error": one_line(error, kind=not wrong_input), "wrong_input": wrong_input})
    return text.encode() + b"\n"


if __name__ == "__main__":
    main()
