"""The result of `divwatch score`: means with intervals, values a prompt, quality, settings."""

from __future__ import annotations

from typing import Any

import numpy as np

from divwatch import __version__
from divwatch.analysis.intervals import Interval, bootstrap_mean, bootstrap_means, jackknife
from divwatch.analysis.summary import summarise
from divwatch.files import without_nan
from divwatch.metrics import embedding, lexical, unknown
from divwatch.metrics.ranges import value_range
from divwatch.records import PromptScores
from divwatch.score_file.rows import FileSummary
from divwatch.score_file.rules import Models, Rules
from divwatch.score_file.scoring import ScoredFile

_QUALITY = {"accuracy_at_1": "accuracy", "pass_at_k": "pass_at_k", "majority_at_k": "majority_at_k"}


def make_result(scored: ScoredFile, file: FileSummary, rules: Rules, models: Models) -> dict[str, Any]:
    values = scored.values()
    keys = list(values)
    table = np.column_stack([values[key] for key in keys])
    bounds = [value_range(key, file.k) for key in keys]
    means = dict(zip(keys, bootstrap_means(table, seed=rules.seed, bounds=bounds), strict=True))
    empty = Interval(float("nan"), float("nan"), float("nan"), 0)
    quality = {name: means.get(f"quality/{key}", empty) for name, key in _QUALITY.items()}

    def group(prefix: str) -> dict[str, Any]:
        summaries = {}
        for name in rules.metrics:
            if (key := f"{prefix}/{name}") in values:
                per_prompt = dict(zip(scored.ids, values[key].tolist(), strict=True))
                summaries[name] = _interval(means[key]) | {"per_prompt": per_prompt}
        return summaries

    at_least_two = np.array([sum(flags) >= 2 for flags in scored.is_correct.values()], dtype=bool)
    result: dict[str, Any] = {
        "n": file.n,
        "k": file.k,
        "metrics": group("diversity"),
        "correct": group("correct_diversity") | {"n_prompts": int(at_least_two.sum())},
        "is_correct": scored.is_correct,
        "quality": {name: interval.mean for name, interval in quality.items()},
        "quality_ci95": {name: _interval(interval)["ci95"] for name, interval in quality.items()},
        "outputs": {name: _interval(means[f"quality/{name}"]) for name in ("usable", "repetition")},
        "across": {name: _interval(interval) for name, interval in _across(scored.across, rules, models).items()},
    }
    if file.tasks > 1:
        result["tasks"] = summarise(PromptScores(scored.ids, scored.tasks, values), seed=rules.seed, outputs=file.k)
    result["settings"] = {
        "divwatch": __version__,
        "preset": rules.preset,
        "metrics": list(rules.metrics),
        "vocab_size": rules.vocab_size,
        "nli_sentences": rules.nli_sentences,
        "verifier": rules.verifier,
        "seed": rules.seed,
    }
    if unknown.KEY in values:
        result["outputs"]["unknown_tokens"] = _interval(means[unknown.KEY])
        result["unreadable_prompts"] = unknown.unreadable_prompts(values)
    return without_nan(result)


def _across(texts: list[str], rules: Rules, models: Models) -> dict[str, Interval]:
    """Diversity of one output a prompt, the first usable one: how much outputs depend on the prompt.

    Outputs that the encoder cannot read are left out of the metrics of embeddings.
    """
    intervals: dict[str, Interval] = {}
    if len(texts) < 2:
        return intervals
    if "ead" in rules.metrics:
        intervals["ead"] = jackknife(
            lambda at: lexical.ead([texts[i] for i in at], rules.vocab_size),
            len(texts),
            bounds=value_range("across/ead"),
        )
    if models.encoder is not None and {"sbert", "vendi"} & set(rules.metrics):
        rows = models.encoder.encode(texts)
        rows = rows[models.encoder.unknown_shares(texts) <= rules.most_unknown]
        if len(rows) < 2:
            return intervals
        if "sbert" in rules.metrics:
            intervals["sbert"] = bootstrap_mean(
                embedding.across_input_values(rows), seed=rules.seed, bounds=value_range("across/sbert")
            )
        if "vendi" in rules.metrics:
            intervals["vendi"] = jackknife(
                lambda at: _vendi(rows[at]), len(rows), bounds=value_range("across/vendi", len(rows))
            )
    return intervals


def _vendi(rows: np.ndarray) -> float:
    """Vendi score of many outputs [n, d]: with n above d the matrix of second moments has the same spectrum as cosines."""
    return embedding.vendi_of_spectrum(np.linalg.eigvalsh(rows.T.astype(float) @ rows / len(rows)))


def _interval(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "ci95": [interval.lo, interval.hi], "n": interval.n}
