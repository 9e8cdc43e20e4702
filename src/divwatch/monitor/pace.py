"""The share of a run's time that looks take, and whether it allows another one."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """A clock on rank 0.

    limit: the share of the time since `begin` that looks may take; 0: any. clock: the time in seconds.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self._clock = limit, clock
        self._blocked = self._last = 0.0
        self.begin()

    def begin(self) -> None:
        self._began = self._clock()

    def spent(self, seconds: float, recurring: bool = True) -> None:
        """Counts a look. recurring: whether the next look will take about as long."""
        self._blocked += seconds
        self._last = seconds if recurring else self._last

    def waited(self, seconds: float) -> None:
        """Counts time that training waited for the scores of the last look."""
        self._blocked += seconds
        self._last += seconds

    @property
    def overhead(self) -> float:
        """Share of the time since `begin`, in [0, 1]."""
        elapsed = self._clock() - self._began
        return self._blocked / elapsed if elapsed > 0 else 0.0

    def allows_another(self) -> bool:
        """Whether a look as long as the last one would keep the overhead within the limit."""
        elapsed = self._clock() - self._began
        return self.limit == 0 or self._blocked + self._last <= self.limit * (elapsed + self._last)
