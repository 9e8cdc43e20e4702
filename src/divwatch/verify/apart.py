"""Judging in processes of their own, with a time limit an answer: `apart(module, function) -> Verifier`.

For verifiers that lean on libraries which may hang (sympy), set signal handlers or touch global random state (langdetect,
IFEval): none of it reaches the process that trains, and an answer that hangs is ended with its process and judged None.
Signals are no way: judgement may run in a background thread.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from divwatch.records import Prompt, Verification
from divwatch.verify.sandbox.bubblewrap import cores, lowest_priority
from divwatch.verify.verifier import Verifier, unverified, verify_one

SECONDS = 10.0  # for one answer
_START = 120.0  # for the imports, on a machine that is busy training
_MEMORY = 8 << 30  # bytes of address space
_ENOUGH = 64  # answers that are worth another process


def apart(module: str, function: str, seconds: float = SECONDS) -> Verifier:
    """A verifier that calls `module.function(answer, reference)` in other processes, as many as there are cores.

    References must be JSON. An answer that takes longer than `seconds` is judged None.
    """

    def verifier(answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Verification]:
        n = len(answers)
        judged: list[Verification] = [unverified("not reached")] * n
        left = iter(range(n))
        lock = threading.Lock()

        def work() -> None:
            with _Worker(module, function) as worker:
                while True:
                    with lock:
                        i = next(left, None)
                    if i is None:
                        return
                    judged[i] = worker.judge(answers[i], prompts[i].reference, seconds)

        count = max(1, min(cores(), -(-n // _ENOUGH)))
        with ThreadPoolExecutor(count, initializer=lowest_priority) as pool:
            working = [pool.submit(work) for _ in range(count)]
            try:
                for done in working:
                    done.result()
            except BaseException:
                with lock:
                    deque(left, maxlen=0)  # an interrupt: no other answer is begun
                raise
        return judged

    return verifier


class _Worker:
    """A process that judges answer after answer; started when first needed, and again after one that hung."""

    def __init__(self, module: str, function: str) -> None:
        self.module, self.function = module, function
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def judge(self, answer: str, reference: Any, seconds: float) -> Verification:
        try:
            request = json.dumps([answer, reference]).encode() + b"\n"
        except (TypeError, ValueError) as error:
            return unverified(f"the reference is not JSON ({error})")
        if self.process is None:
            problem = self._begin()
            if problem is not None:
                return unverified(problem)
        reply = self._ask(request, seconds)
        if reply is None:
            hung = self.process is not None and self.process.poll() is None
            self._stop()
            return unverified(
                f"timed out after {seconds:g} s" if hung else "the judging process ended (out of memory?)"
            )
        return Verification(*json.loads(reply))

    def _begin(self) -> str | None:
        """Starts the process; what went wrong, or None."""
        code = f"import sys; sys.path[:] = {sys.path!r}; from divwatch.verify.apart import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, self.module, self.function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # an interrupt at the terminal is the trainer's to handle
        )
        ready = self._ask(b"", _START)
        if ready is None or json.loads(ready) is not None:
            self._stop()
            return "the judging process did not start" if ready is None else str(json.loads(ready))
        return None

    def _ask(self, request: bytes, seconds: float) -> bytes | None:
        """The line that comes back; None where the process ended or the time is up."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(request)
            self.process.stdin.flush()
        except OSError:
            return None
        until, said = time.monotonic() + seconds, b""
        poll = select.poll()
        poll.register(self.process.stdout.fileno(), select.POLLIN)
        while not said.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return None
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                self.process.wait()
                return None
            said += part
        return said

    def _stop(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self.process = None


# in the other process


def serve() -> None:
    """Reads [answer, reference] a line and writes the judgement, until its input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    _bound()
    try:
        judge = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    except ImportError as error:
        print(json.dumps(f"{error}: install divwatch with its dependencies"), file=replies, flush=True)
        return
    print("null", file=replies, flush=True)
    for line in sys.stdin:
        answer, reference = json.loads(line)
        print(json.dumps(verify_one(judge, answer, reference)), file=replies, flush=True)


def _bound() -> None:
    """Ends with the process that asked, and takes no more memory than an answer can be worth."""
    if sys.platform.startswith("linux"):
        import ctypes
        import resource

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
