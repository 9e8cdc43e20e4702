"""Pairs of completions by correctness, for the split and the curves: a correct and a wrong cloud of points for each prompt,
with known spreads. (`drawn_runs.py` draws what the detectors read: all answers of a run.) Tests use it too."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from divwatch.analysis.decompose import PairStats
from divwatch.analysis.history import History
from divwatch.records import PromptScores

DIMENSIONS = 8


def accuracies(rng, path, prompts, sd=1.5):
    """[looks, prompts] accuracies whose means follow `path`, and the prompts' easiness (standard normal)."""
    easiness = rng.standard_normal(prompts)

    def shift(mean):
        return brentq(lambda s: (1 / (1 + np.exp(-(s + sd * easiness)))).mean() - mean, -12, 12)

    logits = np.array([shift(mean) for mean in path])[:, None] + sd * easiness
    return 1 / (1 + np.exp(-logits)), easiness


def draw_pairs(rng, accuracy, correct, wrong, between, k) -> PairStats:
    """Pair statistics of k completions a prompt. accuracy, correct, wrong, between: [prompts]; the last three are the
    expected distances of two correct, of two wrong, and of a correct and a wrong output (at least their mean)."""
    n = len(accuracy)
    right = rng.random((n, k)) < accuracy[:, None]
    points = rng.standard_normal((n, k, DIMENSIONS)) / np.sqrt(2 * DIMENSIONS)
    points *= np.sqrt(np.where(right, correct[:, None], wrong[:, None]))[:, :, None]
    points[:, :, 0] += np.where(right, 0.0, np.sqrt(np.maximum(between - (correct + wrong) / 2, 0))[:, None])
    distance = ((points[:, :, None] - points[:, None]) ** 2).sum(axis=3)
    first, second = np.triu_indices(k, 1)
    distance, group = distance[:, first, second], 2 - right[:, first] * 1 - right[:, second] * 1
    counts = np.stack([(group == g).sum(axis=1) for g in range(3)], axis=1).astype(float)
    sums = np.stack([np.where(group == g, distance, 0.0).sum(axis=1) for g in range(3)], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return PairStats(counts, sums / counts)


def moving_accuracy(seed, path, k, prompts=480, tasks=15, correlation=-0.45, change=None) -> History:
    """A run whose accuracy follows `path` while the spread of every prompt's correct answers stays as it is, or changes by
    `change` [looks]. correlation: of the log spread with the prompt's easiness."""
    rng = np.random.default_rng(seed)
    accuracy, easiness = accuracies(rng, path, prompts)
    other = rng.standard_normal(prompts)
    spread = 0.4 * np.exp(0.35 * (correlation * easiness + np.sqrt(1 - correlation**2) * other))
    names = [f"t{i % tasks}" for i in range(prompts)]
    looks = []
    for step, row in enumerate(accuracy):
        now = spread * (1 if change is None else 1 + change[step])
        pairs = draw_pairs(rng, row, now, np.full(prompts, 0.6), np.full(prompts, 0.7), k)
        values = {"correct_diversity/sbert": pairs.correct, "diversity/sbert": pairs.all}
        looks.append((step, PromptScores([str(i) for i in range(prompts)], names, values), True))
    return History.of(looks)
