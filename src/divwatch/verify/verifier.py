"""What a verifier is: a function of many answers and their prompts that returns one `Verification` per answer.

It takes many at once because programs run side by side and a reward model wants batches. Verifiers that look at one
answer at a time are functions (answer, reference) -> Verification; `per_answer` turns such a function into a verifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from divwatch.errors import LIMIT, one_line
from divwatch.records import Prompt, Verification

Verifier = Callable[[Sequence[str], Sequence[Prompt]], list[Verification]]
AnswerCheck = Callable[[str, Any], Verification]


def per_answer(check: AnswerCheck) -> Verifier:
    """A verifier that calls `check(answer, prompt.reference)` for each answer; an error there costs that answer alone.

    >>> from divwatch.verify.text import exact
    >>> [v.correct for v in per_answer(exact)(["yes", "no"], [Prompt("a", "t", "?", reference="yes")] * 2)]
    [True, False]
    """

    def verifier(answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Verification]:
        return [verify_one(check, a, p.reference) for a, p in zip(answers, prompts, strict=True)]

    return verifier


def verify_one(check: AnswerCheck, answer: str, reference: Any) -> Verification:
    """The result of `check`, or `correct=None` with the first line of the error that it raised."""
    try:
        return check(answer, reference)
    except Exception as error:
        return unverified(error)


def run_verifier(verifier: Verifier, answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Verification]:
    """One result per answer; if the verifier itself raises, every answer is unverified for that reason."""
    if not answers:
        return []
    try:
        results = list(verifier(answers, prompts))
        if len(results) != len(answers):
            raise ValueError(f"{len(results)} results for {len(answers)} answers")
    except Exception as error:
        return [unverified(error)] * len(answers)
    return results


def unverified(reason: Exception | str) -> Verification:
    """The result for an answer that could not be verified."""
    return Verification(None, None, one_line(reason) if isinstance(reason, Exception) else reason[:LIMIT])
