"""Is the panel held out? 13-gram overlap of its prompts with the training rows, in one pass over the rows.

A prompt is contaminated if 13 consecutive words of it occur in one text of a training row, whatever their case and
punctuation (13 as in the paper's Table 19 and GPT-3's appendix C). A shorter prompt must occur as a whole. Words are runs
of letters and digits, so a script without spaces is compared sentence by sentence. System turns are ignored. So is a task's
wording, which training rows may share without harm: 8 consecutive words that occur in more than a tenth of its prompts, and
in at least three. A prompt without 13 consecutive words outside its wording must occur as a whole, wording included.

Only the panel is held in memory (its n-grams, by hash); rows stream through. `held_out.py` runs the search,
`overlap_report.py` is its result.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from divwatch.panel.rows import USER, turn_texts
from divwatch.panel.training_texts import Decode, stream_rows, texts_of
from divwatch.records import Prompt

NGRAM = 13
STRIDE = 7  # 2 * 7 - 1 = 13: every 13 words hold 7 that start at a multiple of 7
WORDING = 8
_WORD = re.compile(r"[^\W_]+")
RULES = 1  # results of other rules in the cache are not used: increase with every change of the rules above


@dataclass
class Matches:
    """Overlaps of a search: prompt -> first row, prompt -> positions of its words in an overlap, and the rows read."""

    first: dict[int, int] = field(default_factory=dict)
    covered: dict[int, set[int]] = field(default_factory=dict)
    rows: int = 0

    def add(self, prompt: int, words: range, row: int) -> None:
        self.first[prompt] = min(row, self.first.get(prompt, row))
        self.covered.setdefault(prompt, set()).update(words)

    def merge(self, other: Matches) -> None:
        for prompt, row in other.first.items():
            self.first[prompt] = min(row, self.first.get(prompt, row))
            self.covered.setdefault(prompt, set()).update(other.covered[prompt])
        self.rows += other.rows


class PanelIndex:
    """The panel's n-grams by hash, and the prompts that must occur as a whole by their longest word.

    Any 13 consecutive words of a text contain a run of 7 that starts at a multiple of 7. If none of these sevens of a text
    is in the panel, the text has no 13-gram of it, so nearly every text takes a seventh of the look-ups. The longest
    word of a whole prompt is likely its rarest: a text without it needs no further comparison. Hashes are Python's, 64
    bits: the chance of a false match of a billion n-grams with a million of the panel's is about 1e-2.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.prompts = list(prompts)
        self.words = [words_of(_question(p)) for p in prompts]
        self.sevens: set[int] = set()
        self.whole: dict[str, list[tuple[int, int]]] = {}
        wording = _wording(self.prompts, self.words)
        grams, places = array("q"), array("q")
        for i, words in enumerate(self.words):
            starts = _content(words, wording[self.prompts[i].task])
            sevens = [hash(gram) for gram in _grams(words, STRIDE)]
            for start in starts:
                grams.append(hash(tuple(words[start : start + NGRAM])))
                places.extend((i, start))
                self.sevens.update(sevens[start : start + STRIDE])
            if words and not starts:
                anchor = max(words, key=len)
                self.whole.setdefault(anchor, []).append((i, words.index(anchor)))
        hashes = np.frombuffer(grams, dtype=np.int64) if grams else np.empty(0, np.int64)
        order = np.argsort(hashes, kind="stable")
        self.grams = hashes[order]
        self.places = (np.frombuffer(places, dtype=np.int64) if grams else np.empty(0, np.int64)).reshape(-1, 2)[order]

    def search(self, text: str, row: int, matches: Matches) -> None:
        """Adds the overlaps of one text of a training row to `matches`."""
        words = words_of(text)
        if not self.sevens.isdisjoint(map(hash, zip(*(words[j::STRIDE] for j in range(STRIDE)), strict=False))):
            self._search_grams(words, row, matches)
        if not self.whole.keys().isdisjoint(words):
            self._search_whole(words, row, matches)

    def _search_grams(self, words: list[str], row: int, matches: Matches) -> None:
        hashes = np.fromiter(map(hash, _grams(words)), dtype=np.int64)
        low = np.searchsorted(self.grams, hashes, "left")
        high = np.searchsorted(self.grams, hashes, "right")
        for i in np.flatnonzero(high > low):
            for prompt, start in self.places[low[i] : high[i]].tolist():
                matches.add(prompt, range(start, start + NGRAM), row)

    def _search_whole(self, words: list[str], row: int, matches: Matches) -> None:
        for place, word in enumerate(words):
            for prompt, offset in self.whole.get(word, ()):
                start, whole = place - offset, self.words[prompt]
                if start >= 0 and words[start : start + len(whole)] == whole:
                    matches.add(prompt, range(len(whole)), row)


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, in lower case.

    >>> words_of("Don't STOP (now)!") == words_of("don’t stop, now")
    True
    """
    return _WORD.findall(text.lower())


def scan(index: PanelIndex, rows: Any, decode: Decode | None = None, first_row: int = 0) -> Matches:
    """One pass over `rows`; memory does not grow with them."""
    matches = Matches()
    for row in stream_rows(rows, decode):
        for text in dict.fromkeys(texts_of(row, decode)):  # the two conversations of a pair share their first turns
            index.search(text, first_row + matches.rows, matches)
        matches.rows += 1
    return matches


def _question(prompt: Prompt) -> str:
    """What must be new to the model: the row's own question, otherwise all user turns, otherwise the text."""
    if prompt.question is not None:
        return prompt.question
    turns = [text for turn in prompt.messages or () if turn["role"] in USER for text in turn_texts(turn)]
    return "\n".join(turns) or prompt.text


def _grams(words: Sequence[str], n: int = NGRAM) -> Iterator[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(n)), strict=False)


def _wording(prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> dict[str, set[int]]:
    """task -> hashes of the 8-grams that are the task's wording, not a prompt's content."""
    wording = {}
    for task, size in Counter(p.task for p in prompts).items():
        counts: Counter[int] = Counter()
        for prompt, words_of_prompt in zip(prompts, words, strict=True):
            if prompt.task == task:
                counts.update(set(map(hash, _grams(words_of_prompt, WORDING))))
        wording[task] = {gram for gram, n in counts.items() if n >= 3 and n > size / 10}
    return wording


def _content(words: Sequence[str], wording: set[int]) -> list[int]:
    """Start positions of the 13-grams of a prompt that contain none of its task's wording."""
    shared = [False] * len(words)
    for start, gram in enumerate(_grams(words, WORDING)):
        if wording and hash(gram) in wording:
            shared[start : start + WORDING] = [True] * WORDING
    return [s for s in range(len(words) - NGRAM + 1) if not any(shared[s : s + NGRAM])]
