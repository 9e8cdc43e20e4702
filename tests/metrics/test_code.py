"""Syntax-tree diversity: the paper's code, the obvious loop, and code that does not parse."""

import ast
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.metrics.code import ast_distance, ast_distinct, extract_code, rarefied_ast_distinct, subtrees
from tests.metrics import slow
from tests.metrics.make_paper_values import CODE

OUTPUTS = st.lists(st.sampled_from(CODE), min_size=1, max_size=6)


def _height(node):
    return 1 + max((_height(child) for child in ast.iter_child_nodes(node)), default=0)


def _slow_subtrees(source, height):
    return Counter(ast.dump(node) for node in ast.walk(ast.parse(source)) if _height(node) == height)


def test_equals_the_papers_code(paper):
    assert [ast_distance(outputs) for outputs in paper["code"]] == pytest.approx(paper["ast"], abs=1e-9)
    assert [ast_distinct(outputs) for outputs in paper["code"]] == pytest.approx(paper["ast_distinct"], abs=1e-9)


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("source", ["x = 1", "def f(a, b=[1, {2: (3, 4)}]):\n    return [a for b in c if d(e.f[g])]"])
def test_subtrees_are_all_nodes_of_that_height(source, height):
    assert subtrees(source, height) == _slow_subtrees(source, height)


@given(OUTPUTS)
def test_distance_equals_the_loop_over_pairs_and_keys(outputs):
    counters = [c for c in (subtrees(extract_code(text)) for text in outputs) if c]
    if len(counters) < 2:
        assert math.isnan(ast_distance(outputs))
    else:
        assert ast_distance(outputs) == pytest.approx(slow.jaccard_distance(counters), abs=1e-9)


@given(OUTPUTS, st.integers(1, 6))
def test_rarefied_distinct_is_the_mean_over_subsets_of_outputs_that_parse(outputs, m):
    parsed = [text for text in outputs if subtrees(extract_code(text))]
    if m > len(parsed):
        assert math.isnan(rarefied_ast_distinct(outputs, m))
    else:
        assert rarefied_ast_distinct(outputs, m) == pytest.approx(slow.over_subsets(parsed, m, ast_distinct), abs=1e-9)


@pytest.mark.parametrize("source", ["def f(:", "a\0b", "(" * 300, "x = " + "-" * 900 + "1", "\ud800"])
def test_code_that_cannot_be_read_is_left_out(source):
    assert subtrees(source) == Counter()
    assert math.isnan(ast_distance([source, CODE[0]]))


def test_the_longest_fenced_block_counts():
    assert extract_code("```python\nx\n```\nor\n```\nlonger = 1\n```") == "longer = 1"
    assert extract_code("no fence") == "no fence"


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "```bash\npython f.py\n```\n{}",
        "{}\n```json\n{{}}\n```\n```text\n" + "out\n" * 20 + "```",
        "{}\n```python\n" + "print(f(1), f(2))\n" * 20 + "```",
        "{}\n```python\ndef test_f():\n" + "    assert f(1) == 2\n" * 20 + "```",
        "```python\ndef f(x):\n" + "    y = 1\n" * 20 + "    return y\n```\nor better\n{}",
    ],
)
def test_the_program_is_found_among_other_blocks(around):
    program = "def f(x):\n    return 2 * x + 1"
    assert extract_code(around.format(f"```python\n{program}\n```")) == program
    other = program.replace("2 * x + 1", "x + (x + 1)")
    answers = [around.format(f"```python\n{code}\n```") for code in (program, other)]
    assert ast_distance(answers) == ast_distance([program, other]) > 0


def test_a_helper_in_a_block_of_its_own_is_part_of_the_program():
    helper, user = "def g(x):\n    return x", "def f(x):\n    return g(x)"
    for blocks in ((helper, user), (user, helper)):
        assert extract_code("\nand\n".join(f"```python\n{b}\n```" for b in blocks)) == f"{helper}\n{user}"


def test_distance_ignores_layout_and_comments():
    assert ast_distance(["def f(a):\n    return a + 1", "def f(a):  # add\n\n        return (a+1)"]) == 0


def test_order_does_not_matter():
    rng = np.random.default_rng(0)
    shuffled = [CODE[i] for i in rng.permutation(len(CODE))]
    assert ast_distance(shuffled) == pytest.approx(ast_distance(CODE), abs=1e-12)
