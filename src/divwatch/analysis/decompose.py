"""How much of a change in diversity is quality control and how much is narrowing: an exact split, prompt by prompt.

Pairs of outputs fall into three groups: correct-correct (cc), correct-wrong (cw), wrong-wrong (ww). With w_g the share
of pairs in group g and D_g the mean distance in it, the mean pairwise distance is D = sum_g w_g D_g, and its change is
exactly

    sum_g (w_g1 - w_g0) (D_g0 + D_g1) / 2     quality control: outputs changed group
  + sum_g (w_g0 + w_g1) / 2 (D_g1 - D_g0)     narrowing within each group: genuine (cc), cross (cw), error (ww)

A group that is empty on one side has no D there. It is taken from the other side, times the change of D_g over the
prompts that have the group on both sides; the sum stays exact whatever is put there. Taking it from the other side as it
is (so that the whole effect is quality control) would count pure narrowing as quality control: with 4 outputs a prompt,
half of them correct, a sixth of it. Where fewer than five prompts have the group on both sides it is taken as it is.

All signs: negative = diversity lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divwatch.analysis.history import task_means
from divwatch.analysis.intervals import (
    DRAWS,
    FEWEST,
    Interval,
    bootstrap_means,
    bootstrap_ratio,
    percentile_interval,
    resampled_means,
)
from divwatch.errors import DivwatchError
from divwatch.metrics import embedding
from divwatch.metrics.scoring import PAIR_KEYS
from divwatch.records import PARTS

Floats = NDArray[np.float64]

_CORRECT_PAIRS = 0
_NAMES = ("total", *PARTS)
CHANGES = (-2.0, 2.0)  # the range of a change of a cosine distance, and of each of its parts


@dataclass(frozen=True)
class PairStats:
    """Pairs of outputs of N prompts, by correctness.

    counts:    [N, 3], in the order cc, cw, ww. A prompt with no pair at all, or with NaN, is missing.
    distances: [N, 3], mean distance in the group, NaN if it is empty.
    vendi_all, vendi_correct: [N] or None, Vendi score over all and over the correct outputs (NaN if missing).
    """

    counts: np.ndarray
    distances: np.ndarray
    vendi_all: np.ndarray | None = None
    vendi_correct: np.ndarray | None = None

    @classmethod
    def from_values(cls, values: Mapping[str, Any], rows: Any = slice(None)) -> PairStats:
        """From the `values` of `PromptScores`; `rows` picks prompts."""
        missing = [key for key in PAIR_KEYS if key not in values]
        if missing:
            raise DivwatchError(f"no {missing[0]} in these scores: score with the metric sbert and a verifier")
        table = np.column_stack([np.asarray(values[key], dtype=float)[rows] for key in PAIR_KEYS])
        vendi = [values.get(f"{group}/vendi") for group in ("diversity", "correct_diversity")]
        return cls(
            table[:, :3], table[:, 3:], *(None if v is None else np.asarray(v, dtype=float)[rows] for v in vendi)
        )

    @property
    def weights(self) -> np.ndarray:
        """Share of pairs by group, [N, 3]; NaN for a missing prompt."""
        counts = np.asarray(self.counts, dtype=float)
        total = counts.sum(axis=1, keepdims=True)
        return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)

    @property
    def all(self) -> np.ndarray:
        """D over all outputs, [N]; NaN for a missing prompt."""
        return np.sum(self.weights * np.nan_to_num(np.asarray(self.distances, dtype=float)), axis=1)

    @property
    def correct(self) -> np.ndarray:
        """D over correct outputs, [N]; NaN for a prompt with fewer than two."""
        has = np.nan_to_num(np.asarray(self.counts, dtype=float)[:, _CORRECT_PAIRS]) > 0
        return np.where(has, np.asarray(self.distances, dtype=float)[:, _CORRECT_PAIRS], np.nan)


@dataclass(frozen=True)
class PaperView:
    """The paper's numbers on one choice of prompts: (before, after) means, each with its interval, and the share.

    share: change of D_c / change of D_a, the share of the loss that persists among correct answers. Outside [0, 1]
    where the two move apart; its interval is NaN if the sign of the change of D_a is not sure.
    v_a, v_c: Vendi scores, None if none were given. v_c as in the paper grows with the number of correct outputs.
    """

    d_a: tuple[Interval, Interval]
    d_c: tuple[Interval, Interval]
    v_a: tuple[Interval, Interval] | None
    v_c: tuple[Interval, Interval] | None
    share: Interval


@dataclass(frozen=True)
class Decomposition:
    """The split of the change of the mean pairwise distance, averaged over the prompts that both sides have.

    total = quality_control + genuine_narrowing + cross_narrowing + error_narrowing, exactly. Negative = diversity lost.
    intervals: 95 % bootstrap intervals over prompts, paired, by the names of the five numbers; with the wobble of both
               checkpoints if it was given.
    n_prompts: prompts with at least two outputs on both sides. per_prompt: [N] by name, NaN for the others.
    level:     the distance before, averaged over the same prompts and tasks: a part over it is a share of what there was.
    common:    the paper's numbers over prompts with two correct outputs on both sides.
    own:       the paper's numbers as it takes them: D_a over each side's prompts, D_c over each side's prompts with two
               correct outputs. The two sides then differ in their prompts, which can make a change where there is none.
    """

    total: float
    quality_control: float
    genuine_narrowing: float
    cross_narrowing: float
    error_narrowing: float
    intervals: dict[str, tuple[float, float]]
    n_prompts: int
    per_prompt: dict[str, np.ndarray]
    common: PaperView
    own: PaperView
    level: float


Judged = Sequence[tuple[Any, Any]]


def decompose(
    before: Judged, after: Judged, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0, wobble: float = 0.0
) -> Decomposition:
    """Split the change of mean pairwise distance between two sets of samples of the same prompts.

    before, after: one `(embeddings [K, d] L2-normalised, correct [K] bool)` a prompt, the same prompts in the same
    order; K may differ. Units: cosine distance. wobble: relative sd of what all prompts of a checkpoint share, for the
    intervals (`CollapseStatus.wobble` of a run's looks; two sets of samples cannot show it. 0: prompts alone). Raises
    DivwatchError if the lists or shapes do not match.

    >>> apart, equal, right = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]], [True, True]
    >>> split = decompose([(apart, right)] * 3, [(equal, right)] * 3)
    >>> split.total, split.genuine_narrowing, split.quality_control
    (-1.0, -1.0, 0.0)
    """
    return decompose_pairs(pair_stats(before), pair_stats(after), level=level, draws=draws, seed=seed, wobble=wobble)


def pair_stats(judged: Judged) -> PairStats:
    """The pair statistics, and plain Vendi scores, of `(embeddings, correct)` prompts."""
    counts, distances = np.zeros((len(judged), 3)), np.full((len(judged), 3), np.nan)
    vendi = np.full((len(judged), 2), np.nan)
    for i, (e, flags) in enumerate(judged):
        e, right = np.asarray(e, dtype=np.float64), np.asarray(flags, dtype=bool)
        if e.ndim != 2 or right.shape != e.shape[:1]:
            raise DivwatchError(
                f"prompt {i} has embeddings {e.shape} and correct {right.shape}: give [K, d] and [K] for each prompt"
            )
        gram = embedding.gram(e)
        counts[i], distances[i] = embedding.pair_statistics(gram, right)
        vendi[i] = [embedding.vendi(gram[np.ix_(at, at)]) if at.sum() >= 2 else np.nan for at in (right | True, right)]
    return PairStats(counts, distances, vendi[:, 0], vendi[:, 1])


def decompose_pairs(
    before: PairStats,
    after: PairStats,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
    wobble: float = 0.0,
    strata: Sequence[str] | None = None,
) -> Decomposition:
    """`decompose` from stored pair statistics: the same numbers without the embeddings.

    strata: a task for each prompt; the five numbers are then means over tasks, which weigh equally.
    """
    if len(before.counts) != len(after.counts):
        raise DivwatchError(
            f"before has {len(before.counts)} prompts, after {len(after.counts)}: give the same prompts, in one order"
        )
    tasks = ["all"] * len(before.counts) if strata is None else list(strata)
    terms = _terms(before, after)
    means = task_means(terms, tasks)[None] if tasks else np.full((1, terms.shape[1]), np.nan)
    enough = ((before.weights > 0) & (after.weights > 0)).sum(axis=0) >= FEWEST
    changes = _changes(means, enough)
    values = dict(zip(_NAMES, _put_together(means, changes)[0].tolist(), strict=True))
    resampled = resampled_means(terms, strata=tasks, draws=draws, seed=seed)
    drawn = _put_together(resampled, _changes(resampled, enough))
    if wobble:
        up, down = (task_means(side, tasks) for side in _levels(before, after, changes))
        shared = wobble * np.random.default_rng([seed, draws]).standard_normal((2, draws, 1))
        drawn = drawn + shared[0] * up - shared[1] * down
    there = np.isfinite(terms[:, 0])
    n, groups = int(there.sum()), len({task for task, known in zip(tasks, there, strict=True) if known})
    options = {"level": level, "draws": draws, "seed": seed}
    both = ~np.isnan(before.correct + after.correct)
    return Decomposition(
        **values | {"total": sum(values[name] for name in PARTS)},
        intervals={
            name: percentile_interval(d, n, level, groups, CHANGES) for name, d in zip(_NAMES, drawn.T, strict=True)
        },
        n_prompts=n,
        per_prompt=dict(zip(_NAMES, _put_together(terms, changes).T, strict=True)),
        common=_paper_view(before, after, both, options),
        own=_paper_view(before, after, None, options),
        level=float(task_means(np.where(there, before.all, np.nan)[:, None], tasks)[0]) if tasks else float("nan"),
    )


def _terms(before: PairStats, after: PairStats) -> Floats:
    """[N, 16]: what the split is made of, so that it can be put together again from the means of every resample.

    0: quality control of the groups that both sides have, NaN if a side has no pairs. By group: 1-3 its narrowing; 4-6
    w_0 D_0 / 2 where it is empty after; 7-9 w_1 D_1 / 2 where it is empty before; 10-12 and 13-15 D before and after, times
    weight, where both sides have it: the ratio of their means is the change of D_g.
    """
    (w0, d0), (w1, d1) = _known(before), _known(after)
    both = (w0 > 0) & (w1 > 0)
    weight = np.where(both, (w0 + w1) / 2, 0.0)
    table = np.column_stack(
        [
            np.where(both, (w1 - w0) * (d0 + d1) / 2, 0.0 * (w0 + w1)).sum(axis=1),
            weight * (d1 - d0),
            np.where(w1 > 0, 0.0, w0 * d0 / 2),
            np.where(w0 > 0, 0.0, w1 * d1 / 2),
            weight * d0,
            weight * d1,
        ]
    )
    table[np.isnan(table[:, 0])] = np.nan
    return table


def _known(stats: PairStats) -> tuple[Floats, Floats]:
    """(weights, distances) [N, 3], an empty group having distance 0."""
    return stats.weights, np.where(stats.weights > 0, np.asarray(stats.distances, dtype=float), 0.0)


def _changes(means: Floats, enough: NDArray[np.bool_]) -> Floats:
    """[draws, 3] D_g after / before over the prompts that have the group on both sides; 1 where those are not enough."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = means[:, 13:] / means[:, 10:13]
    return np.where(enough & np.isfinite(ratio) & (ratio > 0), ratio, 1.0)


def _put_together(means: Floats, r: Floats) -> Floats:
    """[draws, 5] total, quality control and the narrowings from means [draws, 16] of `_terms` and changes r [draws, 3]."""
    narrowing = means[:, 1:4] + means[:, 4:7] * (r - 1) + means[:, 7:10] * (1 - 1 / r)
    control = means[:, 0] + (means[:, 7:10] * (1 + 1 / r) - means[:, 4:7] * (1 + r)).sum(axis=1)
    return np.column_stack([control + narrowing.sum(axis=1), control, narrowing])


def _levels(before: PairStats, after: PairStats, changes: Floats) -> tuple[Floats, Floats]:
    """[N, 5] twice: by how much each number grows if all distances after, or before, grow by a share of themselves."""
    (w0, d0), (w1, d1) = _known(before), _known(after)
    d0, d1 = np.where(w0 > 0, d0, d1 / changes), np.where(w1 > 0, d1, d0 * changes)
    sides = []
    for w, d in ((w1, d1), (w0, d0)):
        total, narrowing = (w * d).sum(axis=1), (w0 + w1) / 2 * d
        sides.append(np.column_stack([total, total - narrowing.sum(axis=1), narrowing]))
    return sides[0], sides[1]


def _paper_view(before: PairStats, after: PairStats, rows: np.ndarray | None, options: dict[str, Any]) -> PaperView:
    """Means of D_a, D_c, V_a, V_c before and after over `rows`, or over the prompts that each side has of its own."""
    at: Any = slice(None) if rows is None else rows
    distance = np.column_stack([before.all, after.all, before.correct, after.correct])[at]
    d = bootstrap_means(distance, bounds=[(0.0, 2.0)] * 4, **options)
    vendi = [
        None
        if first is None or second is None
        else bootstrap_means(np.column_stack([first, second])[at], bounds=[(1.0, np.inf)] * 2, **options)
        for first, second in ((before.vendi_all, after.vendi_all), (before.vendi_correct, after.vendi_correct))
    ]
    v_a, v_c = (None if v is None else (v[0], v[1]) for v in vendi)
    share = bootstrap_ratio(distance, [0, 0, -1, 1], [-1, 1, 0, 0], **options)
    return PaperView((d[0], d[1]), (d[2], d[3]), v_a, v_c, share)
