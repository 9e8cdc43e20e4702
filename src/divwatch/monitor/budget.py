"""`watch_every: auto` in a running training: as many looks as fit into a share of the whole run, planned from measured times.

The first look comes before any step time is known. A few steps later rank 0 plans all looks, and again after each look, from
what steps and looks have taken so far. The plan lies in the run directory, where a resumed run finds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from statistics import mean
from typing import Any, NamedTuple

from divwatch.config import WatchConfig
from divwatch.monitor.pace import Pace
from divwatch.outputs.terminal import say, schedule_line, too_expensive_line
from divwatch.schedule import EARLY, WITHOUT_LIMIT, budget, count_looks, looks_within, spread
from divwatch.store.run_directory import RunDirectory

# The most steps before looks are planned: the first one, which warms up, and two to measure.
MEASURED = 3
# The next look will take as long as the last ones, this many at most, without the first, which warms up.
RECENT = 8


class Mark(NamedTuple):
    """The clock after `step`: seconds trained and blocked so far; look: what a look at this step took, if there was one."""

    step: int
    training: float
    blocked: float
    look: float | None = None


class BudgetTimetable:
    """Plans the looks of one run so that they take `max_overhead` of its time, all looks counted. See `EvenTimetable`.

    The time of the run is what it trains and what looks block, from `open` to `close`.
    """

    def __init__(self, config: WatchConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.pace = Pace(config.max_overhead, clock)
        self._steps: set[int] = set()  # with a look so far
        self._planned: list[int] = []
        self._marks: list[Mark] = []
        self._score = self._full = 0.0  # seconds to score a look, and of a look at full length
        self._announced: int | None = None  # number of looks when they were last logged
        self._first_plan: int | None = None  # number of looks, for the detector: it must not change from look to look

    def open(self, store: RunDirectory, step: int, max_steps: int, steps: Collection[int]) -> bool:
        self._store, self._max_steps, self._steps = store, max_steps, set(steps)
        self._first_step = step + 1
        stored = store.schedule() if steps else None
        self._resumed = stored is not None and self._restore(stored, step)
        if not self._resumed:
            self.pace.begin()
            # A run that was watched at fixed steps so far has looks, whose time is known, and no plan.
            before = [look["seconds"].get("total") for look in store.looks()]
            self._marks = [Mark(step, 0.0, 0.0, before[-1] if before else None)]
        return not steps

    def _restore(self, stored: dict[str, Any], step: int) -> bool:
        """The plan and the clock as they were at `step`; False if `stored` does not hold them."""
        try:
            marks = [Mark(*mark) for mark in stored["marks"]]
            self._marks = [mark for mark in marks if mark.step <= step]
            last, seconds = self._marks[-1], seconds_per_step(marks) or 0.0
            self._score, self._full = float(stored["score_seconds"]), float(stored["full_seconds"])
            self.pace.begin(last.training + seconds * (step - last.step), last.blocked)
            if stored["max_steps"] == self._max_steps:
                self._first_plan = stored["planned"]
                self._planned = [s for s in stored["steps"] if step < s < self._max_steps]
        except (KeyError, IndexError, TypeError, ValueError):
            say(f"divwatch: {self._store.path / 'schedule.json'} cannot be read: looks are planned anew")
            return False
        return True

    def next_meeting(self, step: int) -> int:
        resumed, self._resumed = self._resumed, False
        if resumed and self._planned:  # the plan is kept until its next look
            self._announce(step)
            return self._planned[0]
        more = self._room(step)
        if more is None:
            return min(step + max(1, min(MEASURED, int(EARLY[0] * self._max_steps))), self._max_steps)
        self._plan(more, after=step)
        if self._planned:
            return self._planned[0]
        # Nothing fits: asked again where a single look would lie, because steps may take longer than they did.
        later = spread(1, self._max_steps, step, self._early) if self._most > 0 else []
        return later[0] if later else self._max_steps

    def after_step(self, step: int) -> None:
        if step == self._first_step:  # it warms up: steps are measured from its end on
            self._mark(step)

    def allows(self, step: int, behind: bool) -> bool:
        self._mark(step)
        more = self._room(step) or 0
        if step not in self._planned:
            self._planned = spread(more, self._max_steps, step - 1, self._early)
        return step in self._planned and more > 0 and not behind

    def spent(self, step: int, seconds: float, full: bool = False) -> None:
        self.pace.spent(seconds, recurring=not full)
        if full:
            self._full = seconds
            self._mark(step)
        else:
            self._steps.add(step)
            self._mark(step, seconds)

    def waited(self, seconds: float) -> None:
        self.pace.waited(seconds)
        last = self._marks[-1]
        self._marks[-1] = last._replace(blocked=self.pace.blocked, look=last.look and last.look + seconds)

    def scored(self, seconds: float) -> None:
        self._score = seconds

    def close(self, step: int) -> None:
        self._mark(step)
        self._store_plan()

    # what fits

    @property
    def _early(self) -> int:
        """As `spread` takes it."""
        return sum(step > 0 for step in self._steps) if self.pace.limit else len(EARLY)

    @property
    def _most(self) -> int:
        """Looks that may still come before the last, whatever they cost."""
        looks = self.config.looks or (None if self.pace.limit else WITHOUT_LIMIT)
        return count_looks(self.config.every, self._max_steps, looks) - len(self._steps) - 1

    @property
    def _look(self) -> tuple[float, float]:
        """Seconds of the next look, and of the last one with what belongs to it."""
        looks = [mark.look for mark in self._marks if mark.look is not None] or [0.0]
        recent = (looks[1:] or looks)[-RECENT:]
        return mean(recent), max(recent) + self._score + (self._full if self.config.full_tokens else 0.0)

    def _trained(self, step: int) -> float | None:
        """Seconds that the whole run will have trained; None if no step was measured."""
        seconds = seconds_per_step(self._marks)
        return None if seconds is None else self.pace.training + seconds * (self._max_steps - step)

    def _room(self, step: int) -> int | None:
        """How many looks may come before the last; None if that is not known yet."""
        if self.pace.limit == 0:
            return self._most
        training = self._trained(step)
        if training is None:
            return None
        look, last = self._look
        return min(self._most, looks_within(self.pace.limit, training, look, self.pace.blocked, last))

    # the plan

    def _plan(self, looks: int, after: int) -> None:
        self._planned = spread(looks, self._max_steps, after, self._early)
        self._first_plan = self._first_plan or len(self._all_steps)
        self._announce(after)
        self._store_plan()

    def _announce(self, step: int) -> None:
        """Logs the plan, the first time and when the number of looks has changed by more than a fifth."""
        looks = len(self._steps) + len(self._planned) + 1
        if self._announced is not None and abs(looks - self._announced) <= max(1, self._announced // 5):
            return
        self._announced = looks
        look, last = self._look
        training = self._trained(step)
        share = None
        if training is not None:
            blocked = self.pace.blocked + look * len(self._planned) + last
            share = blocked / (training + blocked)
        say(schedule_line(self._all_steps, share, look, seconds_per_step(self._marks)))
        missing = min(len(EARLY), self._max_steps - 1) - self._early
        if self.pace.limit and training is not None and len(self._planned) < min(missing, self._most):
            fits = budget(self.pace.limit, training) / (2 + len(EARLY))
            line = too_expensive_line(self.pace.limit, look, fits, self.config.prompts)
            say(self.config.as_written(line))

    @property
    def _all_steps(self) -> list[int]:
        return sorted({*self._steps, *self._planned, self._max_steps})

    def _mark(self, step: int, look: float | None = None) -> None:
        if self._marks and self._marks[-1].step == step:
            before = self._marks.pop()
            look = before.look if look is None else look
        self._marks.append(Mark(step, self.pace.training, self.pace.blocked, look))

    def _store_plan(self) -> None:
        plan = {
            "max_steps": self._max_steps,
            "steps": self._all_steps,
            "planned": self._first_plan,
            "overhead": self.pace.overhead,
            "score_seconds": self._score,
            "full_seconds": self._full,
            "marks": self._marks,
        }
        try:
            self._store.write_schedule(plan)
        except OSError as error:
            say(f"divwatch: the schedule could not be stored ({error.strerror}): check {self._store.path}")


def seconds_per_step(marks: list[Mark]) -> float | None:
    """Seconds of a training step from now on: the mean over the later half of the steps so far or, where that is less, over
    the last eighth, because steps that become shorter must not leave the looks too long a share. The first step counts
    only where no other follows. None without a step.

    >>> seconds_per_step([Mark(0, 0, 0), Mark(1, 9, 0), Mark(3, 11, 0)])
    1.0
    """
    now = marks[-1]
    before = [mark for mark in marks if mark.step < now.step]
    before = before[1:] or before
    if not before:
        return None
    starts = [([m for m in before if m.step <= share * now.step] or before[:1])[-1] for share in (1 / 2, 7 / 8)]
    return min((now.training - start.training) / (now.step - start.step) for start in starts)
