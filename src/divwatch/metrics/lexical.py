"""Diversity of words: expectation-adjusted distinct n-grams (EAD), and the detection of repetition loops."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from divwatch.metrics.subsets import draw_subsets

GPT2_VOCABULARY = 50257
_REMOVED = str.maketrans("", "", ".\n")


def words(text: str) -> list[str]:
    """Words as the paper's code cuts them: full stops and newlines deleted (joining two lines' words), then by space.

    >>> words("One two.\\nThree")
    ['One', 'twoThree']
    """
    return text.translate(_REMOVED).split()


def ead(outputs: Sequence[str], vocab_size: int = GPT2_VOCABULARY, max_n: int = 5) -> float:
    """Expectation-adjusted distinct n-grams over the K outputs, mean over n = 1..max_n.

    For one n: U / (V (1 - ((V - 1) / V)^T)), clipped to [0, 1]; U different and T total n-grams, V the vocabulary size;
    0 if no output has n words. In [0, 1], higher is more diverse; NaN without outputs.
    Biases: with V well above T it is nearly U / T, which falls with K and with length (compare at equal K, or use
    `rarefied_ead`; never across lengths); outputs of fewer than max_n words are held down; it sees words, not meaning,
    and has been seen to rise while meaning collapses. Compare only at one V: the paper's code uses 50,257 for every
    model.
    Source: Liu et al. (2022, ACL short 86); Karouzos, Tan and Aletras (2026), appendix B.

    >>> round(ead(["a b", "a c"], vocab_size=1000, max_n=1), 4)
    0.7511
    """
    if len(outputs) == 0:
        return float("nan")
    index = NgramIndex(outputs, max_n)
    return _adjusted(index.unique(), index.totals(), vocab_size)


def rarefied_ead(
    outputs: Sequence[str],
    m: int,
    vocab_size: int = GPT2_VOCABULARY,
    max_n: int = 5,
    draws: int = 64,
    seed: int = 0,
) -> float:
    """Expected EAD of m of the K outputs, which can be compared between different K (not between different lengths).

    The mean over all subsets of size m where there are at most `draws`, else over `draws` seeded ones. NaN for K < m.
    """
    if m < 1 or len(outputs) < m:
        return float("nan")
    index = NgramIndex(outputs, max_n)
    subsets = draw_subsets(len(outputs), m, draws, seed)
    return float(np.mean(_adjusted(index.unique_within(subsets), index.totals(subsets), vocab_size)))


class NgramIndex:
    """Where the n-grams of K outputs occur. Equal outputs are read once."""

    def __init__(self, outputs: Sequence[str], max_n: int) -> None:
        seen: dict[str, int] = {}
        self.text_of = np.array([seen.setdefault(text, len(seen)) for text in outputs])  # [K], which distinct text
        cut = [words(text) for text in seen]
        self.lengths = np.array([len(w) for w in cut])  # [texts], in words
        self.max_n = max_n
        vocabulary: dict[str, int] = {}
        tokens = np.array([vocabulary.setdefault(w, len(vocabulary)) for text in cut for w in text], dtype=np.int64)
        self._orders = list(self._number(tokens, len(vocabulary)))

    def _number(self, tokens: np.ndarray, vocabulary: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For n = 1..max_n: how many different n-grams, the number of each one, and the text it starts in.

        An n-gram is the pair of its first n - 1 words, as numbered in the step before, and its last word: exact, no
        hashing.
        """
        text = np.repeat(np.arange(len(self.lengths)), self.lengths)
        # Words from here to the end.
        remaining = np.repeat(np.cumsum(self.lengths), self.lengths) - np.arange(len(tokens))
        prefix, unique = tokens, vocabulary
        for n in range(1, self.max_n + 1):
            if n > 1:
                fits = remaining >= n
                start = np.flatnonzero(fits)
                distinct, prefix = np.unique(prefix[start] * vocabulary + tokens[start + n - 1], return_inverse=True)
                unique = len(distinct)
                yield unique, prefix, text[start]
                grown = np.zeros(len(tokens), dtype=np.int64)
                grown[start] = prefix
                prefix = grown
            else:
                yield unique, prefix, text

    def unique(self) -> np.ndarray:
        """Different n-grams, [max_n]."""
        return np.array([unique for unique, _, _ in self._orders])

    def unique_within(self, subsets: np.ndarray) -> np.ndarray:
        """Different n-grams within each subset of the outputs [draws, m], [draws, max_n]."""
        present = np.zeros((len(subsets), len(self.lengths)), dtype=np.float32)
        present[np.arange(len(subsets))[:, None], self.text_of[subsets]] = 1
        shares = np.empty((len(subsets), self.max_n))
        for n, (unique, number, text) in enumerate(self._orders):
            occurs = np.zeros((unique, len(self.lengths)), dtype=np.float32)
            occurs[number, text] = 1
            # Most n-grams occur in one text only, and are counted by text.
            shared = occurs[occurs.sum(axis=1) > 1]
            own = occurs.sum(axis=0) - shared.sum(axis=0)
            shares[:, n] = present @ own + (shared @ present.T > 0).sum(axis=0)
        return shares

    def totals(self, subsets: np.ndarray | None = None) -> np.ndarray:
        """Total n-grams of all outputs, [max_n], or of each subset, [draws, max_n]."""
        per_output = np.maximum(self.lengths[self.text_of][:, None] - np.arange(self.max_n), 0)
        return per_output.sum(axis=0) if subsets is None else per_output[subsets].sum(axis=1)


def _adjusted(unique: np.ndarray, totals: np.ndarray, vocab_size: int) -> Any:
    """U / (V (1 - ((V - 1) / V)^T)), clipped, mean over n (the last axis)."""
    if vocab_size < 2:
        raise ValueError(f"vocab_size is {vocab_size}: give the number of tokens of a vocabulary, at least 2")
    expected = -vocab_size * np.expm1(totals * np.log1p(-1.0 / vocab_size))
    ratio = np.divide(unique, expected, out=np.zeros(np.shape(unique)), where=expected > 0)
    mean = np.minimum(ratio, 1.0).mean(axis=-1)
    return float(mean) if np.ndim(mean) == 0 else mean


# Scripts without spaces between words: each of their letters is a token.
_CJK = "\u3041-\u30ff\u3105-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SOUTHEAST_ASIAN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1980-\u19df\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
_SOUTHEAST_ASIAN_LETTER = re.compile(f"[{_SOUTHEAST_ASIAN}]")
_TOKEN = re.compile(rf"[{_CJK}{_SOUTHEAST_ASIAN}]|[^\W{_CJK}{_SOUTHEAST_ASIAN}]+|[^\w\s]")
_LONGEST_WORD = 24  # a longer word is read letter by letter: "hahaha...", "0.333..."
_MARKS = dict.fromkeys(i for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i))[0] == "M")
_SENTENCE_END = frozenset(".!?\u2026\u3002\uff01\uff1f")
# A rule, the border of a table or an empty form is drawn with these; it may be a line long.
_DRAWN = frozenset("-=_*~#+|/:^\u2013\u2014\u2022\u00b7") | frozenset(map(chr, range(0x2500, 0x25A0)))
_LONGEST_LINE = 80


def is_loop(text: str, repeats: int = 4, least: int = 20) -> bool:
    """Whether the text ends in a loop: one unit, back to back at least `repeats` times, over at least `least` tokens.

    Tokens are words, single punctuation marks and emoji, and single letters in scripts without spaces and in words of
    more than 24 letters. Two letters of a word, or of a Southeast Asian script, count as one token. The last unit may
    be cut off or followed by a full stop. Rules and borders of tables are loops beyond 80 characters. Such outputs are
    counted, not left out: a model that loops is broken in a way that diversity metrics read as either very diverse
    (length) or not at all.

    >>> is_loop("I think that " * 10), is_loop("one two three four five six seven eight nine ten")
    (True, False)
    >>> is_loop("我认为" * 10), is_loop("ha" * 20), is_loop("Well: " + "-" * 80)
    (True, True, False)
    """
    tokens, sizes = _sized_tokens(text)
    ended = len(tokens)
    while ended and tokens[ended - 1] in _SENTENCE_END:
        ended -= 1
    if any(_loop_at_end(tokens[:n], sizes[:n], repeats, least) for n in {len(tokens), ended}):
        return True
    # The token limit may cut the last word.
    if not any(token.startswith(tokens[-1]) and token != tokens[-1] for token in tokens):
        return False
    unit = _loop_at_end(tokens[:-1], sizes[:-1], repeats, least)
    return bool(unit) and unit[0].startswith(tokens[-1])


def _sized_tokens(text: str) -> tuple[list[str], list[float]]:
    """Tokens, and for how many each counts."""
    tokens: list[str] = []
    sizes: list[float] = []
    for token in _TOKEN.findall(text if text.isascii() else text.translate(_MARKS)):
        if len(token) > _LONGEST_WORD:
            tokens += token
            sizes += [0.5 if letter.isalnum() else 1.0 for letter in token]
        else:
            tokens.append(token)
            sizes.append(0.5 if _is_southeast_asian(token) else 1.0)
    return tokens, sizes


def _is_southeast_asian(token: str) -> bool:
    return token > "\u0dff" and _SOUTHEAST_ASIAN_LETTER.match(token) is not None


def _loop_at_end(tokens: list[str], sizes: list[float], repeats: int, least: int) -> list[str]:
    """The unit that the tokens end in, or that comes next if the last one is cut off; empty if they end in no loop."""
    read = list(accumulate(reversed(sizes), initial=0.0))
    if read[-1] < least:
        return []
    for period, same in enumerate(_common_prefixes(tokens[::-1])):
        run = period + same
        if period and run >= repeats * period and read[run] >= least:
            unit = tokens[-period:]
            if read[run] > _LONGEST_LINE or not all(_DRAWN.issuperset(token) for token in unit):
                return unit
    return []


def _common_prefixes(items: list[str]) -> list[int]:
    """For each i, how many items from i on equal those from the start. Linear in time (Gusfield's Z-algorithm).

    >>> _common_prefixes(list("aabaab"))
    [6, 1, 0, 3, 1, 0]
    """
    n = len(items)
    same = [n] + [0] * (n - 1)
    left = right = 0  # the stretch furthest right that equals a prefix
    for i in range(1, n):
        length = min(right - i, same[i - left]) if i < right else 0
        while i + length < n and items[length] == items[i + length]:
            length += 1
        if i + length > right:
            left, right = i, i + length
        same[i] = length
    return same


def repetition(outputs: Sequence[str]) -> float:
    """Share of the outputs that end in a loop, in [0, 1]; higher is worse; NaN without outputs.

    >>> repetition(["so " * 40, "A fine answer."])
    0.5
    """
    return float(np.mean([is_loop(text) for text in outputs])) if len(outputs) else float("nan")
