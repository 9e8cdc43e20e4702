"""Runs whose completions are really drawn: K answers per prompt and look from a policy whose true diversity is known.

A prompt has a policy over answer styles at fixed positions, and an accuracy that does not depend on the style. Two
answers are as far apart as their styles, plus a little if only one of them is correct. A checkpoint raises the policy
to a power, so that its expected distance is the wanted multiple of the first checkpoint's. `benchmarks/detection.py`
runs the detector on the distances of the answers that were drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from divwatch.analysis.history import History

Floats = NDArray[np.float64]

STYLES, POOL = 16, 1500
POWERS = np.geomspace(1 / 12, 24, 160)


@dataclass(frozen=True)
class World:
    """What a run is like. fall: [looks] true relative change of the distance, per task or for all ([looks] or
    [looks, tasks]). only_correct: the fall concerns correct answers alone. accuracy_shift: change of logit accuracy
    over the run. measure: distance, gini or distinct."""

    tasks: int = 1
    prompts: int = 64
    samples: int = 16
    looks: int = 21
    wobble: float | tuple[float, float] = 0.01
    rho: float = 0.5
    by_task: bool = False
    coupled: bool = False
    fall: tuple[float, ...] | None = None
    fallen_tasks: int | None = None
    only_correct: bool = False
    accuracy_shift: float = 0.0
    accuracy_wobble: float = 0.0
    wave: float = 0.0
    measure: str = "distance"
    accuracy: bool = True
    extra: dict = field(default_factory=dict)


@lru_cache(maxsize=1)
def pool() -> tuple[Floats, Floats, Floats]:
    """logits [POOL, STYLES], distances [POOL, STYLES, STYLES], log ratio of the expected distance at each power to
    that at power 1 [POOL, POWERS]."""
    rng = np.random.default_rng(7)
    logits = rng.gamma(2.0, 1.4, POOL)[:, None] * rng.standard_normal((POOL, STYLES))
    points = rng.standard_normal((POOL, STYLES, 3))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    distances = 0.45 * (1 - points @ points.transpose(0, 2, 1))
    distances[:, np.arange(STYLES), np.arange(STYLES)] = 0.0
    levels = np.stack([expected(softmax(power * logits), distances) for power in POWERS], axis=1)
    at_one = expected(softmax(logits), distances)
    return logits, distances, np.log(np.maximum(levels, 1e-9) / at_one[:, None])


def softmax(logits: Floats) -> Floats:
    z = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)


def expected(p: Floats, distances: Floats) -> Floats:
    return np.einsum("...a,...ab,...b->...", p, distances, p)


def ar1(rng: np.random.Generator, looks: int, rho: float, width: int) -> Floats:
    draws = rng.standard_normal((looks, width))
    for look in range(1, looks):
        draws[look] = rho * draws[look - 1] + np.sqrt(1 - rho**2) * draws[look]
    return draws


def draw(world: World, seed: int) -> tuple[History, Floats]:
    """The history of one run, and the true relative change [looks, tasks] of the distance (of correct answers)."""
    rng = np.random.default_rng([seed, 11])
    logits, distances, ratio = pool()
    pick = rng.choice(POOL, world.prompts, replace=False)
    logits, distances, ratio = logits[pick], distances[pick], ratio[pick]
    task = np.arange(world.prompts) % world.tasks
    change, factor = _levels(world, rng)
    accuracy = 1 / (1 + np.exp(-rng.normal(0.4, 1.2, world.prompts)))
    drift = (
        np.linspace(0, world.accuracy_shift, world.looks) + world.accuracy_wobble * ar1(rng, world.looks, 0.7, 1)[:, 0]
    )
    odds = np.log(accuracy / (1 - accuracy)) + drift[:, None]
    shape = (world.looks, world.prompts, world.samples)
    shared = (1, *shape[1:]) if world.coupled else shape  # random numbers that every look shares
    right = rng.random(shared) < 1 / (1 + np.exp(-odds))[:, :, None]
    pick_style = race if world.coupled else inverse
    numbers = rng.gumbel(size=(*shared, STYLES)) if world.coupled else rng.random(shape)
    wanted = np.log(factor)[:, task]
    styles = pick_style(policy(logits, ratio, wanted), numbers)
    if world.only_correct:  # wrong answers stay as they were
        unchanged = policy(logits, ratio, wanted - np.log(1 + change)[:, task])
        styles = np.where(right, styles, pick_style(unchanged, numbers))
    return history(world, styles, np.broadcast_to(right, shape), distances, task), change


def race(p: Floats, gumbel: Floats) -> NDArray[np.intp]:
    """Styles [looks, N, K] for policies [looks, N, STYLES], by Gumbel-max: alike policies mostly agree."""
    return (np.log(p)[:, :, None] + gumbel).argmax(axis=-1)


def inverse(p: Floats, uniform: Floats) -> NDArray[np.intp]:
    """The same from one uniform number a completion."""
    return (uniform[..., None] > p.cumsum(axis=-1)[:, :, None, :-1]).sum(axis=-1)


def _levels(world: World, rng: np.random.Generator) -> tuple[Floats, Floats]:
    size = world.wobble if isinstance(world.wobble, tuple) else (world.wobble, world.wobble)
    sd = np.geomspace(max(size[0], 1e-9), max(size[1], 1e-9), world.looks)[:, None]
    wobble = sd * ar1(rng, world.looks, world.rho, world.tasks if world.by_task else 1)
    look = np.arange(world.looks)[:, None]
    if world.wave:
        wobble = wobble + world.wave * np.sin(2 * np.pi * look / rng.uniform(8, 14) + rng.uniform(0, 2 * np.pi))
    change = np.zeros((world.looks, world.tasks))
    if world.fall is not None:
        fallen = world.tasks if world.fallen_tasks is None else world.fallen_tasks
        change[:, :fallen] = np.array(world.fall)[:, None]
    return change, np.broadcast_to((1 + change) * (1 + wobble), change.shape)


def policy(logits: Floats, ratio: Floats, wanted: Floats) -> Floats:
    """The policies [looks, N, STYLES] whose expected distance is exp(wanted [looks, N]) times that at power 1."""
    # The ratio falls with the power: count the powers at which it is still above.
    at = (ratio > wanted[..., None]).sum(axis=-1).clip(1, len(POWERS) - 1)
    rows = np.arange(len(logits))
    lo, hi = ratio[rows, at - 1], ratio[rows, at]
    share = np.clip((lo - wanted) / np.maximum(lo - hi, 1e-12), 0, 1)
    power = np.exp((1 - share) * np.log(POWERS[at - 1]) + share * np.log(POWERS[at]))
    return np.maximum(softmax(power[..., None] * logits), 1e-300)


def history(
    world: World, styles: NDArray[np.intp], right: NDArray[np.bool_], distances: Floats, task: NDArray[np.intp]
) -> History:
    if world.measure == "gini":
        distances = np.broadcast_to(1.0 - np.eye(STYLES), distances.shape)
    every, correct = style_counts(styles, np.ones_like(right)), style_counts(styles, right)
    values = {"diversity/sbert": value(world, every, distances)}
    if world.accuracy:
        values["correct_diversity/sbert"] = value(world, correct, distances)
        values["quality/accuracy"] = right.mean(axis=-1).astype(float)
    order = np.argsort(task, kind="stable")
    return History(
        [50 * i for i in range(world.looks)],
        [f"p{i}" for i in range(world.prompts)],
        [f"t{t:02d}" for t in task[order]],
        {key: table[:, order] for key, table in values.items()},
        [True] * world.looks,
    )


def style_counts(styles: NDArray[np.intp], counted: NDArray[np.bool_]) -> Floats:
    """[looks, prompts, STYLES] how many of the answers counted have each style."""
    cells = np.arange(styles.shape[0] * styles.shape[1]).reshape(*styles.shape[:2], 1) * STYLES + styles
    counts = np.bincount(cells[counted], minlength=styles.shape[0] * styles.shape[1] * STYLES)
    return counts.reshape(*styles.shape[:2], STYLES).astype(float)


def value(world: World, counts: Floats, distances: Floats) -> Floats:
    """[looks, prompts] from counts of styles: the mean pairwise distance of the answers, or how many distinct styles."""
    k = counts.sum(axis=-1)
    if world.measure == "distinct":
        return np.where(k >= 2, (counts > 0).sum(axis=-1), np.nan)
    by_prompt = counts.transpose(1, 0, 2)
    pairs = ((by_prompt @ distances) * by_prompt).sum(axis=-1).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(k >= 2, pairs / (k * (k - 1)), np.nan)
