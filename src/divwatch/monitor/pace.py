"""A clock on rank 0: how long a run has trained and for how long looks have blocked it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Counts seconds from `begin` on.

    limit: the share of the time so far that looks may take; 0: any. clock: the time in seconds.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self._clock = limit, clock
        self._last = 0.0
        self.begin()

    def begin(self, training: float = 0.0, blocked: float = 0.0) -> None:
        """Starts the clock. training, blocked: seconds of an interrupted run, which count as well."""
        self.blocked = blocked
        self._began = self._clock() - training - blocked

    def spent(self, seconds: float, recurring: bool = True) -> None:
        """Counts a look. recurring: whether the next look will take about as long."""
        self.blocked += seconds
        self._last = seconds if recurring else self._last

    def waited(self, seconds: float) -> None:
        """Counts time that training waited for the scores of the last look."""
        self.blocked += seconds
        self._last += seconds

    @property
    def training(self) -> float:
        """Seconds since `begin` for which no look blocked the run."""
        return self._clock() - self._began - self.blocked

    @property
    def overhead(self) -> float:
        """Share of the time since `begin` that looks took, in [0, 1]."""
        elapsed = self._clock() - self._began
        return self.blocked / elapsed if elapsed > 0 else 0.0

    def allows_another(self) -> bool:
        """Whether a look as long as the last one would keep the overhead so far within the limit."""
        elapsed = self._clock() - self._began
        return self.limit == 0 or self.blocked + self._last <= self.limit * (elapsed + self._last)
