"""What the looks of a run will see: the share of falls that the detector flags in time, by simulation before the run.

Falls are put into simulated series of the planned panel, and the real detector judges them look by look. The noise of a
prompt's value has the moments of runs whose completions are really drawn (`benchmarks/drawn_runs.py`; docs/cost.md compares
both). Common random numbers are counted on for short answers alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divwatch.analysis.alarm import MIN_TASK_PROMPTS
from divwatch.analysis.detector import CollapseDetector
from divwatch.analysis.series_fit import PRIOR_WOBBLE
from divwatch.analysis.simulate import simulate

Floats = NDArray[np.float64]

FALLS, WITHIN = (0.05, 0.1, 0.2), (2, 4)
RUNS, RUNS_MIDDLE = 600, 100
# The relative variance of a prompt's mean pairwise distance is SINGLE / K + PAIRS / (K (K - 1)), in units of the panel's
# squared mean, and 1 + RISE d times as large after a fall by d. TAILS: degrees of freedom of its t distribution. SKEW: shape
# of the gamma distribution of what common random numbers leave, since few completions change and most of them narrow.
SINGLE, PAIRS, RISE = 0.56, 1.2, 2.3
TAILS, SKEW = 8, 6
# Common random numbers leave min(1, APART d) of it after a change by d, as the embedded model's Think SFT did at a fall by
# 10.7 %, of answers of at most SHORT tokens; of longer ones they are taken to leave all (docs/detection.md).
APART, SHORT = 5.0, 64
PERSISTENCE = 0.5  # correlation of the wobble between neighbouring looks
QUIET = 8  # at most so many looks are simulated before a fall in the middle
MEAN_LEVEL = 0.35  # of `simulate`


def relative_noise(samples: int) -> float:
    """Relative variance of a prompt's value that comes from its completions."""
    return SINGLE / samples + PAIRS / (samples * (samples - 1))


class Left(NamedTuple):
    """The share of the noise of a change that common random numbers leave: after the fall, and between looks of one level."""

    fall: float = 1.0
    wobble: float = 1.0


INDEPENDENT = Left()


@dataclass(frozen=True)
class Sees:
    """Of falls by `fall` (relative, at once), the share that is flagged in `all` at most `within_looks` looks after the
    first that has it.

    share: of falls right after the first look, with the run's random numbers. independent: the same with independent
    completions at each look. middle: of falls in the middle of the run, with independent ones.
    """

    fall: float
    within_looks: int
    share: float
    independent: float
    middle: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Watch:
    """A panel and its alarm. tasks: prompts are spread evenly over them. most_looks: as the detector is told at the
    start. coupled: whether looks share their random numbers. tokens: mean tokens of an answer."""

    prompts: int
    samples: int
    tasks: int = 1
    most_looks: int = 21
    coupled: bool = True
    alpha: float = 0.05
    min_drop: float = 0.05
    tokens: float = 256

    @property
    def counts_on_common_numbers(self) -> bool:
        """Whether looks share their random numbers, and answers are short enough for it to matter."""
        return self.coupled and self.tokens <= SHORT

    def left(self, fall: float) -> Left:
        """
        >>> Watch(64, 16, tokens=20).left(0.1), Watch(64, 16, tokens=400).left(0.1)
        (Left(fall=0.5, wobble=0.05), Left(fall=1.0, wobble=1.0))
        """
        if not self.counts_on_common_numbers:
            return INDEPENDENT
        return Left(min(1.0, APART * max(fall, PRIOR_WOBBLE)), APART * PRIOR_WOBBLE)

    @property
    def alpha_of_all(self) -> float:
        """The share of `alpha` of diversity over all outputs, as in `Assessor`; correct answers take as much."""
        split = self.tasks > 1 and self.prompts >= self.tasks * MIN_TASK_PROMPTS
        return self.alpha / (4 if split else 2)


def what_looks_see(
    watch: Watch, looks: int, falls: Sequence[float] = FALLS, within: Sequence[int] = WITHIN
) -> list[Sees]:
    """Shares of falls flagged in a run with so many looks, first and last included.

    >>> [sees] = what_looks_see(Watch(prompts=120, samples=16), looks=14, falls=[0.2], within=[2])
    >>> sees.share, sees.independent, sees.middle < 0.1
    (1.0, 1.0, True)
    """
    last = max(within) + 1
    quiet = min(max(looks // 2, 1), QUIET)
    at_start, in_middle = min(looks, 1 + last), quiet + min(looks - max(looks // 2, 1), last)
    panel = replace(watch, coupled=False, tokens=0)  # all that `delays` depends on
    seen = []
    for fall in falls:
        alone = delays(panel, at_start, 1, fall)
        start = delays(panel, at_start, 1, fall, watch.left(fall))
        late = delays(panel, in_middle, quiet, fall, runs=RUNS_MIDDLE)
        seen += [Sees(fall, w, *(float((d <= w).mean()) for d in (start, alone, late))) for w in within]
    return seen


@lru_cache(maxsize=64)
def delays(watch: Watch, looks: int, quiet: int, fall: float, left: Left = INDEPENDENT, runs: int = RUNS) -> Floats:
    """[runs] looks from the first with the fall to the alarm; inf where none came, or one came before the fall.

    quiet: looks before the fall, of `looks` in all. left: what common random numbers leave; the watch's own do not matter.
    """
    found = np.full(runs, np.inf)
    for run in range(runs):
        detector = CollapseDetector(watch.most_looks, watch.alpha_of_all, watch.min_drop)
        alarm = detector.replay(range(looks), _values(watch, looks, quiet - 1, fall, left, run)).alarm_step
        if alarm is not None and alarm >= quiet:
            found[run] = alarm - quiet
    return found


def _values(watch: Watch, looks: int, last_quiet: int, fall: float, left: Left, seed: int) -> Floats:
    """[looks, prompts] of one run with a fall by `fall` after look `last_quiet`."""
    truth = simulate(
        "step", prompts=watch.prompts, looks=looks, onset=last_quiet, drop=fall, width=1, noise=0.0,
        wobble=PRIOR_WOBBLE, persistence=PERSISTENCE, seed=seed,
    )  # fmt: skip
    fallen = np.arange(looks)[:, None] > last_quiet
    variance = relative_noise(watch.samples) * np.where(fallen, 1 + RISE * fall, 1.0)
    rng = np.random.default_rng([seed, 1])
    own = rng.standard_t(TAILS, (looks, watch.prompts)) * np.sqrt(1 - 2 / TAILS)
    if left.wobble < 1:  # the looks of a level share what their wobble leaves, all looks what the fall leaves
        before = rng.standard_normal(watch.prompts)
        after = (SKEW - rng.gamma(SKEW, size=watch.prompts)) / math.sqrt(SKEW)
        shared = (1 - left.fall) / (1 - left.wobble)
        level = np.where(fallen, shared * before + math.sqrt(1 - shared**2) * after, before)
        own = math.sqrt(1 - left.wobble) * level + math.sqrt(left.wobble) * own
    return truth.values + MEAN_LEVEL * np.sqrt(variance) * own
