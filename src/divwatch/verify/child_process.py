"""Verifiers that run in child processes: `in_child_process(module, function)`.

For functions that call libraries which may hang (sympy), set signal handlers or change the global random state (langdetect,
IFEval). None of this reaches the training process. An answer that exceeds its time limit is unverified, and its process is
killed; signals could not do that, because verification may run in a background thread.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.processes import ChildError, ChildProcess, count_cores
from divwatch.records import Prompt, Verification
from divwatch.verify.verifier import Verifier, unverified, verify_one

SECONDS = 10.0  # for one answer
_START = 120.0  # for the imports, on a machine that is busy training
_MEMORY = 8 << 30  # bytes of address space
_ENOUGH = 64  # answers that are worth another process


def in_child_process(module: str, function: str, seconds: float = SECONDS) -> Verifier:
    """A verifier that calls `module.function(answer, reference)` in child processes, one per core for many answers.

    References must be JSON. An answer that takes longer than `seconds` is unverified (`correct=None`).
    """

    def verifier(answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Verification]:
        results: list[Verification] = [unverified("not reached")] * len(answers)
        pending = iter(range(len(answers)))
        lock = threading.Lock()

        def work() -> None:
            with closing(_AnswerChecker(module, function, seconds)) as checker:
                while True:
                    with lock:
                        i = next(pending, None)
                    if i is None:
                        return
                    results[i] = checker.verify(answers[i], prompts[i].reference)

        count = max(1, min(count_cores(), -(-len(answers) // _ENOUGH)))
        with ThreadPoolExecutor(count) as pool:
            working = [pool.submit(work) for _ in range(count)]
            try:
                for future in working:
                    future.result()
            except BaseException:
                with lock:
                    deque(pending, maxlen=0)  # an interrupt: start no further answer
                raise
        return results

    return verifier


class _AnswerChecker:
    """A child process that verifies answer after answer; started when first needed, and again after an answer that hung."""

    def __init__(self, module: str, function: str, seconds: float) -> None:
        self._module, self._function, self._seconds = module, function, seconds
        self._child: ChildProcess | None = None

    def verify(self, answer: str, reference: Any) -> Verification:
        try:
            child = self._child or self._start()
            child.send([answer, reference])
        except (ChildError, TimeoutError, DivwatchError) as error:
            self.close()
            return unverified(str(error))
        except (TypeError, ValueError) as error:
            return unverified(f"the reference is not JSON ({error})")
        try:
            return Verification(*child.receive(self._seconds))
        except TimeoutError:
            self.close()
            return unverified(f"timed out after {self._seconds:g} s")
        except ChildError as error:
            self.close()
            return unverified(str(error))

    def _start(self) -> ChildProcess:
        name, offline = f"{self._function} verifier", {"HF_HUB_OFFLINE": "1"}
        self._child = ChildProcess(f"{__name__}:serve", self._module, self._function, name=name, variables=offline)
        self._child.receive(_START)
        return self._child

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


def serve(module: str, function: str) -> Callable[[list[Any]], Verification]:
    """In the child process: imports the function and limits the memory that it may take."""
    if sys.platform.startswith("linux"):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        check = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise DivwatchError(f"{error}: install divwatch with its dependencies") from None
    return lambda request: verify_one(check, *request)
