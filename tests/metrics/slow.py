"""The metrics once more, as slow and obvious as they can be written: what the fast ones are held against."""

import math
from itertools import combinations


def ead(outputs, vocab_size=50257, max_n=5):
    values = []
    for n in range(1, max_n + 1):
        grams = []
        for text in outputs:
            words = text.replace(".", "").replace("\n", "").split()
            grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if not grams:
            values.append(0.0)
            continue
        expected = vocab_size * (1 - ((vocab_size - 1) / vocab_size) ** len(grams))
        values.append(min(1.0, len(set(grams)) / expected))
    return sum(values) / len(values)


def pairwise_distance(vectors):
    pairs = list(combinations(vectors, 2))
    return sum(1 - sum(a * b for a, b in zip(u, v, strict=True)) for u, v in pairs) / len(pairs)


def over_subsets(items, m, metric):
    """The mean of a metric over every subset of size m."""
    values = [metric(list(subset)) for subset in combinations(items, m)]
    return sum(values) / len(values)


def distinct(answers):
    return float(len({a for a in answers if a is not None}))


def entropy(answers):
    shares = [answers.count(a) / len(answers) for a in set(answers)]
    return -sum(p * math.log(p) for p in shares)


def differing_pairs(answers):
    pairs = list(combinations(answers, 2))
    return sum(a != b for a, b in pairs) / len(pairs)


def pass_at_k(correct, k):
    subsets = list(combinations(correct, k))
    return sum(any(subset) for subset in subsets) / len(subsets)


def jaccard_distance(counters):
    distances = []
    for a, b in combinations(counters, 2):
        keys = set(a) | set(b)
        distances.append(1 - sum(min(a[k], b[k]) for k in keys) / sum(max(a[k], b[k]) for k in keys))
    return sum(distances) / len(distances)


def split(before, after):
    """The four parts for one prompt, from lists of (vector, correct)."""

    def groups(side):
        found = {"cc": [], "cw": [], "ww": []}
        for (u, right_u), (v, right_v) in combinations(side, 2):
            name = "cc" if right_u and right_v else "ww" if not right_u and not right_v else "cw"
            found[name].append(1 - sum(a * b for a, b in zip(u, v, strict=True)))
        return found

    one, two = groups(before), groups(after)
    pairs_one, pairs_two = (sum(map(len, g.values())) for g in (one, two))
    parts = {"quality_control": 0.0}
    for name, part in (("cc", "genuine_narrowing"), ("cw", "cross_narrowing"), ("ww", "error_narrowing")):
        w0, w1 = len(one[name]) / pairs_one, len(two[name]) / pairs_two
        d0 = sum(one[name]) / len(one[name]) if one[name] else None
        d1 = sum(two[name]) / len(two[name]) if two[name] else None
        d0, d1 = d1 if d0 is None else d0, d0 if d1 is None else d1
        if d0 is None:
            parts[part] = 0.0
            continue
        parts["quality_control"] += (w1 - w0) * (d0 + d1) / 2
        parts[part] = (w0 + w1) / 2 * (d1 - d0)
    return parts
