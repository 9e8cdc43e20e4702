"""At which steps a run has looks: every so many steps, or as many looks as a budget allows, dense at the start.

Pure functions: training and `divwatch plan` use the same. There is always a look before the first step and one after the last;
the functions below place those in between.
"""

from __future__ import annotations

import math
from bisect import bisect_left

AUTO = "auto"
# Looks of a run under `auto`: the most there can be, which the detector knows before the run; and those without a limit.
MOST = 200
WITHOUT_LIMIT = 22
# Within a budget the first two looks after the start come no later than at these shares of the run, if it has that many steps.
EARLY = (0.02, 0.05)
# This share of the looks between is even over log(1 + share of the run / scale), the rest even over the run. The scale is a
# share of the run, or some of its first steps where those are more.
LOG_SHARE = 0.7
LOG_SCALE, LOG_STEPS = 0.005, 3
# The part of a look by which the last one may be longer than the others without exceeding the budget.
SLACK = 0.1
# Seconds of a look that takes no time, as on a clock that stands still.
INSTANT = 1e-9


def steps_between_looks(every: float, max_steps: int) -> int:
    """Optimizer steps between looks in a run of `max_steps`, at least 1. every: as in `WatchConfig`, not `auto`.

    >>> steps_between_looks(0.05, 200), steps_between_looks(25, 200), steps_between_looks(0.001, 10)
    (10, 25, 1)
    """
    return int(every) if every >= 1 else max(1, round(every * max_steps))


def count_looks(every: float | str, max_steps: int, looks: int | None = None) -> int:
    """The most looks that a run of `max_steps` can have, first and last included. every, looks: as in `WatchConfig`.

    >>> count_looks(2, 4), count_looks(2, 5), count_looks("auto", 5), count_looks("auto", 2000)
    (3, 4, 6, 200)
    """
    if isinstance(every, str):
        return max(2, min(looks or MOST, max_steps + 1))
    return 2 + (max_steps - 1) // steps_between_looks(every, max_steps)


def budget(share: float, training: float) -> float:
    """Seconds that looks may take in a run that trains for `training` seconds, as a `share` of both together.

    >>> round(budget(0.03, 9700), 6)
    300.0
    """
    return training * share / (1 - share)


def overhead(looks: int, max_steps: int, look: float, step: float) -> float:
    """Share of a run's time that `looks` looks take. look, step: seconds of one.

    >>> overhead(15, 970, 2, 1)
    0.03
    """
    return looks * look / (looks * look + max_steps * step)


def looks_within(share: float, training: float, look: float, spent: float, last: float) -> int:
    """How many looks fit between those so far and the last, all looks being at most `share` of the whole run.

    The whole run is `training` seconds without looks, plus all looks. look: seconds of a look. spent: seconds of the looks
    so far. last: seconds of the last one. The result can be 0; it is negative where first and last alone exceed the share.

    >>> looks_within(0.03, training=9700, look=20, spent=20, last=20)
    12
    """
    return math.floor((budget(share, training) - spent - last) / max(look, INSTANT) - SLACK)


def plan_looks(
    every: float | str, max_steps: int, limit: float, look: float, step: float, looks: int | None = None
) -> list[int]:
    """Steps of all looks of a run in which a look takes `look` seconds and a step `step`, first and last included.

    every, looks: as in `WatchConfig`; limit: its max_overhead.

    >>> plan_looks("auto", 1000, 0.03, look=2, step=0.5)
    [0, 13, 50, 151, 348, 640, 1000]
    >>> plan_looks(100, 1000, 0.03, look=2, step=0.5)
    [0, 300, 400, 600, 700, 800, 1000]
    """
    if isinstance(every, str):
        if not limit:
            between = count_looks(every, max_steps, looks or WITHOUT_LIMIT) - 2
            return [0, *spread(between, max_steps, early=len(EARLY)), max_steps]
        between = min(count_looks(every, max_steps, looks) - 2, looks_within(limit, max_steps * step, look, look, look))
        return [0, *spread(between, max_steps), max_steps]
    steps = [0]
    distance = steps_between_looks(every, max_steps)
    for due in range(distance, max_steps, distance):
        blocked = len(steps) * look
        if not limit or blocked + look <= limit * (due * step + blocked + look):
            steps.append(due)
    return [*steps, max_steps]


def spread(looks: int, max_steps: int, after: int = 0, early: int = 0) -> list[int]:
    """Steps of `looks` looks after step `after` and before `max_steps`; fewer where there are fewer steps.

    They lie at equal distances in `_position`. Each place depends only on the one before and on how many are left, so that
    a plan made again after any of its looks is the same. early: looks that were taken after step 0, or as many as EARLY has
    where looks may come later than it says.

    >>> spread(8, 1000)
    [7, 22, 53, 112, 211, 354, 539, 757]
    >>> spread(5, 1000, after=53, early=3) == spread(8, 1000)[3:]
    True
    """
    steps, step = [], after
    for left in range(min(looks, max_steps - 1 - after), 0, -1):
        start = _position(step, max_steps)
        target = start + (1 - start) / (left + 1)
        place = bisect_left(range(max_steps), target, key=lambda at: _position(at, max_steps))
        latest = _latest(
            early if left > 1 else max(early, 1), max_steps
        )  # a single one has most to see at the later place
        if step < latest < place:
            place = latest
        step = min(max(step + 1, place), max_steps - left)
        steps.append(step)
        early += 1
    return steps


def _latest(early: int, max_steps: int) -> int:
    """The last step at which the first (early 0) or second (1) look after the start may come; 0: at any step."""
    steps = [int(share * max_steps) for share in EARLY]
    if early >= len(EARLY) or steps[-1] == 0:
        return 0
    return max(early + 1, steps[early]) if steps[-1] > early else 0


def _position(step: int, max_steps: int) -> float:
    """How much of the looks should lie before `step`: from 0 to 1, steep at the start, then even."""
    share, scale = step / max_steps, max(LOG_SCALE, LOG_STEPS / max_steps)
    return (1 - LOG_SHARE) * share + LOG_SHARE * math.log1p(share / scale) / math.log1p(1 / scale)
