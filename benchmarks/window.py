"""Diversity of a window of each answer against that of whole answers, on real generations (docs/metrics.md).

    DIVWATCH_TEST_DATA=DIR python benchmarks/window.py               some 10 minutes on one core
    DIVWATCH_TEST_DATA=DIR python benchmarks/window.py --prompts 40  some minutes

DIR/teachers/answers.jsonl: lines {"prompt", "answers": {model: text}}, many models' answers to each prompt. A prompt's
outputs are the answers of a set of models, so diversity is that of a mixture of models. A change is that between two sets.
DIR/generations/cruxeval_codellama.jsonl: lines {"outputs": [K texts]}, samples of one model. The two halves of a prompt's
samples differ by noise alone, so here there is no change to keep.

Windows are counted in the tokens of the encoder (all-MiniLM-L6-v2), which reads 512 of them here: a whole answer is cut
there for sbert and vendi, and not at all for ead.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import options

from divwatch.metrics import embedding, lexical
from divwatch.metrics.encoder import Encoder, load_encoder

WINDOWS = (64, 128, 256, 384, None)  # None: the whole answer
READ = 512  # tokens of a text that the encoder reads
METRICS = ("sbert", "vendi", "ead")
SET, PAIRS = 6, 40  # models of a set; pairs of sets that are compared


def cut(encoder: Encoder, text: str, window: int | None) -> str:
    """The first `window` tokens of a text, as text."""
    if window is None:
        return text
    ends = encoder.model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text[: ends[window - 1][1]] if len(ends) > window else text


def prompts_of(texts: Sequence[Sequence[str]], encoder: Encoder) -> list[dict[str, Any]]:
    """For each prompt its texts and the cosines of their embeddings."""
    rows = encoder.encode([text for outputs in texts for text in outputs])
    ends = np.cumsum([len(outputs) for outputs in texts])
    return [
        {"texts": outputs, "gram": embedding.gram(rows[end - len(outputs) : end])}
        for outputs, end in zip(texts, ends, strict=True)
    ]


def values(prompts: Sequence[dict[str, Any]], members: Sequence[int]) -> dict[str, np.ndarray]:
    """Metric -> a value for each prompt, over the outputs `members`."""
    at = np.ix_(members, members)
    return {
        "sbert": np.array([embedding.pairwise_distance(p["gram"][at]) for p in prompts]),
        "vendi": np.array([embedding.vendi(p["gram"][at]) for p in prompts]),
        "ead": np.array([lexical.ead([p["texts"][i] for i in members]) for p in prompts]),
    }


def rows_of(
    texts: Sequence[Sequence[str]], pairs: Sequence[tuple[list[int], list[int]]], encoder: Encoder
) -> list[str]:
    """A line of the table for each window: share of answers that it cuts, then by metric level, correlation and change."""
    everyone = list(range(len(texts[0])))
    levels, changes, shares = {}, {}, {}
    for window in WINDOWS:
        windows = [[cut(encoder, text, window) for text in outputs] for outputs in texts]
        sizes = [[len(text) for outputs in part for text in outputs] for part in (windows, texts)]
        shares[window] = np.mean(np.less(*sizes))
        prompts = prompts_of(windows, encoder)
        levels[window] = values(prompts, everyone)
        both = [[values(prompts, members) for members in pair] for pair in pairs]
        changes[window] = {m: np.array([b[m].mean() / a[m].mean() - 1 for a, b in both]) for m in METRICS}
    if pairs:
        sizes = ", ".join(f"{m} {100 * np.abs(changes[None][m]).mean():.1f}" for m in METRICS)
        print(f"mean size of the changes, whole answers, in points: {sizes}")
    return [_row(window, shares[window], levels, changes) for window in WINDOWS]


def _row(window: int | None, share: float, levels: Any, changes: Any) -> str:
    cells = ["whole" if window is None else str(window), f"{share:.0%}"]
    for m in METRICS:
        level, whole = levels[window][m], levels[None][m]
        cells.append(f"{level.mean():.3f} / {np.corrcoef(level, whole)[0, 1]:.2f}")
        if len(changes[window][m]):
            change, true = changes[window][m], changes[None][m]
            cells.append(f"{np.corrcoef(change, true)[0, 1]:.2f} / {100 * np.abs(change - true).mean():.1f}")
    return "| " + " | ".join(cells) + " |"


def table(title: str, rows: Sequence[str], with_changes: bool) -> None:
    names = [f"{m}: level / r" + (f" | {m}: change r / points" if with_changes else "") for m in METRICS]
    print(
        f"{title}\n\n| window | cut | {' | '.join(names)} |\n|"
        + "---|" * (2 + len(METRICS) * (2 if with_changes else 1))
    )
    print("\n".join(rows), end="\n\n", flush=True)


def main() -> None:
    given = options(__doc__, lambda p: p.add_argument("--prompts", type=int, default=200, help="prompts of each file"))
    folder = os.environ.get("DIVWATCH_TEST_DATA")
    if not folder:
        raise SystemExit("DIVWATCH_TEST_DATA names no folder: set it to one that holds teachers/ and generations/")
    encoder, rng = load_encoder("minilm", READ), random.Random(0)

    teachers = _lines(Path(folder) / "teachers/answers.jsonl")
    models = sorted(teachers[0]["answers"])
    teachers = [line for line in rng.sample(teachers, len(teachers)) if all(line["answers"].get(m) for m in models)]
    teachers = teachers[: given.prompts]
    drawn = [rng.sample(range(len(models)), 2 * SET) for _ in range(PAIRS)]
    pairs = [(d[:SET], d[SET:]) for d in drawn]
    rows = rows_of([[line["answers"][m] for m in models] for line in teachers], pairs, encoder)
    table(f"{len(models)} models, {len(teachers)} prompts; changes between {PAIRS} pairs of sets of {SET}", rows, True)

    samples = _lines(Path(folder) / "generations/cruxeval_codellama.jsonl")[: given.prompts]
    rows = rows_of([line["outputs"] for line in samples], [], encoder)
    table(f"samples of one model: CRUXEval, {len(samples)} prompts", rows, False)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


if __name__ == "__main__":
    main()
