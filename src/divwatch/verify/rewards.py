"""TRL reward functions as verifiers, and verifiers as TRL reward functions."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.records import Prompt
from divwatch.verify.judgement import Judgement, Verifier, unsaid
from divwatch.verify.thinking import final_answer

_SPEC = re.compile(r"(?P<module>[\w.]+):(?P<name>[\w.]+)\s*(?:>=\s*(?P<threshold>[-+.\deE]+))?")
THRESHOLD = 0.5
_BATCH = 32  # answers in one call
_SECONDS = 120.0  # for one call
_PATIENCE = 3  # calls that hang before the rest is left
_GIVEN = {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments"}

Reward = Callable[..., Sequence[float | None]]


# a reward function as a verifier


def reward_verifier(spec: str | Reward, seconds: float = _SECONDS) -> Verifier:
    """'module:function>=0.5', or the function itself (then 0.5 is the threshold): right where the reward reaches it.

    The function is called as TRL calls it: `prompts` and `completions` in the conversational form where the prompt is a
    conversation, and columns. The columns are the keys of the references where those are dicts; else the reference goes
    by the name `reference` and by that of each argument that the function cannot do without. A reward of None is
    judged None, and so is an answer on which the function fails or takes too long (it is called in a thread; one that
    hangs is left behind).
    """
    function, threshold = _resolve(spec)

    def verifier(answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        judged: list[Judgement] = [unsaid("not reached")] * len(answers)
        caller = _Caller(function, seconds)
        for conversational in (False, True):
            rows = [i for i, p in enumerate(prompts) if (p.messages is not None) == conversational]
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                found = caller.rewards([answers[i] for i in part], [prompts[i] for i in part])
                for i, reward in zip(part, found, strict=True):
                    judged[i] = reward if isinstance(reward, Judgement) else Judgement(reward >= threshold, None)
        return judged

    return verifier


def _resolve(spec: str | Reward) -> tuple[Reward, float]:
    if callable(spec):
        return spec, THRESHOLD
    found = _SPEC.fullmatch(spec.strip())
    try:
        assert found is not None
        function: Any = importlib.import_module(found["module"])
        for name in found["name"].split("."):
            function = getattr(function, name)
        threshold = THRESHOLD if found["threshold"] is None else float(found["threshold"])
    except (AssertionError, ImportError, AttributeError, ValueError) as error:
        raise DivwatchError(f"verifier {spec!r} cannot be used ({error}): give 'module:function>=0.5'") from None
    if not callable(function):
        raise DivwatchError(f"verifier {spec!r} is no function: give 'module:function>=0.5'")
    return function, threshold


class _Caller:
    """Calls the function on batches, and answer by answer where a batch fails, until it has hung too often."""

    def __init__(self, function: Reward, seconds: float) -> None:
        self.function, self.seconds, self.hung = function, seconds, 0

    def rewards(self, answers: Sequence[str], prompts: Sequence[Prompt]) -> list[float | Judgement]:
        """A reward an answer, or a judgement where there is none."""
        if self.hung >= _PATIENCE:
            return [unsaid(f"not tried after {self.hung} calls that hung")] * len(answers)
        # One more than there should be shows a wrong number; a generator may have no end.
        most = len(answers) + 1
        result = _within(
            self.seconds, lambda: list(islice(self.function(**_arguments(self.function, answers, prompts)), most))
        )
        if isinstance(result, list) and len(result) == len(answers):
            # NaN is what TRL makes of None.
            return [unsaid(f"the reward is {r}") if r is None or float(r) != float(r) else float(r) for r in result]
        if isinstance(result, list):
            result = ValueError(f"{len(result)} rewards for {len(answers)} answers")
        self.hung += isinstance(result, TimeoutError)
        if len(answers) == 1:
            return [unsaid(result)]
        return [r for answer, prompt in zip(answers, prompts, strict=True) for r in self.rewards([answer], [prompt])]


def _arguments(function: Reward, answers: Sequence[str], prompts: Sequence[Prompt]) -> dict[str, Any]:
    conversational = prompts[0].messages is not None
    given: dict[str, Any] = {
        "prompts": [p.messages if conversational else p.text for p in prompts],
        "completions": [[{"role": "assistant", "content": a}] if conversational else a for a in answers],
        "reference": [p.reference for p in prompts],
    }
    for prompt in prompts:
        if isinstance(prompt.reference, Mapping):
            for key in prompt.reference:
                given.setdefault(
                    key, [p.reference.get(key) if isinstance(p.reference, Mapping) else None for p in prompts]
                )
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and parameter.name not in _GIVEN:
            given.setdefault(parameter.name, given["reference"])
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return given
    return {p.name: given[p.name] for p in parameters if p.name in given}


def _within(seconds: float, act: Callable[[], Any]) -> Any:
    """What `act` returns, or the exception it raised, TimeoutError where it takes longer; never raises."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(act())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True, name="divwatch-reward")
    thread.start()
    thread.join(seconds)
    return found[0] if found else TimeoutError(f"timed out after {seconds:g} s")


# a verifier as a reward function


def as_reward(
    verifier: str | Verifier, reference_column: str | None = "reference", *, unsafe_code: bool = False
) -> Callable[..., list[float | None]]:
    """A TRL reward function: 1.0 for a right answer, 0.0 for a wrong one, None (TRL leaves it out) where it cannot be said.

    `reference_column` names the data set's column that the verifier compares with; None gives it the whole row as a dict
    (HumanEval, MBPP, IFEval, TruthfulQA). Reasoning before `</think>` is no part of the answer, an unclosed thought has
    none: 0.0.

    >>> reward = as_reward("gsm8k", "answer")
    >>> reward(completions=["So 5.", [{"role": "assistant", "content": "It is 6."}]], answer=["#### 5", "#### 7"])
    [1.0, 0.0]
    """
    if isinstance(verifier, str):
        from divwatch.verify import get_verifier

        name, judge = verifier, get_verifier(verifier, unsafe_code=unsafe_code)
    else:
        name, judge = getattr(verifier, "__name__", "verifier"), verifier

    def reward(completions: Sequence[Any], prompts: Sequence[Any] | None = None, **columns: Any) -> list[float | None]:
        rows = _rows(completions, prompts, columns, reference_column)
        answers = [final_answer(_text(c)) for c in completions]
        at = [i for i, answer in enumerate(answers) if answer]
        values: list[float | None] = [0.0] * len(answers)
        for i, judged in zip(at, judge([answers[i] or "" for i in at], [rows[i] for i in at]), strict=True):
            values[i] = None if judged.correct is None else float(judged.correct)
        return values

    reward.__name__ = re.sub(r"\W+", "_", name)  # the name under which TRL logs it
    return reward


def verified(dataset: Any, *, unsafe_code: bool = False) -> Callable[..., list[float | None]]:
    """A TRL reward function over rows that each name their `verifier`, with its `reference` as JSON beside it.

    Every verifier that the rows name is looked up here, before training. A row without one is not scored: None.
    Raises DivwatchError where the columns are missing, a verifier is unknown or not configured, or no row names one.
    """
    from divwatch.verify import get_verifier

    missing = [name for name in ("verifier", "reference") if name not in dataset.column_names]
    if missing:
        raise DivwatchError(
            f"the RL rows have no column {', '.join(missing)} (there are {', '.join(dataset.column_names)}): give each row "
            "a verifier's name and its reference, or a reward function of your own"
        )
    names = sorted({name for name in dataset.unique("verifier") if name})
    if not names:
        raise DivwatchError("no RL row names a verifier: nothing could be rewarded")
    rewards = {name: as_reward(get_verifier(name, unsafe_code=unsafe_code)) for name in names}

    def right_answer(
        completions: Sequence[Any],
        prompts: Sequence[Any],
        verifier: Sequence[str | None],
        reference: Sequence[str],
        **_: Any,
    ) -> list[float | None]:
        values: list[float | None] = [None] * len(completions)
        for name in names:
            at = [i for i, asked in enumerate(verifier) if asked == name]
            columns = {"reference": [json.loads(reference[i]) for i in at]}
            given = rewards[name]([completions[i] for i in at], [prompts[i] for i in at], **columns)
            for i, value in zip(at, given, strict=True):
                values[i] = value
        return values

    return right_answer


def _rows(
    completions: Sequence[Any], prompts: Any, columns: dict[str, Any], reference_column: str | None
) -> list[Prompt]:
    n = len(completions)
    full = {name: c for name, c in columns.items() if isinstance(c, list | tuple) and len(c) == n}
    if reference_column is not None and reference_column not in full:
        raise DivwatchError(
            f"there is no column {reference_column!r} among {', '.join(full) or 'none'}: name the right one"
        )
    made = []
    for i in range(n):
        asked = "" if prompts is None else prompts[i]
        reference = (
            {name: column[i] for name, column in full.items()}
            if reference_column is None
            else full[reference_column][i]
        )
        if reference_column is None:
            reference.setdefault("prompt", asked if isinstance(asked, str) else _text(asked))
        messages = None if isinstance(asked, str) else list(asked)
        made.append(Prompt(str(i), "", _text(asked), messages, reference))
    return made


def _text(said: Any) -> str:
    """The text of a completion or prompt in the plain or the conversational form (its last turn)."""
    return said if isinstance(said, str) else str(said[-1]["content"]) if said else ""
