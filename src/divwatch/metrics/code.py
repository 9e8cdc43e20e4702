"""Structural diversity of Python code: subtrees of the syntax tree.

An output is the program in it (`code_blocks.py`), or all of it if nothing is fenced. Outputs that do not parse or have no
subtree of the height are left out, as in the paper's code. Direction: higher is more diverse.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence

import numpy as np

from divwatch.metrics.code_blocks import extract_code
from divwatch.metrics.subsets import draw_subsets

HEIGHT = 4
_DEEPEST = 500  # higher trees are left out, as in the paper's code


def subtrees(source: str, height: int = HEIGHT) -> Counter[str]:
    """Subtrees of exactly this height (a leaf has 1) in the syntax tree of `source`, as dumped text, with their counts.

    Empty if `source` does not parse or its tree is higher than 500.

    >>> sum(subtrees("x = 1 + 2", height=3).values())
    1
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return Counter()
    heights: dict[ast.AST, int] = {}
    nodes = list(ast.walk(tree))  # breadth first; leaves such as Load() are one shared object
    for node in reversed(nodes):  # children before their parents
        heights[node] = 1 + max((heights[child] for child in ast.iter_child_nodes(node)), default=0)
    if heights[tree] > _DEEPEST:
        return Counter()
    return Counter(ast.dump(node) for node in nodes if heights[node] == height)


def ast_distance(outputs: Sequence[str], height: int = HEIGHT) -> float:
    """Mean Jaccard distance of the outputs' multisets of subtrees, 1 - sum min / sum max, over pairs; in [0, 1].

    NaN if fewer than two outputs have subtrees. Unbiased in K. It compares form, not behaviour: renaming a variable makes
    a difference.
    Source: Shypula et al. (2025, arXiv 2504.12522); Karouzos, Tan and Aletras (2026), appendices B and F.

    >>> ast_distance(["a = f(1 + 2)", "a = f(1 + 2)"])
    0.0
    """
    counts = _count_matrix(outputs, height).astype(float)
    n = len(counts)
    if n < 2:
        return float("nan")
    size = counts.sum(axis=1)
    distances = []
    for i in range(n - 1):
        apart = np.abs(counts[i + 1 :] - counts[i]).sum(axis=1)
        both = size[i + 1 :] + size[i]
        # sum min = (both - apart) / 2, sum max = (both + apart) / 2
        distances.append(1.0 - (both - apart) / (both + apart))
    return float(np.concatenate(distances).mean())


def ast_distinct(outputs: Sequence[str], height: int = HEIGHT) -> float:
    """Different subtrees / all subtrees, pooled over the outputs; in (0, 1]. NaN if no output has any.

    Bias: falls with K and with length, as distinct-n does: compare at equal K, or use `rarefied_ast_distinct`.

    >>> ast_distinct(["a = f(1 + 2)", "a = f(1 + 2)"])
    0.5
    """
    counts = _count_matrix(outputs, height)
    return float((counts.sum(axis=0) > 0).sum() / counts.sum()) if len(counts) else float("nan")


def rarefied_ast_distinct(
    outputs: Sequence[str], m: int, height: int = HEIGHT, draws: int = 64, seed: int = 0
) -> float:
    """Expected `ast_distinct` of m of the outputs that have subtrees; NaN for fewer than m. See `rarefied_vendi`."""
    counts = _count_matrix(outputs, height)
    if m < 1 or len(counts) < m:
        return float("nan")
    chosen = counts[draw_subsets(len(counts), m, draws, seed)]  # [draws, m, subtrees]
    pooled = chosen.sum(axis=1)
    return float(np.mean((pooled > 0).sum(axis=1) / pooled.sum(axis=1)))


def _count_matrix(outputs: Sequence[str], height: int) -> np.ndarray:
    """How often each subtree occurs in each output that has any, [outputs with subtrees, different subtrees]."""
    by_text = {text: subtrees(extract_code(text), height) for text in dict.fromkeys(outputs)}
    rows = [by_text[text] for text in outputs if by_text[text]]
    column: dict[str, int] = {}
    for row in rows:
        for subtree in row:
            column.setdefault(subtree, len(column))
    counts = np.zeros((len(rows), len(column)), dtype=np.int64)
    for i, row in enumerate(rows):
        counts[i, [column[subtree] for subtree in row]] = list(row.values())
    return counts
