"""Is the panel held out? 13-gram overlap of its prompts with the training rows, in one pass over them.

A prompt is contaminated when 13 words running of it stand in one text of a training row, whatever their case and
punctuation (13 as in the paper's Table 19 and GPT-3's appendix C). A prompt of fewer words is its own n-gram: it counts
when all of it stands there. Words are runs of letters and digits, so a script without spaces is compared sentence by
sentence. System turns are left out, and so is a task's wording, which training rows may share without harm: 8 words
running that are in more than a tenth of its prompts, and in three at least. A prompt in which no 13 words running are
left is looked for as a whole, wording included.

Only the panel is held in memory (its n-grams, by hash); rows stream through. `held_out.py` runs the search.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.records import Prompt

NGRAM = 13
STRIDE = 7  # 2 * 7 - 1 = 13: every 13 words hold 7 that start at a multiple of 7
WORDING = 8
# What the columns of TRL's data formats hold: texts or turns, and token ids once a trainer has tokenised them.
TEXT_COLUMNS = ("text", "prompt", "completion", "messages", "chosen", "rejected", "conversations")
TOKEN_COLUMNS = ("input_ids", "prompt_ids", "completion_ids", "chosen_ids", "rejected_ids")
_WORD = re.compile(r"[^\W_]+")
_ROWS_AT_A_TIME = 1000
RULES = 1  # a cached result of other rules is not used: count up with each change here

Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class TaskOverlap:
    """prompts: looked for. contaminated: found. coverage: mean share of a prompt's words in n-grams that were found."""

    prompts: int
    contaminated: int
    coverage: float

    @property
    def share(self) -> float:
        """Contaminated prompts as a share of all."""
        return self.contaminated / self.prompts


@dataclass(frozen=True)
class OverlapReport:
    """`contaminated`: id of each prompt that was found -> index of the first training row that holds it."""

    contaminated: dict[str, int]
    by_task: dict[str, TaskOverlap]
    rows: int
    seconds: float
    panel: str
    dataset: str | None = None
    cached: bool = field(default=False, compare=False)

    def held_out(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that were not found. Raises DivwatchError where none is left."""
        kept = [p for p in prompts if p.id not in self.contaminated]
        if prompts and not kept:
            raise DivwatchError(
                f"all {len(prompts)} prompts of the panel are in the training data: choose another watch_panel, or set "
                "watch_held_out to report"
            )
        return kept

    @property
    def line(self) -> str:
        """The finding in one line."""
        found, total = len(self.contaminated), sum(t.prompts for t in self.by_task.values())
        tasks = [f"{task} {t.contaminated}/{t.prompts}" for task, t in self.by_task.items() if t.contaminated]
        where = f": {', '.join(tasks)}" if tasks else ""
        return f"held out: {found} of {total} prompts overlap the {self.rows:,} training rows{where}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Found:
    """What a pass has found: prompt -> first row, prompt -> positions of its words that were covered, rows read."""

    first: dict[int, int] = field(default_factory=dict)
    covered: dict[int, set[int]] = field(default_factory=dict)
    rows: int = 0

    def add(self, prompt: int, words: range, row: int) -> None:
        self.first[prompt] = min(row, self.first.get(prompt, row))
        self.covered.setdefault(prompt, set()).update(words)

    def merge(self, other: Found) -> None:
        for prompt, row in other.first.items():
            self.first[prompt] = min(row, self.first.get(prompt, row))
            self.covered.setdefault(prompt, set()).update(other.covered[prompt])
        self.rows += other.rows


class PanelIndex:
    """The panel's n-grams by hash, and the prompts that are looked for as a whole by their longest word.

    Seven words in a row that start at a multiple of 7 lie in every 13 words of a text, so a text none of whose such sevens is
    in the panel holds no 13-gram of it: nearly every text is done with after a seventh of the look-ups. The longest word
    of a whole prompt stands for the rarest: a text without it is done with at once. Hashes are Python's, 64 bits: the
    chance of a false hit in a billion texts' n-grams against a million of the panel's is about 1e-2.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        import numpy as np

        self.prompts = list(prompts)
        self.words = [words_of(_asked_text(p)) for p in prompts]
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
        found = np.frombuffer(grams, dtype=np.int64) if grams else np.empty(0, np.int64)
        order = np.argsort(found, kind="stable")
        self.grams = found[order]
        self.places = (np.frombuffer(places, dtype=np.int64) if grams else np.empty(0, np.int64)).reshape(-1, 2)[order]

    def search(self, text: str, row: int, found: Found) -> None:
        """Adds to `found` what stands in one text of a training row."""
        words = words_of(text)
        if not self.sevens.isdisjoint(map(hash, zip(*(words[j::STRIDE] for j in range(STRIDE)), strict=False))):
            self._search_grams(words, row, found)
        if not self.whole.keys().isdisjoint(words):
            self._search_whole(words, row, found)

    def _search_grams(self, words: list[str], row: int, found: Found) -> None:
        import numpy as np

        hashes = np.fromiter(map(hash, _grams(words)), dtype=np.int64)
        low = np.searchsorted(self.grams, hashes, "left")
        high = np.searchsorted(self.grams, hashes, "right")
        for i in np.flatnonzero(high > low):
            for prompt, start in self.places[low[i] : high[i]].tolist():
                found.add(prompt, range(start, start + NGRAM), row)

    def _search_whole(self, words: list[str], row: int, found: Found) -> None:
        for place, word in enumerate(words):
            for prompt, offset in self.whole.get(word, ()):
                start, wanted = place - offset, self.words[prompt]
                if start >= 0 and words[start : start + len(wanted)] == wanted:
                    found.add(prompt, range(len(wanted)), row)


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, lower-cased.

    >>> words_of("Don't STOP (now)!") == words_of("don’t stop, now")
    True
    """
    return _WORD.findall(text.lower())


def texts_of(row: dict[str, Any], decode: Decode | None = None) -> Iterator[str]:
    """The texts of a training row in any of TRL's formats, each turn by itself, system turns left out.

    >>> list(texts_of({"prompt": "Why?", "completion": [{"role": "assistant", "content": "So."}]}))
    ['Why?', 'So.']
    """
    for name in TEXT_COLUMNS:
        value = row.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (t for turn in value if isinstance(turn, dict) for t in _turn_texts(turn))
    if decode is not None and not any(row.get(name) for name in TEXT_COLUMNS):
        yield from (decode(row[name]) for name in TOKEN_COLUMNS if row.get(name))


def _turn_texts(turn: dict[str, Any]) -> Iterator[str]:
    content = turn.get("content", turn.get("value"))
    if turn.get("role", turn.get("from")) == "system" or content is None:
        return
    if isinstance(content, str):
        yield content
    else:  # parts, as of a multimodal turn
        yield from (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def scan(index: PanelIndex, rows: Any, decode: Decode | None = None, first_row: int = 0) -> Found:
    """One pass over `rows`; memory does not grow with them."""
    found = Found()
    for row in _streamed(rows, decode):
        for text in dict.fromkeys(texts_of(row, decode)):  # a pair's two conversations share their first turns
            index.search(text, first_row + found.rows, found)
        found.rows += 1
    return found


def _streamed(rows: Any, decode: Decode | None) -> Iterator[dict[str, Any]]:
    """Rows one by one, a Dataset's read in batches and only in the columns that matter."""
    columns = getattr(rows, "column_names", None)
    if columns:
        _refuse_textless(columns, decode)
    if not hasattr(rows, "select_columns") or not columns:
        for number, row in enumerate(rows):
            if not number:
                _refuse_textless(list(row), decode)
            yield row
        return
    wanted = [c for c in TEXT_COLUMNS if c in columns] or [c for c in TOKEN_COLUMNS if c in columns]
    for batch in rows.select_columns(wanted).with_format(None).iter(batch_size=_ROWS_AT_A_TIME):
        for values in zip(*(batch[c] for c in wanted), strict=True):
            yield dict(zip(wanted, values, strict=True))


def _refuse_textless(columns: Sequence[str], decode: Decode | None) -> None:
    if any(c in TEXT_COLUMNS for c in columns) or (decode and any(c in TOKEN_COLUMNS for c in columns)):
        return
    raise DivwatchError(
        f"the training rows have the columns {', '.join(columns)}, none of them text: held-out prompts are checked against "
        f"{', '.join(TEXT_COLUMNS)}; set watch_held_out: off to train without the check"
    )


def _asked_text(prompt: Prompt) -> str:
    """What must be new to the model: the task's own question, else every user turn, else the text."""
    if prompt.question is not None:
        return prompt.question
    turns = [m["content"] for m in prompt.messages or () if m["role"] == "user"]
    return "\n".join(turns) or prompt.text


def _grams(words: Sequence[str], n: int = NGRAM) -> Iterator[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(n)), strict=False)


def _wording(prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> dict[str, set[int]]:
    """task -> hashes of the 8-grams that are the task's wording rather than a prompt's content."""
    found = {}
    for task, size in Counter(p.task for p in prompts).items():
        counts: Counter[int] = Counter()
        for prompt, own in zip(prompts, words, strict=True):
            if prompt.task == task:
                counts.update(set(map(hash, _grams(own, WORDING))))
        found[task] = {gram for gram, n in counts.items() if n >= 3 and n > size / 10}
    return found


def _content(words: Sequence[str], wording: set[int]) -> list[int]:
    """Where the n-grams of a prompt start that hold none of its task's wording."""
    shared = [False] * len(words)
    for start, gram in enumerate(_grams(words, WORDING)):
        if wording and hash(gram) in wording:
            shared[start : start + WORDING] = [True] * WORDING
    return [s for s in range(len(words) - NGRAM + 1) if not any(shared[s : s + NGRAM])]


def make_report(index: PanelIndex, found: Found, seconds: float, panel: str, data: str | None) -> OverlapReport:
    """panel, data: the fingerprints of what was compared (data: None where it has none). seconds: that the search took."""
    by_task: dict[str, TaskOverlap] = {}
    for task in dict.fromkeys(p.task for p in index.prompts):
        mine = [i for i, p in enumerate(index.prompts) if p.task == task]
        coverage = [len(found.covered.get(i, ())) / max(1, len(index.words[i])) for i in mine]
        by_task[task] = TaskOverlap(len(mine), sum(i in found.first for i in mine), sum(coverage) / len(mine))
    contaminated = {index.prompts[i].id: row for i, row in sorted(found.first.items())}
    return OverlapReport(contaminated, by_task, found.rows, round(seconds, 3), panel, data)
