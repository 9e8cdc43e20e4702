"""When a fall began: the knee of a level, a straight fall and a plateau fitted to the series of looks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def onset_index(series: Floats, steps: Floats) -> NDArray[np.intp]:
    """Index of the knee: the last look still at the baseline level.

    Least squares over knees k < e of  a + b * clip((s - s_k) / (s_e - s_k), 0, 1),  b < 0: level, fall, plateau. A fall
    that has not ended has its e at the last look. A step model instead would answer late on ramps, as it puts the break
    in the middle of the fall (facts of change-in-slope fitting: Muggeo 2003).

    series: [..., L] values of the looks, the baseline first; steps: [L], rising. Returns [...] indices into the looks;
    0 where nothing falls. Raises nothing; L must be at least 2.

    >>> int(onset_index(np.array([0.0, 0.0, 0.0, -0.2, -0.4, -0.4, -0.4]), np.arange(7.0)))
    2
    """
    shapes, knees = _shapes(tuple(float(s) for s in steps))
    centred = series - series.mean(axis=-1, keepdims=True)
    gain = centred @ shapes.T
    # gain^2 is the drop in residual sum of squares; only falls count.
    return knees[np.argmax(np.where(gain < 0, -gain, 0.0), axis=-1)]


@lru_cache(maxsize=8)
def _shapes(steps: tuple[float, ...]) -> tuple[Floats, NDArray[np.intp]]:
    """All shapes [P, L], centred and of unit length, and the knee of each."""
    s = np.array(steps)
    pairs = np.array([(k, k + w) for k in range(s.size - 1) for w in _widths(s.size) if k + w < s.size])
    start, end = s[pairs[:, 0], None], s[pairs[:, 1], None]
    shapes = np.clip((s - start) / (end - start), 0, 1)
    shapes -= shapes.mean(axis=1, keepdims=True)
    return shapes / np.linalg.norm(shapes, axis=1, keepdims=True), pairs[:, 0]


def _widths(looks: int) -> list[int]:
    """Lengths of a fall to try: every one up to 16 looks, then each a fifth longer."""
    widths = list(range(1, min(looks, 17)))
    while widths and widths[-1] * 1.2 < looks:
        widths.append(int(np.ceil(widths[-1] * 1.2)))
    return widths
