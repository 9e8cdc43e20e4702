"""Samples are scored chunk by chunk; of the file only numbers, flags and one output a prompt are kept."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from divwatch.metrics import paper
from divwatch.metrics.scoring import PLAIN, score_prompts
from divwatch.records import PromptSamples, PromptScores
from divwatch.score_file.rows import Advance, FileSummary, read_rows
from divwatch.score_file.rules import Models, Rules
from divwatch.score_file.samples import to_samples

CHUNK = 128  # prompts scored at a time: enough to fill the encoder's batches, few enough to keep memory flat
ACROSS = 1000  # most prompts that outputs are compared across


@dataclass
class ScoredFile:
    """What is kept of the file: numbers a prompt, flags, and the outputs that are compared across prompts."""

    ids: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    chunks: list[dict[str, np.ndarray]] = field(default_factory=list)
    is_correct: dict[str, list[bool]] = field(default_factory=dict)
    across: list[str] = field(default_factory=list)

    def values(self) -> dict[str, np.ndarray]:
        """Every key over all prompts, NaN if a chunk had none of it."""
        keys = dict.fromkeys(key for chunk in self.chunks for key in chunk)
        sizes = [len(chunk["quality/usable"]) for chunk in self.chunks]
        return {
            key: np.concatenate(
                [chunk.get(key, np.full(n, np.nan)) for chunk, n in zip(self.chunks, sizes, strict=True)]
            )
            for key in keys
        }


def score_rows(path: Path, file: FileSummary, rules: Rules, models: Models, advance: Advance) -> ScoredFile:
    scored = ScoredFile()
    rng = paper.sentence_rng() if rules.paper else None
    chosen = _choose(file.n, rules.seed)
    rows = read_rows(path)
    while chunk := to_samples(list(islice(rows, CHUNK)), rules):
        scores = _score_chunk(chunk, rules, models, rng)
        for position, sample in enumerate(chunk, len(scored.ids)):
            if sample.correct is not None:
                scored.is_correct[sample.id] = sample.correct
            first = next((text for text, fit in zip(sample.outputs, sample.usable, strict=True) if fit), None)
            if first is not None and (chosen is None or position in chosen):
                scored.across.append(first)
        scored.ids += scores.ids
        scored.tasks += scores.tasks
        scored.chunks.append(scores.values)
        advance(len(chunk))
    return scored


def _choose(n: int, seed: int) -> set[int] | None:
    """The prompts that are compared with each other; None: all."""
    return None if n <= ACROSS else set(np.random.default_rng(seed).choice(n, ACROSS, replace=False).tolist())


def _score_chunk(chunk: list[PromptSamples], rules: Rules, models: Models, rng: random.Random | None) -> PromptScores:
    scores = score_prompts(
        chunk,
        rules.metrics,
        models.encoder,
        models.nli,
        rules.seed,
        subsets=PLAIN,
        vocab_size=rules.vocab_size,
        nli_sentences=rules.nli_sentences,
        nli_rng=rng,
        most_unknown=rules.most_unknown,
    )
    values = scores.values
    values.pop("across/sbert", None)  # taken over the whole file instead
    if rules.paper:
        _as_in_the_paper(chunk, values)
        _ast_as_in_the_paper(chunk, rules, values)
    return scores


def _ast_as_in_the_paper(chunk: list[PromptSamples], rules: Rules, values: dict[str, np.ndarray]) -> None:
    metrics = [name for name in rules.metrics if name in ("ast", "ast_distinct")]
    if metrics:
        blocks = [replace(s, outputs=[paper.longest_block(text) for text in s.outputs]) for s in chunk]
        of_blocks = score_prompts(blocks, metrics, None, None, rules.seed, subsets=PLAIN).values
        values.update({key: of_blocks[key] for key in of_blocks if key.rpartition("/")[2] in metrics})


def _as_in_the_paper(chunk: list[PromptSamples], values: dict[str, np.ndarray]) -> None:
    if "diversity/nli" in values:
        values["diversity/nli"] = np.nan_to_num(values["diversity/nli"])  # nothing to compare counts as no diversity
    values["quality/usable"] = np.array([np.mean([bool(text) for text in s.outputs]) for s in chunk])
    for i, sample in enumerate(chunk):
        if sample.correct is not None and sample.answers is not None:
            values["quality/accuracy"][i] = paper.first_is_correct(sample.correct)
            values["quality/majority_at_k"][i] = paper.majority(sample.answers, sample.correct)
