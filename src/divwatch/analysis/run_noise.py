"""How much a run's mean moves when only chance differs: from seed to seed, or from look to look of a single run.

With several seeds it is read off the arms x seeds table of run means, seeds being blocks. Each arm has a variance of its
own, since some mixes train less steadily than others: Grubbs' estimate (1948, JASA 43) from the residuals about arm +
seed, averaged with the arms' common mean square. The mean square has the weight of `SHARED` degrees of freedom, chosen by
simulation (`benchmarks/comparisons.py`): the smallest that keeps false findings at their level for an arm that wobbles
three times as much.

With one seed there is nothing to compare with but the run itself: the wobble of its checkpoints from look to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from divwatch.analysis.detector import CollapseDetector

Floats = NDArray[np.float64]

SHARED = 0.5


@dataclass(frozen=True)
class Wobble:
    """sd: of what all prompts of a checkpoint share, in units of the values. df: degrees of freedom behind it."""

    sd: float
    df: float


@dataclass(frozen=True)
class RunNoise:
    """Of the mean over an arm's runs, in absolute units.

    variance: [arms]. errors, drawn: [draws, arms], errors with that variance, and the variance estimated from each draw.
    """

    variance: Floats
    errors: Floats
    drawn: Floats


def wobble_of_looks(steps: Sequence[int], values: Floats) -> Wobble:
    """From the looks of one run. steps: [L]. values: [L, N], NaN if missing; the last look has values.

    The size is the detector's estimate, its prior included, which counts as two degrees of freedom beside those of the
    looks: few looks give wide intervals.
    """
    last = values[-1][np.isfinite(values[-1])]
    level = abs(float(last.mean())) if last.size else 0.0
    return Wobble(relative_wobble(steps, values) * level, float(max(len(steps) - 2, 0) + 2))


def relative_wobble(steps: Sequence[int], values: Floats) -> float:
    """Estimated sd, relative to the level, of what all prompts of a checkpoint share. As for `wobble_of_looks`."""
    no_alarms = values.shape[1] + 1  # prompts that an alarm would take: falls are not looked for
    return CollapseDetector(max(len(steps), 2), min_prompts=no_alarms).replay(steps, values).wobble


def noise_of_seeds(means: Floats, draws: int, rng: np.random.Generator) -> RunNoise:
    """means: [arms, seeds], at least two of each; arms that are NaN take the others' mean."""
    arms, seeds = means.shape
    there = np.isfinite(means).all(axis=1)
    if there.sum() < 2:
        nothing = np.zeros((draws, arms))
        return RunNoise(nothing[0], nothing, nothing)
    variance = np.full(arms, 0.0)
    variance[there] = _by_arm(means[there])
    variance[~there] = variance[there].mean()
    sampled = np.sqrt(variance)[:, None] * rng.standard_normal((draws, arms, seeds))
    return RunNoise(variance / seeds, sampled.mean(axis=2), _by_arm(sampled) / seeds)


def noise_of_looks(wobbles: Sequence[Wobble], draws: int, rng: np.random.Generator) -> RunNoise:
    """Of single runs, one for each arm."""
    variance, df = np.array([(w.sd**2, w.df) for w in wobbles]).T
    errors = np.sqrt(variance) * rng.standard_normal((draws, len(wobbles)))
    return RunNoise(variance, errors, variance * rng.chisquare(df, (draws, len(wobbles))) / df)


def _by_arm(means: Floats) -> Floats:
    """[..., arms] variance of a run, from [..., arms, seeds] run means."""
    arms, seeds = means.shape[-2:]
    within, across = means.mean(axis=-1, keepdims=True), means.mean(axis=-2, keepdims=True)
    squares = ((means - within - across + means.mean(axis=(-1, -2), keepdims=True)) ** 2).sum(axis=-1) / (seeds - 1)
    total = squares.sum(axis=-1, keepdims=True)
    common = total / (arms - 1)
    if arms == 2:  # their difference is all that counts, and it has one variance
        return np.broadcast_to(common, squares.shape)
    own = np.maximum((squares - total / (arms * (arms - 1))) * arms / (arms - 2), 0.0)
    return (SHARED * common + (seeds - 1) * own) / (SHARED + seeds - 1)
