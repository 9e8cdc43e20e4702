"""Verifiers as TRL reward functions: `as_reward` for one verifier, `reward_by_row` for rows that each name theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.records import Prompt
from divwatch.verify.registry import get_verifier
from divwatch.verify.thinking import final_answer
from divwatch.verify.verifier import Verifier


def as_reward(
    verifier: str | Verifier, reference_column: str | None = "reference", *, unsafe_code: bool = False
) -> Callable[..., list[float | None]]:
    """A TRL reward function: 1.0 for a correct answer, 0.0 for a wrong one, None (TRL skips it) if it is not verifiable.

    verifier:         a name, or a verifier.
    reference_column: the data set's column that the verifier compares with; None passes the whole row as a dict
                      (HumanEval, MBPP, IFEval, TruthfulQA).
    unsafe_code:      run programs without a sandbox where there is none.

    Reasoning before `</think>` is not part of the answer. A thought that never closes has no answer: 0.0.
    Raises DivwatchError for an unknown verifier, and when called without the reference column.

    >>> reward = as_reward("gsm8k", "answer")
    >>> reward(completions=["So 5.", [{"role": "assistant", "content": "It is 6."}]], answer=["#### 5", "#### 7"])
    [1.0, 0.0]
    """
    if isinstance(verifier, str):
        name, verify = verifier, get_verifier(verifier, unsafe_code=unsafe_code)
    else:
        name, verify = getattr(verifier, "__name__", "verifier"), verifier

    def reward(completions: Sequence[Any], prompts: Sequence[Any] | None = None, **columns: Any) -> list[float | None]:
        rows = _rows(completions, prompts, columns, reference_column)
        answers = [final_answer(_text(c)) for c in completions]
        at = [i for i, answer in enumerate(answers) if answer]
        values: list[float | None] = [0.0] * len(answers)
        for i, result in zip(at, verify([answers[i] or "" for i in at], [rows[i] for i in at]), strict=True):
            values[i] = None if result.correct is None else float(result.correct)
        return values

    reward.__name__ = re.sub(r"\W+", "_", name)  # the name under which TRL logs it
    return reward


def reward_by_row(dataset: Any, *, unsafe_code: bool = False) -> Callable[..., list[float | None]]:
    """A TRL reward function for a data set whose rows name their `verifier` and hold its `reference` as JSON.

    A row without a verifier is not scored: None. Every verifier is looked up here, before training. Raises DivwatchError
    if a column is missing, if a verifier is unknown or not configured, or if no row names one.
    """
    missing = [name for name in ("verifier", "reference") if name not in dataset.column_names]
    if missing:
        raise DivwatchError(
            f"the RL rows have no column {', '.join(missing)} (there are {', '.join(dataset.column_names)}): give each row "
            "a verifier's name and its reference, or a reward function of your own"
        )
    names = sorted({name for name in dataset.unique("verifier") if name})
    if not names:
        raise DivwatchError("no RL row names a verifier, so no answer would earn a reward: set the column verifier")
    rewards = {name: as_reward(get_verifier(name, unsafe_code=unsafe_code)) for name in names}

    def right_answer(
        completions: Sequence[Any],
        prompts: Sequence[Any],
        verifier: Sequence[str | None],
        reference: Sequence[Any],
        **_: Any,
    ) -> list[float | None]:
        values: list[float | None] = [None] * len(completions)
        for name in names:
            at = [i for i, own in enumerate(verifier) if own == name]
            columns = {"reference": [_reference(reference[i]) for i in at]}
            scores = rewards[name]([completions[i] for i in at], [prompts[i] for i in at], **columns)
            for i, value in zip(at, scores, strict=True):
                values[i] = value
        return values

    return right_answer


def _reference(value: Any) -> Any:
    """A reference of a mix, which is JSON text; of a file of the user's own, a text or a value as it is.

    >>> _reference("[1, 2]"), _reference("#### 7"), _reference(7)
    ([1, 2], '#### 7', 7)
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _rows(
    completions: Sequence[Any], prompts: Any, columns: dict[str, Any], reference_column: str | None
) -> list[Prompt]:
    n = len(completions)
    full = {name: c for name, c in columns.items() if isinstance(c, list | tuple) and len(c) == n}
    if reference_column is not None and reference_column not in full:
        raise DivwatchError(
            f"there is no column {reference_column!r} among {', '.join(full) or 'none'}: set reference_column"
        )
    rows = []
    for i in range(n):
        prompt = "" if prompts is None else prompts[i]
        reference = (
            {name: column[i] for name, column in full.items()}
            if reference_column is None
            else full[reference_column][i]
        )
        if reference_column is None:
            reference.setdefault("prompt", _text(prompt))
        messages = None if isinstance(prompt, str) else list(prompt)
        rows.append(Prompt(str(i), "", _text(prompt), messages, reference))
    return rows


def _text(content: Any) -> str:
    """The text of a prompt or completion: itself in the plain form, its last turn in the conversational form."""
    return content if isinstance(content, str) else str(content[-1]["content"]) if content else ""
