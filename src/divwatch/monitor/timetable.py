"""Which steps of a running training have a look, decided on rank 0: here, every so many steps; in `budget.py`, `auto`.

All ranks meet at a step that they learned at the meeting before, and exchange nothing in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from divwatch.config import WatchConfig
from divwatch.monitor.pace import Pace
from divwatch.outputs.terminal import say
from divwatch.schedule import steps_between_looks
from divwatch.store.run_directory import RunDirectory


class EvenTimetable:
    """A look every so many steps, unless it would take more than the limit. The clock starts at `open`."""

    def __init__(self, config: WatchConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.pace = Pace(config.max_overhead, clock)
        self._max_steps = 0
        self._skip_reasons: set[str] = set()

    def open(self, store: RunDirectory, step: int, max_steps: int, steps: Collection[int]) -> bool:
        """Begins at `step`; returns whether there is a look now. steps: those with a look on record."""
        self._max_steps = max_steps
        self.pace.begin()
        return step not in steps

    def next_meeting(self, step: int) -> int:
        """The step at which ranks meet after `step`, at most the last one."""
        every = steps_between_looks(float(self.config.every), self._max_steps)
        return min((step // every + 1) * every, self._max_steps)

    def after_step(self, step: int) -> None:
        """Called on rank 0 after a step without a look."""

    def allows(self, step: int, behind: bool) -> bool:
        """At a meeting: whether to look. Logs once for each reason why not. behind: whether scoring is."""
        if behind:
            reason = "the scoring of earlier looks is behind"
        elif not self.pace.allows_another():
            reason = (
                f"looks would take more than {self.pace.limit:.0%} of the run's time (watch_max_overhead; 0: no limit)"
            )
            reason = self.config.as_written(reason)
        else:
            return True
        if reason not in self._skip_reasons:
            self._skip_reasons.add(reason)
            say(f"divwatch: the look at step {step} is skipped, and later ones may be: {reason}")
        return False

    def spent(self, step: int, seconds: float, full: bool = False) -> None:
        """Counts the time of a look. full: it was one at full length."""
        self.pace.spent(seconds, recurring=not full)

    def waited(self, seconds: float) -> None:
        """Counts time that training waited for scores."""
        self.pace.waited(seconds)

    def scored(self, seconds: float) -> None:
        """A look was scored in `seconds`, in the background."""

    def close(self, step: int) -> None:
        """Training ended at `step`."""
