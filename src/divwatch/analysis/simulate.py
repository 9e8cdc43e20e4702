"""Runs whose truth is known: per-prompt values over looks with a fall that was put there, or with none.

Used by the tests, by `benchmarks/detection.py`, and by whoever wants to know what a panel of their size would see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from divwatch.errors import DivwatchError

Floats = NDArray[np.float64]

KINDS = ("null", "drift", "dip", "step", "ramp", "slide", "recovery")


@dataclass(frozen=True)
class SimulatedRun:
    """steps: [looks]. values: [looks, prompts], NaN if missing. change: [looks] true relative change of the mean.
    onset_step: the last step still at the baseline level, None if nothing falls for good."""

    kind: str
    steps: list[int]
    values: Floats
    change: Floats
    onset_step: int | None

    def first_beyond(self, min_drop: float) -> int | None:
        """Index of the first look whose true loss is larger than `min_drop`, or None."""
        beyond = np.flatnonzero(self.change < -min_drop - 1e-12)
        return int(beyond[0]) if beyond.size else None


def true_change(kind: str, looks: int, onset: int, drop: float, width: int) -> Floats:
    """[looks] relative change of the true mean.

    null: none. drift: a steady loss that reaches `drop` at the last look. dip: `drop` lost at look `onset` + 1 alone.
    step, ramp, slide: from look `onset` on, `drop` is lost over `width` looks, then a plateau. recovery: a ramp whose
    loss is regained over `width` looks after as long a plateau.

    >>> true_change("ramp", 6, onset=1, drop=0.3, width=3).round(2).tolist()
    [0.0, 0.0, -0.1, -0.2, -0.3, -0.3]
    """
    look = np.arange(looks)
    if kind == "null":
        return np.zeros(looks)
    if kind == "drift":
        return -drop * look / max(looks - 1, 1)
    if kind == "dip":
        return np.where(look == onset + 1, -drop, 0.0)
    if kind in ("step", "ramp", "slide"):
        return 0.0 - drop * np.clip((look - onset) / width, 0, 1)
    if kind == "recovery":
        return -drop * (np.clip((look - onset) / width, 0, 1) - np.clip((look - onset - 2 * width) / width, 0, 1))
    raise DivwatchError(f"unknown kind of run {kind!r}: choose from {', '.join(KINDS)}")


_DROP_AND_WIDTH = {
    "null": (0.0, 1),
    "drift": (0.02, 1),
    "dip": (0.2, 1),
    "step": (0.15, 1),
    "ramp": (0.35, 8),
    "slide": (0.2, 16),
    "recovery": (0.35, 4),
}


def simulate(
    kind: str,
    *,
    prompts: int = 64,
    looks: int = 30,
    onset: int | None = None,
    drop: float | None = None,
    width: int | None = None,
    noise: float = 0.04,
    wobble: float = 0.01,
    persistence: float = 0.0,
    heavy_tails: bool = False,
    missing: float = 0.0,
    every: int = 50,
    seed: int = 0,
) -> SimulatedRun:
    """One run: value = level of the prompt * (1 + true change) * (1 + wobble of the look) + noise of the prompt.

    Levels are uniform on 0.05-0.65; `noise` is the sd of each prompt's value at each look (Student's t with 3 degrees
    of freedom scaled to that sd with `heavy_tails`); `wobble` is the sd of what all prompts of a look share, the
    baseline's too, and `persistence` its correlation from look to look; `missing` is the share of values that are NaN.
    `onset` is the last look at the baseline level (default: a third of the run); `drop` and `width` default by kind:
    step 15 %, ramp 35 % over 8 looks, slide 20 % over 16, dip 20 %, drift 2 %.

    >>> run = simulate("ramp", looks=12, onset=3, seed=4)
    >>> run.values.shape, run.onset_step, run.first_beyond(0.05)
    ((12, 64), 150, 5)
    """
    if kind not in KINDS:
        raise DivwatchError(f"unknown kind of run {kind!r}: choose from {', '.join(KINDS)}")
    default_drop, default_width = _DROP_AND_WIDTH[kind]
    drop, width = default_drop if drop is None else drop, default_width if width is None else width
    onset = looks // 3 if onset is None else onset
    rng = np.random.default_rng(seed)
    change = true_change(kind, looks, onset, drop, width)
    level = rng.uniform(0.05, 0.65, prompts)
    shared = 1 + wobble * _autocorrelated(rng.standard_normal(looks), persistence)[:, None]
    own = rng.standard_t(3, (looks, prompts)) / np.sqrt(3) if heavy_tails else rng.standard_normal((looks, prompts))
    values = level * (1 + change[:, None]) * shared + noise * own
    values[rng.random(values.shape) < missing] = np.nan
    falls = kind in ("step", "ramp", "slide", "recovery")
    return SimulatedRun(kind, [every * i for i in range(looks)], values, change, every * onset if falls else None)


def _autocorrelated(draws: Floats, persistence: float) -> Floats:
    """A first-order autoregression of unit variance driven by standard normal draws."""
    values = draws.copy()
    for look in range(1, len(draws)):
        values[look] = persistence * values[look - 1] + np.sqrt(1 - persistence**2) * draws[look]
    return values
