"""Logical diversity: do the outputs of a prompt entail or contradict each other, sentence by sentence.

The classifier is the cost, so every distinct sentence pair of all prompts is scored once, in batches of similar length.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from divwatch.errors import DivwatchError, one_line
from divwatch.metrics.encoder import (
    BATCH_TOKENS,
    batches_by_tokens,
    from_disk_or_hub,
    loading_aside,
    most_tokens,
)

DEFAULT_NLI_MODEL = "FacebookAI/roberta-large-mnli"
SENTENCES = 3

# Ordered pairs (premise, hypothesis) in, P(entailment) - P(contradiction) for each out.
PairScorer = Callable[[Sequence[tuple[str, str]]], np.ndarray]
_SENTENCE_END = re.compile(r"[.!?]+\s+|\n+")


def split_sentences(text: str) -> list[str]:
    """Sentences as the paper's code cuts them: after . ! ? and whitespace, and at newlines; the mark itself is dropped.

    >>> split_sentences("One. Two?\\nThree.")
    ['One', 'Two', 'Three.']
    """
    cleaned = text.replace("\r", " ").replace("\t", " ")
    sentences = [segment.strip() for segment in _SENTENCE_END.split(cleaned) if segment.strip()]
    return sentences or ([cleaned.strip()] if cleaned.strip() else [])  # a text of marks alone is one sentence


def nli_diversity(
    sets: Sequence[Sequence[str]],
    score: PairScorer,
    sentences: int = SENTENCES,
    rngs: Sequence[random.Random] | None = None,
) -> np.ndarray:
    """NLI diversity of every set of outputs, [sets]: 1 - mean similarity of aligned sentences over pairs of outputs.

    Sentence l of one output is compared with sentence l of the other; the similarity is the mean over both directions
    of P(entailment) - P(contradiction). The mean is over all sentence pairs of the set, so a long pair of outputs
    weighs more.
    sentences: aligned positions drawn for each pair of outputs (0 = all), without replacement, by the set's generator
    in `rngs` (default: `random.Random(0)` for each).
    In [0, 2]; higher is more diverse, above 1 the outputs contradict each other on balance. NaN if no pair of
    outputs has a sentence each. Unbiased in K up to that weighting. Blind where sentences are not aligned: an inserted
    first sentence shifts all others, and reads as neutral (1). Not for code.
    Source: Stasaski and Hearst (2022, NAACL); Karouzos, Tan and Aletras (2026), appendix B; aligned sentences: Kirk et
            al. (2024).
    """
    generators = [random.Random(0) for _ in sets] if rngs is None else rngs
    aligned = [_aligned(outputs, sentences, rng) for outputs, rng in zip(sets, generators, strict=True)]
    number: dict[tuple[str, str], int] = {}
    for pairs in aligned:
        for a, b in pairs:
            number.setdefault((a, b), len(number))
            number.setdefault((b, a), len(number))
    scores = np.asarray(score(list(number)), dtype=np.float64) if number else np.empty(0)
    values = np.full(len(sets), np.nan)
    for i, pairs in enumerate(aligned):
        if pairs:
            forth = scores[[number[pair] for pair in pairs]]
            back = scores[[number[b, a] for a, b in pairs]]
            values[i] = 1.0 - np.mean((forth + back) / 2)
    return values


def _aligned(outputs: Sequence[str], sentences: int, rng: random.Random) -> list[tuple[str, str]]:
    """Aligned sentence pairs over all pairs of outputs, drawn in the order that the paper's code draws them in."""
    cut = [split_sentences(text) for text in outputs]
    pairs = []
    for first, second in combinations(cut, 2):
        both = min(len(first), len(second))
        positions: Sequence[int] = range(both)
        if 0 < sentences < both:
            positions = rng.sample(positions, sentences)
        pairs += [(first[at], second[at]) for at in positions]
    return pairs


class NLIClassifier:
    """A sequence classifier as a `PairScorer`. Made by `load_nli`."""

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._weights = _label_weights(model.config.id2label)
        self._batch_tokens = BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cuda"])

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """P(entailment) - P(contradiction) of each (premise, hypothesis), float64 [pairs], in [-1, 1]."""
        tokens = self.tokenizer(
            [a for a, _ in pairs],
            [b for _, b in pairs],
            truncation=True,
            max_length=self.max_tokens,
            padding=False,
        )
        scores = np.empty(len(pairs))
        for batch in batches_by_tokens(np.array([len(ids) for ids in tokens["input_ids"]]), self._batch_tokens):
            scores[batch] = self._forward({name: [rows[i] for i in batch] for name, rows in tokens.items()})
        return scores

    def _forward(self, features: dict[str, list[list[int]]]) -> np.ndarray:
        import torch

        padded = self.tokenizer.pad(features, return_tensors="pt").to(self.model.device)
        with torch.inference_mode(), torch.autocast(self.model.device.type, enabled=False):
            probabilities = torch.softmax(self.model(**padded).logits.float(), dim=-1)
        return probabilities.cpu().numpy().astype(np.float64) @ self._weights


def load_nli(name_or_dir: str = DEFAULT_NLI_MODEL, device: str = "cpu", max_tokens: int = 512) -> NLIClassifier:
    """An NLI classifier from a hub name or a directory; its labels must name entailment and contradiction.

    Raises DivwatchError if it cannot be loaded, or has other labels. Remote code is never run.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        with loading_aside():
            tokenizer, model = from_disk_or_hub(
                str(name_or_dir),
                lambda local: (
                    AutoTokenizer.from_pretrained(name_or_dir, local_files_only=local),
                    AutoModelForSequenceClassification.from_pretrained(
                        name_or_dir, local_files_only=local, dtype="float32"
                    ),
                ),
            )
    except Exception as error:
        raise DivwatchError(
            f"NLI model {str(name_or_dir)!r} cannot be loaded ({one_line(error, kind=False)}): "
            "give a directory or a hub name that can be reached"
        ) from error
    most = min(max_tokens, most_tokens(model.config))
    return NLIClassifier(model.to(device).eval().requires_grad_(False), tokenizer, most)


def _label_weights(id2label: dict[int, str]) -> np.ndarray:
    """+1 for the entailment label, -1 for contradiction, 0 for others, in the order of the logits."""
    labels = [str(id2label[i]).upper() for i in range(len(id2label))]
    weights = np.array([("ENTAIL" in label) * 1.0 - ("CONTRADICT" in label) for label in labels])
    if weights.min(initial=0) == 0 or weights.max(initial=0) == 0:
        raise DivwatchError(f"the NLI model has labels {', '.join(labels)}: give one with entailment and contradiction")
    return weights
