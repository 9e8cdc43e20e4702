"""When a fall raises an alarm: it is beyond noise wherever one looks for it, and it lasts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from divwatch.analysis.boundary import critical_value
from divwatch.analysis.contrast import contrast, contrast_at_knees
from divwatch.analysis.series_fit import SeriesFit

Floats = NDArray[np.float64]

MIN_PROMPTS = 4  # a series with fewer raises no alarm: its variance is hardly known
MIN_TASK_PROMPTS = 8  # the same for one task of several: with many small ones, one is always far off
LONGEST_DIP = 3  # looks: what recovers within them is no collapse; in short runs a seventh of the looks
DEEPEST_DIP = 4.0  # times min_drop: a fall certainly deeper need not wait until it has lasted
LASTING = 2.6  # normal deviate that the rest of a fall must reach when any `LONGEST_DIP` looks are left out
LEVEL_LOOKS = 3  # a dip is told from a fall only if so many looks, the baseline's included, have shown a level before
LASTING_EARLY = 2.0  # as LASTING, for a fall that begins before such a level was seen
LASTING_ONE_LOOK = 1.2  # the same while the rest may be the first look after the knee alone


def tasks_without_alarm(tasks: Iterable[str]) -> list[str]:
    """The tasks with too few prompts for an alarm of their own, from one task name per prompt; they count in the panel.

    >>> tasks_without_alarm(["a"] * 8 + ["b"] * 7), tasks_without_alarm(["only"] * 4)
    (['b'], [])
    """
    sizes = Counter(tasks)
    return [task for task, size in sizes.items() if size < MIN_TASK_PROMPTS and len(sizes) > 1]


def missing_alarms(tasks: Sequence[str]) -> str | None:
    """One line on which alarms a panel is too small for, from one task name per prompt; None if on none.

    >>> missing_alarms(["a"] * 3)
    'fewer than 4 prompts, so no alarm can be raised'
    >>> missing_alarms(["a"] * 8 + ["b"] * 7)
    'fewer than 8 prompts, so no alarm of their own: b'
    """
    if len(tasks) < MIN_PROMPTS:
        return f"fewer than {MIN_PROMPTS} prompts, so no alarm can be raised"
    small = tasks_without_alarm(tasks)
    return f"fewer than {MIN_TASK_PROMPTS} prompts, so no alarm of their own: {', '.join(small)}" if small else None


def lasting_fall(
    values: Floats, fit: Callable[[], SeriesFit], margin: float, min_drop: float, alpha: float, max_looks: int
) -> bool:
    """Whether the looks so far show a fall by more than `margin` that lasts, but for a chance of `alpha` in the run.

    Every look but the last two is tried as the knee. The mean of the looks after it must lie below that of the looks
    before by more than `margin` and the critical value of the scan. It must also last: whichever three neighbouring
    looks after the knee are left out (fewer in runs of less than 21), the others are still below. While fewer than
    three looks have shown a level, the first look after the knee is never left out, so that the alarm can come at the
    second. A fall certainly deeper than four times `min_drop` need not wait either.

    values: [L, N] of the looks, the baseline first, NaN where missing. fit: of these looks, called only where their
    noise without any wobble leaves the question open.
    """
    looks = len(values)
    if looks < 3:
        return False
    planned = max(max_looks, looks)
    critical = np.full(looks - 2, critical_value(planned, alpha, early=False))
    critical[0] = critical_value(planned, alpha, early=True)
    scan = contrast_at_knees(values)
    knees = np.flatnonzero(scan.highest_z(margin) > critical)
    if not knees.size:
        return False
    z = fit().z(scan.at(knees), margin)
    knees, z = knees[z > critical[knees]], z[z > critical[knees]]
    dip = min(LONGEST_DIP, max(planned // 7, 1))
    return any(_lasts(values, fit(), int(knee), dip, margin, min_drop) for knee in knees[np.argsort(-z)])


def _lasts(values: Floats, fit: SeriesFit, knee: int, longest: int, margin: float, min_drop: float) -> bool:
    looks = len(values)
    rests = _without_a_dip(knee, looks, longest)
    if rests is not None:
        early = LASTING_ONE_LOOK if looks - knee <= longest + 2 else LASTING_EARLY
        level = early if knee + 1 < LEVEL_LOOKS else LASTING
        # The last looks may well be all of the fall: tried first, they spare the other dips.
        if all(_below(values, fit, knee, after, margin, level) for after in (rests[-1:], rests[:-1])):
            return True
    last_two = np.arange(looks)[None] >= looks - 2
    return _below(values, fit, knee, last_two, max(margin, DEEPEST_DIP * min_drop), LASTING)


def _below(values: Floats, fit: SeriesFit, knee: int, after: NDArray[np.bool_], margin: float, level: float) -> bool:
    """Whether all of the means over `after` [D, L] lie below that up to the knee by more than `margin` and `level` deviates."""
    of = contrast(values, after, (np.arange(len(values)) <= knee)[None])
    return bool((of.highest_z(margin) > level).all() and (fit.z(of, margin) > level).all())


def _without_a_dip(knee: int, looks: int, longest: int) -> NDArray[np.bool_] | None:
    """[D, L] the looks after the knee less any 1 to `longest` neighbours; None where such a dip could be all."""
    settled = knee + 1 >= LEVEL_LOOKS
    first = knee + 1 if settled else knee + 2
    if settled and looks - knee - 1 <= longest:
        return None
    look = np.arange(looks)
    start, length = (part.ravel() for part in np.meshgrid(look, np.arange(1, longest + 1)))
    start, end = start[:, None], (start + length)[:, None]
    dips = ((look >= start) & (look < end))[((start >= first) & (end <= looks)).ravel()]
    return (look > knee) & ~dips
