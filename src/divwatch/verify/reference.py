"""What each verifier needs as reference: an answer whose reference is missing or unreadable is not judged, never wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from divwatch.records import Prompt, Verification
from divwatch.verify.text import final_number
from divwatch.verify.verifier import Verifier, unverified

NOTHING = "the prompt has no reference"


def reference_problem(verifier: str, reference: Any) -> str | None:
    """Why the verifier of this name cannot compare an answer with `reference`; None if it can, or needs none.

    >>> reference_problem("gsm8k", None), reference_problem("gsm8k", "#### 7"), reference_problem("judge", None)
    ('the prompt has no reference', None, None)
    >>> reference_problem("truthfulqa", {"correct_answers": ["Nothing"]})
    "the reference has no 'incorrect_answers'"
    """
    check = _CHECKS.get(verifier)
    if check is None:
        return None
    if reference is None or (isinstance(reference, str | list | tuple | Mapping) and not reference):
        return NOTHING
    if isinstance(reference, str) and not reference.strip():
        return NOTHING
    return check(_as_row(reference))


def checking_references(name: str, verifier: Verifier) -> Verifier:
    """The verifier `name`, which asks `verifier` only about prompts whose reference it can read."""

    def checked(answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Verification]:
        problems = [reference_problem(name, prompt.reference) for prompt in prompts]
        sound = [i for i, problem in enumerate(problems) if problem is None]
        asked = [replace(prompts[i], reference=_as_row(prompts[i].reference)) for i in sound]
        results = iter(verifier([answers[i] for i in sound], asked) if sound else [])
        return [unverified(problem) if problem else next(results) for problem in problems]

    return checked


def _as_row(reference: Any) -> Any:
    """A row that a data set stores as JSON text, as a row; anything else as it is."""
    if isinstance(reference, str) and reference.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            row = json.loads(reference)
            return row if isinstance(row, dict) else reference
    return reference


def _text(reference: Any) -> str | None:
    scalar = isinstance(reference, str | int | float) and not isinstance(reference, bool)
    return None if scalar else f"the reference is no text but a {type(reference).__name__}"


def _number(reference: Any) -> str | None:
    return None if final_number(str(reference)) is not None else "the reference has no number"


def _text_or(*names: str) -> Callable[[Any], str | None]:
    """A text, or a row with one of these fields."""

    def check(reference: Any) -> str | None:
        if isinstance(reference, Mapping):
            return None if any(reference.get(name) for name in names) else f"the reference has no {names[0]!r}"
        return _text(reference)

    return check


def _row_with(*names: str) -> Callable[[Any], str | None]:
    """A row that has all these fields, none of them empty."""

    def check(reference: Any) -> str | None:
        if not isinstance(reference, Mapping):
            return f"the reference is no row with {', '.join(names)}"
        missing = [name for name in names if not reference.get(name)]
        return f"the reference has no {missing[0]!r}" if missing else None

    return check


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "exact": _text,
    "gsm8k": _number,
    "math": _text_or("answer", "solution"),
    "cruxeval": _text_or("output"),
    "ifeval": _row_with("instruction_id_list", "kwargs"),
    "ifeval_google": _row_with("instruction_id_list", "kwargs"),
    "ifeval_loose": _row_with("instruction_id_list", "kwargs"),
    "truthfulqa": _row_with("correct_answers", "incorrect_answers"),
    "humaneval": _row_with("prompt", "test", "entry_point"),
    "mbpp": _row_with("test_list"),
    "tiny": _row_with("task", "content"),
}
