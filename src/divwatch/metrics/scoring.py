"""From judged samples to per-prompt values: the same code for a live look and for `divwatch score`.

Depends on its arguments alone: no global state is read or changed, and no random numbers are drawn but from `seed`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np

from divwatch.errors import DivwatchError
from divwatch.metrics import answers, code, embedding, lexical, nli, quality, unknown
from divwatch.records import PromptSamples, PromptScores

LIVE_METRICS = ("ead", "sbert", "vendi", "distinct_answers")
# Metrics of embeddings: of what of an output, and which.
_EMBEDDED = {
    "sbert": ("text", "distance"),
    "vendi": ("text", "vendi"),
    "sbert_windows": ("windows", "distance"),
    "vendi_windows": ("windows", "vendi"),
    "code_sbert": ("code", "distance"),
    "code_vendi": ("code", "vendi"),
}
METRICS = (
    *LIVE_METRICS,
    "answer_entropy",
    "gini_simpson",
    "nli",
    "ast",
    "ast_distinct",
    *(name for name in _EMBEDDED if name not in LIVE_METRICS),
)
GROUPS = ("diversity", "correct_diversity")
PAIR_KEYS = tuple(f"pairs/{group}_{what}" for what in ("count", "distance") for group in ("cc", "cw", "ww"))


class TextEncoder(Protocol):
    """Texts in, L2-normalised rows [n, d] out; `divwatch.metrics.encoder.Encoder` is one.

    It may have `unknown_shares(texts) -> [n]`: which share of each text it cannot read.
    """

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


class Subsets(NamedTuple):
    """How many outputs the metrics that grow with their number are rarefied to; None: all of them, the plain metric."""

    all: int | None
    correct: int | None


PLAIN = Subsets(None, None)


def live_subsets(k: int) -> Subsets:
    """Sizes for K outputs a prompt: half of them, so a prompt may lose some, and 4 correct ones.

    They depend on K alone, so every look and stage of one K is compared at the same size.

    >>> live_subsets(16), live_subsets(4)
    (Subsets(all=8, correct=4), Subsets(all=2, correct=2))
    """
    half = max(2, k // 2)
    return Subsets(half, min(4, half))


@dataclass(frozen=True)
class Metric:
    """One asked-for metric: `name`, or `name@m` for the rarefied one at m in both groups."""

    key: str
    name: str
    sizes: Subsets

    @classmethod
    def parse(cls, text: str, default: Subsets) -> Metric:
        name, at, size = text.partition("@")
        if name not in METRICS:
            raise DivwatchError(f"unknown metric {text!r}: choose from {', '.join(METRICS)}")
        if not at:
            return cls(text, name, default)
        if name not in RAREFIED or not size.isdecimal() or int(size) < 1:
            raise DivwatchError(
                f"metric {text!r} cannot be rarefied: give NAME@M, NAME one of {', '.join(sorted(RAREFIED))}"
            )
        return cls(text, name, Subsets(int(size), int(size)))


# Metrics that depend on the number of outputs, and so are compared at a fixed one.
RAREFIED = frozenset(
    {"ead", "vendi", "vendi_windows", "code_vendi", "distinct_answers", "answer_entropy", "ast_distinct"}
)


def needs_encoder(metrics: Iterable[str]) -> bool:
    """Whether any of these metrics reads embeddings."""
    return any(Metric.parse(name, PLAIN).name in _EMBEDDED for name in metrics)


def score_prompts(
    samples: Sequence[PromptSamples],
    metrics: Sequence[str] = LIVE_METRICS,
    encoder: TextEncoder | None = None,
    nli_model: nli.PairScorer | None = None,
    seed: int = 0,
    *,
    subsets: Subsets | None = None,
    finished: Sequence[Sequence[bool]] | None = None,
    vocab_size: int = lexical.GPT2_VOCABULARY,
    nli_sentences: int = 3,
    nli_rng: random.Random | None = None,
    most_unknown: float = unknown.MOST_UNKNOWN,
) -> PromptScores:
    """Every asked-for metric for every prompt, NaN if it cannot be computed (fewer than two outputs, or than m).

    The metrics of embeddings are NaN too for a prompt whose outputs the encoder cannot read: it takes more than
    `most_unknown` of them, on average, for unknown tokens (`quality/unknown_tokens`).

    Keys: `diversity/<metric>` over usable outputs, `correct_diversity/<metric>` over correct ones (where anything was
    judged), `quality/*`, and `pairs/*` whenever sbert is asked for: all that `decompose_pairs` needs.

    subsets:       sizes for metrics that grow with the number of outputs. None: `live_subsets` of the smallest K,
                   recorded as `subset/diversity` and `subset/correct_diversity`. `PLAIN`: the plain metrics.
    finished:      K flags a prompt, for `quality/finished`.
    nli_sentences: aligned sentences drawn for each pair of outputs, 0 = all. They are drawn for each prompt on its own,
                   unless `nli_rng` is given, which then serves the prompts in turn, as in the paper's code.
    """
    smallest = min((len(s.outputs) for s in samples), default=0)
    sizes = live_subsets(smallest) if subsets is None else subsets
    requested = [Metric.parse(name, sizes) for name in dict.fromkeys(metrics)]
    members = {"diversity": [_usable_members(s) for s in samples]}
    if any(s.correct is not None for s in samples):
        members["correct_diversity"] = [_correct_members(s) for s in samples]
    context = _Context(samples, members, vocab_size, seed)
    values = quality_values(samples, smallest, seed, finished)
    names = {metric.name for metric in requested}
    embedded = sorted(names & _EMBEDDED.keys())
    if embedded:
        reader = _needed(encoder, "an encoder", embedded)
        kinds = {_EMBEDDED[name][0] for name in embedded}
        context.embed(kinds, reader, most_unknown)
        if context.unknown:
            values[unknown.KEY] = context.unknown["text" if "text" in kinds else min(kinds)]
    if "nli" in names:
        context.nli_values = _nli(context, _needed(nli_model, "an NLI model", {"nli"}), nli_sentences, nli_rng, seed)
    for group in members:
        for metric in requested:
            values[f"{group}/{metric.key}"] = _values(context, group, metric)
    if "sbert" in names:
        values |= _pair_values(context)
        values["across/sbert"] = _across_values(context)
    if subsets is None:
        values |= {f"subset/{g}": np.full(len(samples), float(m)) for g, m in zip(GROUPS, sizes, strict=True) if m}
    return PromptScores([s.id for s in samples], [s.task for s in samples], values)


def quality_values(
    samples: Sequence[PromptSamples], k: int, seed: int = 0, finished: Sequence[Sequence[bool]] | None = None
) -> dict[str, np.ndarray]:
    """The `quality/*` keys over all K outputs, an unusable one being wrong; pass@k and majority@k at this k."""
    judged = any(s.correct is not None for s in samples)
    rows: dict[str, list[float]] = {"usable": [quality.accuracy(s.usable) for s in samples]}
    rows["repetition"] = [lexical.repetition(s.outputs) for s in samples]
    if finished is not None:
        rows["finished"] = [quality.accuracy(flags) for flags in finished]
    if judged:
        right = [
            None if s.correct is None else [c and u for c, u in zip(s.correct, s.usable, strict=True)] for s in samples
        ]
        nan = float("nan")
        rows["accuracy"] = [nan if c is None else quality.accuracy(c) for c in right]
        rows["pass_at_k"] = [nan if c is None else quality.pass_at_k(c, k) for c in right]
        rows["majority_at_k"] = [
            nan if c is None or s.answers is None else quality.majority_at_k(s.answers, c, k, seed=seed)
            for s, c in zip(samples, right, strict=True)
        ]
    return {f"quality/{name}": np.array(row, dtype=float) for name, row in rows.items()}


@dataclass
class _Context:
    """What the metrics of one call share. members[group][i]: the outputs of prompt i that the group holds."""

    samples: Sequence[PromptSamples]
    members: Mapping[str, list[list[int]]]
    vocab_size: int
    seed: int
    grams: dict[str, list[np.ndarray]] = field(default_factory=dict)  # by what was embedded: cosines among `diversity`
    centres: np.ndarray | None = None  # [prompts, d], the mean embedding of each prompt's outputs
    unknown: dict[str, np.ndarray] = field(default_factory=dict)  # by what was embedded: [prompts], share not read
    nli_values: dict[str, np.ndarray] | None = None

    def texts(self, group: str) -> list[list[str]]:
        return [[s.outputs[i] for i in at] for s, at in zip(self.samples, self.members[group], strict=True)]

    def answers(self, group: str) -> list[list[Any]]:
        return [
            [] if s.answers is None else [s.answers[i] for i in at]
            for s, at in zip(self.samples, self.members[group], strict=True)
        ]

    def embed(self, what: set[str], encoder: TextEncoder, most_unknown: float) -> None:
        """Embeds every prompt's outputs: their `text`, their text read in `windows`, or the `code` in them.

        A prompt whose outputs cannot be read has no embeddings: an empty Gram matrix, and no centre.
        """
        for kind in sorted(what):
            read = code.extract_code if kind == "code" else str
            texts = [[read(text) for text in outputs] for outputs in self.texts("diversity")]
            # Only an Encoder reads in windows.
            reader: Any = encoder.windows() if kind == "windows" else encoder  # type: ignore[attr-defined]
            every = [text for outputs in texts for text in outputs]
            rows, parts = reader.encode(every), _consecutive([len(outputs) for outputs in texts])
            sets = [rows[part] for part in parts]
            if hasattr(reader, "unknown_shares"):
                shares = reader.unknown_shares(every)
                of_prompt = [float(np.mean(shares[p])) if len(shares[p]) else math.nan for p in parts]
                self.unknown[kind] = np.array(of_prompt)
                sets = [e[:0] if u > most_unknown else e for e, u in zip(sets, of_prompt, strict=True)]
            self.grams[kind] = [embedding.gram(e) for e in sets]
            if kind == "text":
                missing = np.full(rows.shape[1], np.nan)
                self.centres = np.array([np.mean(e, axis=0, dtype=np.float64) if len(e) else missing for e in sets])

    def cosines(self, group: str, kind: str) -> list[np.ndarray]:
        if group == "diversity":
            return self.grams[kind]
        matrices = []
        for gram, everyone, some in zip(self.grams[kind], self.members["diversity"], self.members[group], strict=True):
            at = np.searchsorted(everyone, some)
            matrices.append(gram[np.ix_(at, at)] if len(gram) else gram)
        return matrices


def _consecutive(lengths: Sequence[int]) -> list[slice]:
    """Where each of several lists is when they are joined."""
    ends = accumulate(lengths)
    return [slice(end - length, end) for length, end in zip(lengths, ends, strict=True)]


def _usable_members(sample: PromptSamples) -> list[int]:
    return [i for i, usable in enumerate(sample.usable) if usable]


def _correct_members(sample: PromptSamples) -> list[int]:
    if sample.correct is None:
        return []
    return [i for i, (right, usable) in enumerate(zip(sample.correct, sample.usable, strict=True)) if right and usable]


def _needed(model: Any, what: str, names: Iterable[str]) -> Any:
    if model is None:
        raise DivwatchError(f"{', '.join(sorted(names))} needs {what}: give one")
    return model


def _nli(
    context: _Context, model: nli.PairScorer, sentences: int, rng: random.Random | None, seed: int
) -> dict[str, np.ndarray]:
    """All groups in one call, so a sentence pair is scored once."""
    sets, rngs = [], []
    for group in context.members:
        sets += context.texts(group)
        own = [random.Random(f"{seed}/{group}/{s.id}") for s in context.samples]
        rngs += [rng] * len(own) if rng is not None and group == "diversity" else own
    values = nli.nli_diversity(sets, model, sentences, rngs)
    return dict(zip(context.members, np.split(values, len(context.members)), strict=True))


def _values(context: _Context, group: str, metric: Metric) -> np.ndarray:
    m = metric.sizes.all if group == "diversity" else metric.sizes.correct
    if metric.name in _EMBEDDED:
        what, kind = _EMBEDDED[metric.name]
        return _of_grams(context.cosines(group, what), kind, m, context.seed)
    if metric.name == "nli":
        assert context.nli_values is not None
        return context.nli_values[group]
    read = context.answers if metric.name in ("distinct_answers", "answer_entropy", "gini_simpson") else context.texts
    of_set = _of_set(metric.name, m, context)
    least = [len(at) for at in context.members[group]]
    return np.array(
        [of_set(items) if k >= 2 else float("nan") for items, k in zip(read(group), least, strict=True)], dtype=float
    )


def _of_set(name: str, m: int | None, context: _Context) -> Callable[[Any], float]:
    """The function of one prompt's texts, or answers, that `name` stands for, rarefied to m where it depends on K."""
    plain: dict[str, Callable[[Any], float]] = {
        "ead": lambda texts: lexical.ead(texts, context.vocab_size),
        "ast": code.ast_distance,
        "ast_distinct": code.ast_distinct,
        "distinct_answers": answers.distinct,
        "answer_entropy": answers.entropy,
        "gini_simpson": answers.gini_simpson,
    }
    if m is None or name not in RAREFIED:
        return plain[name]
    size = m
    rarefied: dict[str, Callable[[Any], float]] = {
        "ead": lambda texts: lexical.rarefied_ead(texts, size, context.vocab_size, seed=context.seed),
        "ast_distinct": lambda texts: code.rarefied_ast_distinct(texts, size, seed=context.seed),
        "distinct_answers": lambda canonical: answers.rarefied_distinct(canonical, size),
        "answer_entropy": lambda canonical: answers.rarefied_entropy(canonical, size),
    }
    return rarefied[name]


def _of_grams(grams: Sequence[np.ndarray], kind: str, m: int | None, seed: int) -> np.ndarray:
    """Distance or Vendi score of every Gram matrix, those of one size in one call."""
    values = np.full(len(grams), np.nan)
    sizes = np.array([len(gram) for gram in grams])
    for k in np.unique(sizes[sizes >= 2]):
        at = np.flatnonzero(sizes == k)
        batch = np.stack([grams[int(i)] for i in at])
        if kind == "distance":
            values[at] = embedding.pairwise_distance(batch)
        elif m is None:
            values[at] = embedding.vendi(batch)
        else:
            values[at] = embedding.rarefied_vendi(batch, m, seed=seed)
    return values


def _pair_values(context: _Context) -> dict[str, np.ndarray]:
    """Pairs of usable outputs by correctness; NaN for a prompt that was not judged or has fewer than two of them."""
    table = np.full((len(context.samples), 6), np.nan)
    for row, sample, gram, at in zip(
        table, context.samples, context.grams["text"], context.members["diversity"], strict=True
    ):
        if sample.correct is not None and len(gram) >= 2:
            row[:3], row[3:] = embedding.pair_statistics(gram, [sample.correct[i] for i in at])
    return dict(zip(PAIR_KEYS, table.T, strict=True))


def _across_values(context: _Context) -> np.ndarray:
    """Distance between outputs of different prompts of a task, one value per prompt; the mean over a task is the task's."""
    assert context.centres is not None
    tasks = np.array([s.task for s in context.samples])
    values = np.full(len(tasks), np.nan)
    for task in np.unique(tasks):
        values[tasks == task] = embedding.across_input_values(context.centres[tasks == task])
    return values
