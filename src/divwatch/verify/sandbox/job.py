"""What is run in the sandbox, within which limits, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Limits:
    """Limits of a program, and again of its tests. Wall time is far above CPU time because training may use the cores."""

    cpu_seconds: int = 5
    wall_seconds: float = 30.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20  # of one file, and of all files together
    open_files: int = 64

    def of_process(self) -> dict[str, int]:
        """The limits by their names in the module `resource`."""
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Job:
    """A program and its tests.

    sources:  ways to read the answer as a program; the first that compiles is run.
    tests:    pieces of code that raise if the program is wrong.
    names:    what the program must define.
    preamble: code of the data set that the tests need (imports, helpers).
    check:    a function of the tests that takes `names[0]`; None if the tests call it by name.
    """

    sources: list[str]
    tests: list[str]
    names: list[str] = field(default_factory=list)
    preamble: str = ""
    check: str | None = None


class Outcome(NamedTuple):
    """`passed`: whether the program passed its tests; None if the sandbox or the tests failed. `reason` says why."""

    passed: bool | None
    reason: str
