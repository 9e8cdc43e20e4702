"""EAD equals the paper's code and the obvious loop, its rarefied form does not move with K, loops are found."""

import math
from itertools import takewhile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.metrics.lexical import ead, is_loop, rarefied_ead, repetition
from tests.metrics import slow

TEXT = st.text(st.sampled_from("ab .\n\té"), max_size=30)
OUTPUTS = st.lists(TEXT, min_size=1, max_size=8)


@given(OUTPUTS, st.integers(2, 1000), st.integers(1, 6))
def test_ead_equals_the_obvious_loop(outputs, vocab_size, max_n):
    assert ead(outputs, vocab_size, max_n) == pytest.approx(slow.ead(outputs, vocab_size, max_n), abs=1e-9)


def test_ead_equals_the_papers_code(paper):
    assert [ead(outputs) for outputs in paper["texts"]] == pytest.approx(paper["ead"], abs=1e-9)
    assert [ead(outputs, 100278) for outputs in paper["texts"]] == pytest.approx(paper["ead_100278"], abs=1e-9)
    assert ead([outputs[0] for outputs in paper["texts"]]) == pytest.approx(paper["across"]["ead"], abs=1e-9)


@given(OUTPUTS, st.randoms())
def test_ead_does_not_depend_on_the_order_of_outputs(outputs, random):
    shuffled = random.sample(outputs, len(outputs))
    assert ead(shuffled) == pytest.approx(ead(outputs), abs=1e-12)


@given(st.lists(TEXT, min_size=3, max_size=6), st.integers(1, 6))
def test_rarefied_ead_is_the_mean_over_all_subsets(outputs, m):
    if m > len(outputs):
        assert math.isnan(rarefied_ead(outputs, m))
    else:
        assert rarefied_ead(outputs, m) == pytest.approx(slow.over_subsets(outputs, m, slow.ead), abs=1e-9)


@given(OUTPUTS)
def test_rarefied_to_all_outputs_is_ead(outputs):
    assert rarefied_ead(outputs, len(outputs)) == pytest.approx(ead(outputs), abs=1e-12)


def _sampled_outputs(rng, k):
    return [" ".join(rng.choice(list("abcdefghijklmnop"), size=8)) for _ in range(k)]


def test_rarefied_ead_keeps_its_mean_when_k_changes_and_plain_ead_does_not():
    rng = np.random.default_rng(0)
    small, large = ([_sampled_outputs(rng, k) for _ in range(300)] for k in (4, 12))
    means = [np.mean([rarefied_ead(outputs, 4) for outputs in sets]) for sets in (small, large)]
    spread = np.std([rarefied_ead(outputs, 4) for outputs in small]) / math.sqrt(300)
    assert abs(means[0] - means[1]) < 4 * spread
    plain = [np.mean([ead(outputs) for outputs in sets]) for sets in (small, large)]
    assert plain[0] - plain[1] > 20 * spread


def test_no_outputs_is_missing_and_no_words_is_nothing():
    assert math.isnan(ead([]))
    assert ead(["", " \n"]) == 0.0
    assert math.isnan(rarefied_ead(["a"], 0))


def test_an_impossible_vocabulary_is_refused():
    with pytest.raises(ValueError, match="vocab_size is 1"):
        ead(["a"], vocab_size=1)


@pytest.mark.parametrize(
    "text",
    [
        "so " * 30,
        "Well, let me think. " + "I will add them again, and then " * 6 + "I will add",
        "The sum is 4.\n" * 12,
        "((((((((((((((((((((((((",
        "I will add them again, and then " * 6 + "I will add th",
        "The answer is 4. Yes." * 8 + "..",
    ],
)
def test_a_text_that_ends_in_a_loop_is_found(text):
    assert is_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no no no no",
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "so " * 30 + "but then it ended well, with a proper sentence that says something new at last.",
        "first step: add. second step: add. third step: add. fourth step: add. fifth step: add.",
    ],
)
def test_a_text_that_ends_properly_is_no_loop(text):
    assert not is_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "管理者です" * 100,
        "我认为" * 100,
        "今天天气很好，我们去公园散步。" + "首先我们需要计算总数，答案是十二。" * 5,
        "วันนี้" * 100,
        "ສະບາຍດີ" * 20,
        "안녕하세요" * 20,
        "ㅋ" * 60,
        "बहुत " * 30,
        "haha" * 100,
        "haha" * 50 + "!",
        "0." + "3" * 300,
        "a" * 500,
        "😂" * 50,
        "❤️" * 40,
        "👨‍👩‍👧" * 30,
        "!" * 60,
        "?!" * 40,
        "-" * 200,
        "<div>" * 30,
        "\\n" * 60,
        "def f(x):\n" + "    x = x + 1\n" * 12,
        "so\u00a0" * 40,
        "ha\u200b" * 40,
    ],
)
def test_a_loop_is_found_without_spaces_too(text):
    assert is_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。寒来暑往，秋收冬藏。",
        "太好笑了哈哈哈哈哈哈哈哈",
        "วันนี้อากาศดีมากเราไปเดินเล่นที่สวนสาธารณะกับเพื่อน",
        "That's funny, hahahahahaha!",
        "Great! 😂😂😂😂😂",
        "The result is 0.33333333333333333333.",
        "1" + "0" * 30,
        "GATTACACCATGGTCAATTCGGATCCAAGGTTTACGCTAGCATCGATTTGACCGTACGTAACGTTGC",
        "550e8400-e29b-41d4-a716-446655440000",
        str([0] * 40),
        " ".join(map(str, range(100))),
        "| x | x² |\n|---|---|\n" + "".join(f"| {i} | {i * i} |\n" for i in range(20)),
        "| x | y | z |\n|---|---|---|\n" + "|   |   |   |\n" * 6,
        "+-----+-----+\n| a   | b   |\n+-----+-----+-----+-----+-----+",
        "Title\n" + "=" * 80,
        "Name: " + "_" * 60,
        "".join(f"assert f({i}) == {i * i}\n" for i in range(30)),
        "\n".join(f"The {word} goes by,\nand all the bells are ringing." for word in ("wind", "rain", "sun", "moon")),
        "Let it be, let it be, let it be, let it be.\nWhisper words of wisdom, let it be",
        "</td></tr></table></div></div></div></body></html>",
    ],
)
def test_ordinary_text_with_similar_parts_is_no_loop(text):
    assert not is_loop(text)


@given(st.text("ab我 .-", max_size=60), st.integers(2, 5), st.integers(1, 24))
def test_a_loop_is_what_the_obvious_search_finds(text, repeats, least):
    tokens = [c for c in text if c not in " "]
    periods = range(1, len(tokens) + 1)
    periodic = [[tokens[-1 - i] == tokens[-1 - i % period] for i in range(len(tokens))] for period in periods]
    runs = [len(list(takewhile(bool, same))) for same in periodic]
    long_enough = any(run >= max(repeats * p, least) for p, run in enumerate(runs, 1))
    spaced = " ".join(text.replace("-", "!")).replace(".", "?")  # each character a token, none a rule
    if not text.rstrip(" ").endswith((".", "-")):
        assert is_loop(spaced, repeats, least) == long_enough


@given(st.lists(st.sampled_from("abc"), min_size=5, max_size=12), st.integers(4, 9))
def test_any_unit_repeated_often_enough_is_a_loop(unit, times):
    assert is_loop("start " + " ".join(unit * times))


def test_repetition_is_the_share_of_looping_outputs():
    assert repetition(["so " * 40, "fine", "fine", "fine"]) == 0.25
    assert math.isnan(repetition([]))
