"""Speed and memory of the metrics, beside reference implementations that work as the paper's code does.

    python benchmarks/metrics.py                   about 4 minutes on one core; --small: half a minute; --few: one and a half
    python benchmarks/metrics.py --paper DIR       beside the paper's own code too (a clone at f193bfa)
    python benchmarks/metrics.py --windows         what truncation misses in long outputs, and what windows cost

Each ratio compares two timings taken in turn in one run, and each pair must give equal results. Needs the extra
offline-encoder. After scripts/peers.sh the packages vendi-score and diversity are measured too.
"""

from __future__ import annotations

import importlib.util
import random
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Result, options, peak_mib, publish
from measuring import table as markdown
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from divwatch.metrics import embedding, lexical, nli
from divwatch.metrics.encoder import Encoder, load_encoder

NGRAMS = (1, 2, 3, 4, 5)
NAN = float("nan")


# workloads


def zipf_words(rng: np.random.Generator, n: int, vocabulary: int = 3000) -> str:
    """n Zipf-distributed words, with a full stop after every twelfth."""
    weights = 1.0 / np.arange(1, vocabulary + 1)
    drawn = rng.choice(vocabulary, size=n, p=weights / weights.sum())
    return " ".join(f"w{word}" + "." * (i % 12 == 11) for i, word in enumerate(drawn))


SUBJECTS = (
    "The river,A young doctor,The old machine,My neighbour,The small parliament,A travelling cook,The winter storm"
)
VERBS = "crossed,repaired,remembered,measured,ignored,painted,sold"
OBJECTS = (
    "the northern bridge,a broken clock,three letters,the price of bread,an empty theatre,the last train,her garden"
)
ENDS = "before sunrise,without any plan,for the second time,because of the law,in silence,with great care,as usual"


def sentence(rng: np.random.Generator) -> str:
    """One of 2,401 English sentences."""
    return " ".join(str(rng.choice(part.split(","))) for part in (SUBJECTS, VERBS, OBJECTS, ENDS)) + "."


def answers_with_repeats(rng: np.random.Generator, n: int) -> list[str]:
    """n outputs of 10 to 400 words, a third of them repeats of another one."""
    fresh = []
    for _ in range(n - n // 3):
        length = int(np.clip(rng.lognormal(4.8, 0.8), 10, 400))
        fresh.append(" ".join(sentence(rng) for _ in range(max(1, length // 9))))
    texts = fresh + [fresh[i] for i in rng.integers(0, len(fresh), n // 3)]
    return [texts[i] for i in rng.permutation(n)]


def answers_of_variants(rng: np.random.Generator, k: int, sentences: int) -> list[str]:
    """K answers to one prompt: at each place one of four phrasings, the first in 55 % of the answers."""
    places = [[sentence(rng) for _ in range(4)] for _ in range(sentences)]
    share = [0.55, 0.25, 0.15, 0.05]
    return [" ".join(str(rng.choice(variants, p=share)) for variants in places) for _ in range(k)]


# references: loops over pairs, batches in input order


def reference_ead(sets: Sequence[Sequence[str]], vocab_size: int = 50257) -> list[float]:
    """Tuples of words into a set, order by order."""
    scores = []
    for outputs in sets:
        values = []
        for n in NGRAMS:
            grams: list[tuple[str, ...]] = []
            for text in outputs:
                words = text.replace(".", "").replace("\n", "").split()
                grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
            expected = vocab_size * (1 - ((vocab_size - 1) / vocab_size) ** len(grams))
            values.append(min(1.0, len(set(grams)) / expected) if grams else 0.0)
        scores.append(sum(values) / len(values))
    return scores


def reference_distance_and_vendi(sets: np.ndarray) -> list[tuple[float, float]]:
    """One prompt at a time: the cosine of each pair from a tensor, then the eigenvalues."""
    import torch

    scores = []
    for e in torch.from_numpy(sets):
        similarity = e @ e.T
        pairs = [float(similarity[i, j].item()) for i, j in combinations(range(len(e)), 2)]
        eigenvalues = np.clip(np.linalg.eigvalsh((e @ e.T).numpy() / len(e)), 1e-12, None)
        scores.append((1 - float(np.mean(pairs)), float(np.exp(-np.sum(eigenvalues * np.log(eigenvalues))))))
    return scores


def reference_encode(model: Any, texts: Sequence[str], size: int = 32) -> np.ndarray:
    """Every text, in batches of 32 in input order, each padded to its longest."""
    batches = [texts[i : i + size] for i in range(0, len(texts), size)]
    return np.concatenate([model.encode(batch, batch_size=size, normalize_embeddings=True) for batch in batches])


def reference_nli(
    sets: Sequence[Sequence[str]], classifier: nli.NLIClassifier, rng: random.Random, size: int = 64
) -> list[float]:
    """Prompt by prompt, every aligned pair both ways, in batches in input order, each padded to its longest."""
    import torch

    scores = []
    for outputs in sets:
        asked = []
        for first, second in combinations(outputs, 2):
            one, two = nli.split_sentences(first), nli.split_sentences(second)
            both = min(len(one), len(two))
            at = rng.sample(range(both), 3) if both > 3 else list(range(both))
            asked += [pair for i in at for pair in ((one[i], two[i]), (two[i], one[i]))]
        values: list[float] = []
        for start in range(0, len(asked), size):
            premises, hypotheses = zip(*asked[start : start + size], strict=True)
            inputs = classifier.tokenizer(
                list(premises), list(hypotheses), padding=True, truncation=True, max_length=512, return_tensors="pt"
            )
            with torch.inference_mode():
                probabilities = torch.softmax(classifier.model(**inputs).logits, dim=-1)
            values += [float(row[2] - row[0]) for row in probabilities]
        scores.append(1 - float(np.mean([(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=True)])))
    return scores


# packages


def vendi_package(sets: np.ndarray) -> list[float]:
    """vendi-score, prompt by prompt, by the smaller of its two matrices."""
    from vendi_score import vendi

    return [vendi.score_K(vectors @ vectors.T) for vectors in sets]


def diversity_package(model: Any) -> Callable[[Sequence[Sequence[str]]], list[float]]:
    """`remote_clique` of cshaib/diversity, prompt by prompt, with our encoder in place of one that it loads at each call.

    It counts the distance of a text to itself too, which is taken out here, and rounds to three places.
    """
    found = importlib.util.find_spec("diversity")
    assert found is not None
    assert found.submodule_search_locations
    # The package as a whole imports spaCy.
    spec = importlib.util.spec_from_file_location("peer", Path(found.submodule_search_locations[0]) / "embedding.py")
    assert spec is not None
    assert spec.loader is not None
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    peer.SentenceTransformer = lambda name: model  # type: ignore[attr-defined]
    return lambda sets: [peer.remote_clique(s, verbose=False) * len(s) / (len(s) - 1) for s in sets]


# timing


@dataclass
class Row:
    """One comparison: seconds of both, the largest difference of their results, and divwatch's memory in MiB."""

    what: str
    reference: str
    theirs: float
    ours: float
    apart: float
    memory: float

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


def cpu_seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()  # of the CPU: what else the machine does is no part of it
    result = run()
    return time.process_time() - started, result


def allocated(run: Callable[[], Any]) -> float:
    """Peak memory of numpy and Python during `run`, in MiB."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def compare(
    what: str, reference: str, theirs: Callable[[], Any], ours: Callable[[], Any], repeats: int = 1, memory: float = NAN
) -> Row:
    """The fastest of `repeats` runs of each, taken in turn so that a busy machine hits both."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        for i, run in enumerate((theirs, ours)):
            spent, result = cpu_seconds(run)
            best[i] = min(best[i], spent)
            if i == 0:
                expected = np.asarray(result, dtype=float)
            else:
                found = np.asarray(result, dtype=float)
                same = np.array_equal(np.isnan(expected), np.isnan(found))
                apart = float(np.nanmax(np.abs(expected - found))) if same else float("inf")
    return Row(what, reference, *best, apart, memory)


def tiny_classifier(encoder: Encoder) -> nli.NLIClassifier:
    """An NLI head with random weights on the encoder's body: same cost, and no network needed."""
    import torch
    from transformers import BertForSequenceClassification

    body: Any = encoder.model[0]
    labels = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
    config = type(body.model.config)(**(body.model.config.to_dict() | {"id2label": labels}))
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(body.model.state_dict(), strict=False)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    return nli.NLIClassifier(model.eval().requires_grad_(False), encoder.model.tokenizer, 512)


# Prompts of 16 outputs, outputs that are encoded, prompts whose pairs are asked about.
SCALES = {"small": (60, 48, 1), "few": (200, 96, 2), "whole": (500, 192, 4)}


def speed(scale: str, paper: Path | None) -> list[Row]:
    rng = np.random.default_rng(0)
    (n, encoded, asked), k = SCALES[scale], 16
    sets = [[zipf_words(rng, 300) for _ in range(k)] for _ in range(n)]
    vectors = rng.normal(size=(n, k, 384)) + 2 * rng.normal(size=(n, 1, 384))
    vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    encoder = load_encoder("minilm", 256)
    texts = answers_with_repeats(rng, encoded)
    prompts = [answers_of_variants(rng, k, 20) for _ in range(asked)]
    classifier = tiny_classifier(encoder)
    pairs = sum(3 * 2 * (k * (k - 1) // 2) for _ in prompts)

    def ours_ead() -> list[float]:
        return [lexical.ead(outputs) for outputs in sets]

    def ours_vectors() -> np.ndarray:
        gram = embedding.gram(vectors)
        return np.column_stack([embedding.pairwise_distance(gram), embedding.vendi(gram)])

    def ours_encode() -> np.ndarray:
        return Encoder(encoder.model, 256).encode(texts)

    def ours_nli() -> np.ndarray:
        return nli.nli_diversity(prompts, classifier, 3, [random.Random(1234)] * len(prompts))

    shape = f"N={n}, K={k}"
    memory = [peak_mib(ours_encode), peak_mib(ours_nli), allocated(ours_ead), allocated(ours_vectors)]
    rows = [
        compare(f"EAD, {shape}, 300 words", "loops", lambda: reference_ead(sets), ours_ead, 3, memory[2]),
        compare(
            f"distance + Vendi, {shape}, d=384",
            "loops",
            lambda: reference_distance_and_vendi(vectors),
            ours_vectors,
            5,
            memory[3],
        ),
        compare(
            f"encoding {len(texts)} outputs, a third repeats",
            "input order",
            lambda: reference_encode(encoder.model, texts),
            ours_encode,
            memory=memory[0],
        ),
        compare(
            f"NLI, {asked} prompts, K={k}, {pairs} pairs",
            "input order",
            lambda: reference_nli(prompts, classifier, random.Random(1234)),
            ours_nli,
            memory=memory[1],
        ),
    ]
    rows += packages(vectors, encoder, texts, k)
    if paper is not None:
        theirs = papers_code(paper, sets, vectors, texts, prompts, classifier, encoder.model)
        ours = (ours_ead, ours_vectors, ours_encode, ours_nli)
        for run, mine, what in zip(theirs, ours, ("EAD", "distance + Vendi", "encoding", "NLI"), strict=True):
            rows.append(compare(what, "the paper's code", run, mine))
    return rows


def packages(vectors: np.ndarray, encoder: Encoder, texts: Sequence[str], k: int) -> list[Row]:
    """Comparisons with the installed packages that compute the same metrics."""
    n, rows = len(vectors), []
    if importlib.util.find_spec("vendi_score"):
        rows.append(
            compare(
                f"Vendi, N={n}, K={k}, d=384",
                "vendi-score",
                lambda: vendi_package(vectors),
                lambda: embedding.vendi(embedding.gram(vectors)),
                5,
            )
        )
    if importlib.util.find_spec("diversity"):
        sets = [texts[i : i + k] for i in range(0, len(texts) - k + 1, k)]
        remote_clique = diversity_package(encoder.model)

        def ours() -> list[float]:
            made = Encoder(encoder.model, 256).encode([text for outputs in sets for text in outputs])
            return embedding.pairwise_distance(embedding.gram(made.reshape(len(sets), k, -1))).tolist()

        what = f"distance of {len(sets)} prompts, K={k}, from the texts"
        rows.append(compare(what, "diversity (remote_clique)", lambda: remote_clique(sets), ours))
    return rows


def papers_code(
    paper: Path,
    sets: Sequence[Sequence[str]],
    vectors: np.ndarray,
    texts: Sequence[str],
    prompts: Sequence[Sequence[str]],
    classifier: nli.NLIClassifier,
    encoder: Any,
) -> list[Callable[[], Any]]:
    """The same four jobs by the paper's own classes, with the same models."""
    import torch

    sys.path[:0] = [str(paper), str(paper / "src" / "evaluation")]
    import lighteval_diversity_metrics as theirs

    sbert_class, nli_class = theirs.SentenceBERTDiversityCalculator, theirs.NLIDiversityEvaluator

    def distance_and_vendi() -> list[tuple[float, float]]:
        return [(sbert_class._pairwise_diversity(e), sbert_class._vendi_score(e)) for e in torch.from_numpy(vectors)]

    def encode() -> np.ndarray:
        with tempfile.TemporaryDirectory() as cache:
            calculator = sbert_class("minilm", 1024, 256, cache_dir=Path(cache), device="cpu")
            calculator._model = encoder
            return calculator._encode(texts).numpy()

    def ask() -> list[float]:
        evaluator = nli_class.__new__(nli_class)
        evaluator.__dict__ |= {
            "random_subsample": None,
            "pairs_per_input": -1,
            "verbose": False,
            "sentence_sample_size": 3,
            "_rng": random.Random(1234),
            "batch_size": 1024,
            "max_length": 512,
            "device": "cpu",
            "tokenizer": classifier.tokenizer,
            "model": classifier.model,
            "id_to_label": dict(classifier.model.config.id2label),
            "label_to_weight": nli_class.LABEL_WEIGHTS,
        }
        return evaluator.per_input([theirs.OutputGroup(str(i), list(outputs)) for i, outputs in enumerate(prompts)])

    calculator = theirs.EADDiversityCalculator(NGRAMS, vocab_size=50257)
    return [lambda: calculator.per_input(sets), distance_and_vendi, encode, ask]


# long outputs


def long_answers(rng: np.random.Generator, k: int, sentences: int, share: float, where: str) -> list[str]:
    """K answers of one text, each with `share` of its sentences replaced by its own: at one end, or anywhere."""
    common = [sentence(rng) for _ in range(sentences)]
    count = round(share * sentences)
    places = {
        "start": range(count),
        "end": range(sentences - count, sentences),
        "anywhere": rng.choice(sentences, count, replace=False).tolist(),
    }[where]
    return [" ".join(sentence(rng) if i in places else text for i, text in enumerate(common)) for _ in range(k)]


def windows(small: bool) -> None:
    """How truncated and windowed embeddings handle long outputs, and what they cost."""
    rng = np.random.default_rng(0)
    model = load_encoder("minilm", 256).model
    encoders = {"truncated": Encoder(model, 256), "windows": Encoder(model, 256, windowed=True)}
    shares = [0.0, 0.5] if small else [0.0, 0.2, 0.4, 0.6, 0.8]
    by_share = [((share, where), 60) for share in shares for where in ("start", "end", "anywhere")]
    by_length = [((0.5, "anywhere"), n) for n in (10, 20, 40, 80) for _ in range(1 if small else 3)]
    table = Table(title="mean distance of 5 answers that share all but a part of their sentences")
    for column in ("sentences", "share that differs", "where", *encoders, *(f"{name}, s" for name in encoders)):
        table.add_column(column, justify="right")
    found: dict[str, list[float]] = {name: [] for name in encoders}
    for (share, where), sentences in by_share + by_length:
        outputs = long_answers(rng, 5, sentences, share, where)
        timed = {name: cpu_seconds(partial(encoder.encode, outputs)) for name, encoder in encoders.items()}
        distances = {name: embedding.pairwise_distance(embedding.gram(rows)) for name, (_, rows) in timed.items()}
        for name, distance in distances.items():
            found[name].append(distance)
        cells = [f"{d:.4f}" for d in distances.values()] + [f"{spent:.2f}" for spent, _ in timed.values()]
        table.add_row(str(sentences), f"{share:.1f}", where, *cells)
    console = Console(width=140)
    console.print(table)
    for name, values in found.items():
        rank = spearmanr([share for (share, _), _ in by_share], values[: len(by_share)]).statistic
        console.print(f"{name}: rank correlation of the distance with the share that differs {rank:.2f}")


def result_of(rows: Sequence[Row]) -> Result:
    result = Result()
    head = ["job", "against", "theirs, CPU s", "divwatch, CPU s", "faster by", "largest difference", "memory, MiB"]
    cells = [
        [r.what, r.reference, f"{r.theirs:.3f}", f"{r.ours:.3f}", f"{r.ratio:.1f}x", f"{r.apart:.0e}",
         "-" if np.isnan(r.memory) else f"{r.memory:.0f}"]
        for r in rows
    ]  # fmt: skip
    result.add(*markdown(head, cells))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result.add(
        "The fastest of a few runs taken in turn, in one process. Loops and input order are references in the script that work "
        f"as the paper's code does. Memory is what divwatch adds; the whole process uses {most:.0f} MiB.",
        "",
    )
    result.ratios = {f"metrics, {row.what.split(',')[0]}: {row.reference} / ours": row.ratio for row in rows}
    apart = [row.apart < (1.1e-3 if "diversity" in row.reference else 1e-5) for row in rows]
    result.bound("equal results (1e-5; diversity rounds to 1e-3)", all(apart))
    return result


def main() -> int:
    def more(parser: Any) -> None:
        parser.add_argument("--small", dest="scale", action="store_const", const="small", help="a quick check")
        parser.add_argument("--few", dest="scale", action="store_const", const="few", help="between the two")
        parser.add_argument("--paper", type=Path, help="a clone of ckarouzos/where-diversity-collapses")
        parser.add_argument("--windows", action="store_true", help="truncation against windows on long outputs")

    arguments = options(__doc__, more)
    scale = arguments.scale or "whole"
    if arguments.windows:
        windows(scale == "small")
        return 0
    return publish(result_of(speed(scale, arguments.paper)), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
