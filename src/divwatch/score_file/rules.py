"""What `divwatch score` was asked for, checked, and the models that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from divwatch.errors import DivwatchError
from divwatch.metrics import nli
from divwatch.metrics.encoder import Encoder, load_encoder
from divwatch.metrics.scoring import PLAIN, Metric, needs_encoder
from divwatch.metrics.unknown import MOST_UNKNOWN
from divwatch.verify.verifier import Verifier

DEFAULT_METRICS = {"default": ("ead", "sbert", "vendi", "distinct_answers"), "paper": ("ead", "sbert", "vendi")}


@dataclass(frozen=True)
class Rules:
    """How a line becomes samples and scores, checked."""

    preset: str
    metrics: tuple[str, ...]
    vocab_size: int
    nli_sentences: int
    verifier: str | None
    verify: Verifier | None
    seed: int

    @property
    def paper(self) -> bool:
        return self.preset == "paper"

    @property
    def most_unknown(self) -> float:
        """Share of unknown tokens from which on embeddings are not used: the paper uses all."""
        return 1.0 if self.paper else MOST_UNKNOWN


def make_rules(
    preset: str,
    metrics: Sequence[str] | None,
    vocab_size: int,
    nli_model: str | None,
    nli_sentences: int,
    verifier: str | None,
    unsafe_code: bool,
    seed: int,
) -> Rules:
    if preset not in DEFAULT_METRICS:
        raise DivwatchError(f"unknown preset {preset!r}: choose from {', '.join(DEFAULT_METRICS)}")
    if vocab_size < 2:
        raise DivwatchError(f"vocabulary size is {vocab_size}: give the number of tokens of a vocabulary, at least 2")
    if nli_sentences < 0:
        raise DivwatchError(f"NLI sentences is {nli_sentences}: give a number of sentences, or 0 for all")
    names = DEFAULT_METRICS[preset] + (("nli",) if nli_model else ()) if metrics is None else tuple(metrics)
    names = tuple(dict.fromkeys(name.strip() for name in names))
    if not names:
        raise DivwatchError("no metric is asked for: name one, or leave the option out")
    for name in names:
        Metric.parse(name, PLAIN)
    verify = None
    if verifier is not None:
        from divwatch.verify import get_verifier

        verify = get_verifier(verifier, unsafe_code=unsafe_code)
    return Rules(preset, names, vocab_size, nli_sentences, verifier, verify, seed)


@dataclass(frozen=True)
class Models:
    encoder: Encoder | None
    nli: nli.PairScorer | None


def load_models(rules: Rules, encoder: str, max_tokens: int | None, nli_model: str | None) -> Models:
    needs_nli = "nli" in rules.metrics
    return Models(
        load_encoder(encoder, max_tokens) if needs_encoder(rules.metrics) else None,
        nli.load_nli(nli_model or nli.DEFAULT_NLI_MODEL) if needs_nli else None,
    )
