"""What a verifier says of one answer, and what a verifier is.

The verifiers that can be read alone judge one answer: (answer, reference) -> Judgement. What the rest of divwatch calls
judges many at once, because code runs many programs side by side and a reward model has batches: (answers, prompts) ->
judgements. `each` makes the second from the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from divwatch.errors import one_line
from divwatch.records import Prompt


class Judgement(NamedTuple):
    """`correct`: True, False, or None where it cannot be said; `reason` then says why.

    `answer`: the canonical answer, None if none was parsed or the task has no canonical form.
    """

    correct: bool | None
    answer: str | None
    reason: str | None = None


Verifier = Callable[[Sequence[str], Sequence[Prompt]], list[Judgement]]


def each(judge: Callable[[str, Any], Judgement]) -> Verifier:
    """A verifier that judges one answer at a time by the prompt's reference; an answer on which it fails is None.

    >>> from divwatch.verify.text import exact
    >>> [j.correct for j in each(exact)(["yes", "no"], [Prompt("a", "t", "?", reference="yes")] * 2)]
    [True, False]
    """

    def verifier(answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        return [attempt(judge, a, p.reference) for a, p in zip(answers, prompts, strict=True)]

    return verifier


def attempt(judge: Callable[[str, Any], Judgement], answer: str, reference: Any) -> Judgement:
    """The judgement, or None with the error's first line as its reason."""
    try:
        return judge(answer, reference)
    except Exception as error:
        return unsaid(error)


def unsaid(why: Exception | str) -> Judgement:
    """The judgement of an answer that could not be judged."""
    if isinstance(why, Exception):
        why = one_line(why)
    return Judgement(None, None, why[:200])
