"""Where the paper's code goes its own way: what `--preset paper` does instead of what the rest of the package does.

The code: ckarouzos/where-diversity-collapses at f193bfa. Its metrics themselves (EAD, SBERT, NLI, Vendi, AST) are those
of this package, computed over all K outputs, the broken ones included.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Hashable, Sequence

_OPEN, _CLOSE = "<think>", "</think>"
_UNPARSED = object()
_FENCED = re.compile(r"```(?:python)?\s*\n(.*?)```", re.DOTALL)


def strip_cot(text: str) -> str:
    """The answer as the paper's code cuts it out. A thought that never closed stays and counts as the answer.

    >>> strip_cot("<think>why</think> 42 "), strip_cot("why</think>42"), strip_cot("<think>why")
    ('42', '42', '<think>why')
    """
    while _OPEN in text and (end := text.find(_CLOSE, text.find(_OPEN))) != -1:
        text = text[: text.find(_OPEN)] + text[end + len(_CLOSE) :]
    if _CLOSE in text and _OPEN not in text:
        text = text.partition(_CLOSE)[2]
    return text.strip()


def longest_block(text: str) -> str:
    """The code that the paper's AST metric compares: whatever stands longest between two fences, else all of the text."""
    blocks = _FENCED.findall(text)
    return max(blocks, key=len).strip() if blocks else text


def first_is_correct(correct: Sequence[bool]) -> float:
    """accuracy@1 of a prompt: whether the first sample is correct. Unbiased, noisier than the share."""
    return float(correct[0])


def majority(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    """majority@K of a prompt: unparsed answers vote as one answer of their own, and a tie for first place is wrong.

    >>> majority(["4", "4", "5"], [True, True, False]), majority(["4", "5"], [True, False])
    (1.0, 0.0)
    """
    votes = Counter(_UNPARSED if a is None else a for a in answers).most_common(2)
    if len(votes) == 2 and votes[0][1] == votes[1][1]:
        return 0.0
    winner = votes[0][0]
    return 0.0 if winner is _UNPARSED else float(correct[list(answers).index(winner)])


def sentence_rng() -> random.Random:
    """What draws sentences for NLI, prompt after prompt: as a fresh evaluator with the code's default seed."""
    return random.Random(1234)
