"""When a fall began: the knee of a level, a straight fall and a plateau fitted to the series of looks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def onset_index(series: Floats, steps: Floats, latest: int | None = None) -> NDArray[np.intp]:
    """Index of the knee: the last look still at the baseline level.

    Least squares over knees k < e of  a + b * clip((s - s_k) / (s_e - s_k), 0, 1),  b < 0: level, fall, plateau. A fall
    that has not ended has its e at the last look. A step model instead would answer late on ramps, as it puts the break
    in the middle of the fall (facts of change-in-slope fitting: Muggeo 2003).

    series: [..., L] values of the looks, the baseline first, L at least 2. steps: [L], rising. latest: the last index
    that can be the knee. Returns [...] indices into the looks; 0 if nothing falls.

    >>> int(onset_index(np.array([0.0, 0.0, 0.0, -0.2, -0.4, -0.4, -0.4]), np.arange(7.0)))
    2
    """
    shapes, knees = _shapes(tuple(float(s) for s in steps), len(steps) - 2 if latest is None else latest)
    centred = series - series.mean(axis=-1, keepdims=True)
    gain = centred.astype(np.float32) @ shapes.T
    # gain^2 is the drop in residual sum of squares; only falls count.
    return knees[np.argmax(np.where(gain < 0, -gain, 0.0), axis=-1)]


@lru_cache(maxsize=8)
def _shapes(steps: tuple[float, ...], latest: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """All shapes [P, L], centred and of unit length, and the knee of each."""
    s = np.array(steps)
    knee, width = (a.ravel() for a in np.meshgrid(np.arange(latest + 1), _widths(s.size), indexing="ij"))
    inside = knee + width < s.size
    knee, end = knee[inside], (knee + width)[inside]
    shapes = (s - s[knee, None]) / (s[end] - s[knee])[:, None]
    np.clip(shapes, 0, 1, out=shapes)
    shapes -= shapes.mean(axis=1, keepdims=True)
    shapes /= np.sqrt(np.einsum("pl,pl->p", shapes, shapes))[:, None]
    return shapes.astype(np.float32), knee  # half the time of float64, and 1e-6 is far below any noise


def _widths(looks: int) -> list[int]:
    """Lengths of a fall to try, in looks: every one up to 8, then each a third longer."""
    widths = list(range(1, min(looks, 9)))
    while widths[-1] * 4 / 3 < looks:
        widths.append(int(np.ceil(widths[-1] * 4 / 3)))
    return widths
