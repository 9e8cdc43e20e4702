"""Do the diversity metrics agree with people? Agreement with human judgements of content diversity (docs/metrics.md).

    python benchmarks/people.py DIR            # some minutes on one core

DIR: the files `*_200_with_hds_*.csv` of McDiv_nuggets, conTest and decTest (Tevet and Berant 2021, "Evaluating the
Evaluation of Diversity in Natural Language Generation", MIT): sets of short answers to one context, each with the mean
rating of its diversity by people (1 to 5). In McDiv_nuggets and conTest people wrote the answers, either to differ in
content (label 1) or in wording alone (label 0); McDiv_nuggets keeps those that word overlap does not tell apart. In
decTest a model wrote them at different temperatures.
Their data: http://diversity-eval.s3-us-west-2.amazonaws.com/data.zip. Nothing of it is part of this project.

AUC: the chance that a set written to differ in content has a higher value than one written to differ in wording alone.
Rho: rank correlation with the mean rating. Intervals: 95 %, bootstrap over contexts (2,000 draws).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from divwatch.metrics import answers, embedding, lexical
from divwatch.metrics.encoder import load_encoder
from divwatch.metrics.nli import load_nli, nli_diversity

DRAWS = 2000


def read(folder: Path) -> list[tuple[str, str, str, list[str], float, float]]:
    """(test, task, context, outputs, label, rating) of every rated set with at least two answers."""
    sets = []
    for path in sorted(folder.rglob("*_200_with_hds_*.csv")):
        test, task = path.stem.split("_200_with_hds_")
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                outputs = [v.strip() for k, v in row.items() if k.startswith("resp_") and v and v.strip()]
                if len(outputs) >= 2 and row["metric_abs_hds_mean"]:
                    sets.append(
                        (
                            test,
                            task,
                            row["context"],
                            outputs,
                            float(row["label_value"]),
                            float(row["metric_abs_hds_mean"]),
                        )
                    )
    return sets


def auc(values: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a value of label 1 is above one of label 0; ties count half."""
    from scipy.stats import rankdata

    ranks, high = rankdata(values), labels == 1
    n, m = int(high.sum()), int((~high).sum())
    return float((ranks[high].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def rho(values: np.ndarray, ratings: np.ndarray) -> float:
    from scipy.stats import spearmanr

    if len(set(values)) == 1:
        return float("nan")
    return float(spearmanr(values, ratings).statistic)


def interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    values: np.ndarray,
    target: np.ndarray,
    contexts: Sequence[str],
) -> tuple[float, float]:
    """Bootstrap over contexts: the sets of one context were written together."""
    _, group = np.unique(np.array(contexts), return_inverse=True)
    members = [np.flatnonzero(group == g) for g in range(group.max() + 1)]
    random = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        rows = np.concatenate([members[g] for g in random.integers(len(members), size=len(members))])
        draws.append(statistic(values[rows], target[rows]))
    if np.isnan(draws).any():  # all sets of a draw have one value: the metric does not tell them apart
        return float("nan"), float("nan")
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--nli-model", help="a hub name or directory; without it nli is left out")
    arguments = parser.parse_args()
    sets = read(arguments.folder)
    if not sets:
        parser.error(f"{arguments.folder} holds no *_200_with_hds_*.csv")
    vectors = load_encoder(arguments.encoder).encode([text for s in sets for text in s[3]])
    ends = np.cumsum([len(s[3]) for s in sets])
    grams = [embedding.gram(vectors[end - len(s[3]) : end]) for s, end in zip(sets, ends, strict=True)]
    values = {
        "sbert": np.array([embedding.pairwise_distance(gram) for gram in grams]),
        "vendi": np.array([embedding.vendi(gram) for gram in grams]),
        "ead": np.array([lexical.ead(s[3]) for s in sets]),
        "distinct_answers": np.array([answers.distinct(_canonical(text) for text in s[3]) for s in sets]),
    }
    if arguments.nli_model:
        values["nli"] = nli_diversity([s[3] for s in sets], load_nli(arguments.nli_model))
    for test in sorted({s[0] for s in sets}):
        for task in [*sorted({s[1] for s in sets}), "all"]:
            at = np.array([i for i, s in enumerate(sets) if s[0] == test and task in (s[1], "all")])
            contexts = [sets[i][2] for i in at]
            labels, ratings = (np.array([sets[i][column] for i in at]) for column in (4, 5))
            for metric, all_values in values.items():
                line = f"{test} | {task} | {metric} | {len(at)}"
                if set(labels) == {0.0, 1.0}:
                    low, high = interval(auc, all_values[at], labels, contexts)
                    line += f" | auc {auc(all_values[at], labels):.2f} [{low:.2f}, {high:.2f}]"
                low, high = interval(rho, all_values[at], ratings, contexts)
                print(f"{line} | rho {rho(all_values[at], ratings):.2f} [{low:.2f}, {high:.2f}]", flush=True)


def _canonical(text: str) -> str:
    """Two texts are one answer if they differ in case, spaces and final marks alone."""
    return " ".join(text.lower().split()).strip(".!? ")


if __name__ == "__main__":
    main()
