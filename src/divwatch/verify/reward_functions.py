"""A TRL reward function as a verifier: an answer is correct where its reward reaches a threshold."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.records import Prompt, Verification
from divwatch.threads import BackgroundThread
from divwatch.verify.verifier import Verifier, unverified

_SPEC = re.compile(r"(?P<module>[\w.]+):(?P<name>[\w.]+)\s*(?:>=\s*(?P<threshold>[-+.\deE]+))?")
THRESHOLD = 0.5
_BATCH = 32  # answers in one call
_SECONDS = 120.0  # for one call
_PATIENCE = 3  # calls that hang before the remaining answers are skipped
# Arguments that TRL passes itself: never filled with the reference.
_OF_TRAINER = {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments"}

Reward = Callable[..., Sequence[float | None]]


def reward_verifier(spec: str | Reward, seconds: float = _SECONDS) -> Verifier:
    """A verifier of 'module:function>=0.5', or of the function itself (threshold 0.5): correct where the reward reaches it.

    The function is called as TRL calls it, with batches of up to 32: `prompts` and `completions`, in the conversational
    form where the prompt is a conversation, and the data set's columns. The columns are the keys of the references if
    those are dicts; otherwise the reference is passed as `reference` and under the name of each required argument.

    An answer is unverified (`correct=None`) if its reward is None or NaN, if the function raises, or if a call takes
    longer than `seconds`. A call runs in a thread; one that hangs is abandoned there, and after three such calls the
    remaining answers are not tried.

    Raises DivwatchError for a spec that cannot be imported.
    """
    function, threshold = _resolve(spec)

    def verifier(answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Verification]:
        results: list[Verification] = [unverified("not reached")] * len(answers)
        caller = _Caller(function, seconds)
        for conversational in (False, True):
            rows = [i for i, p in enumerate(prompts) if (p.messages is not None) == conversational]
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                rewards = caller.rewards([answers[i] for i in batch], [prompts[i] for i in batch])
                for i, reward in zip(batch, rewards, strict=True):
                    results[i] = reward if isinstance(reward, Verification) else Verification(reward >= threshold, None)
        return results

    return verifier


def _resolve(spec: str | Reward) -> tuple[Reward, float]:
    if callable(spec):
        return spec, THRESHOLD
    match = _SPEC.fullmatch(spec.strip())
    try:
        assert match is not None
        _find_in_working_directory()
        function: Any = importlib.import_module(match["module"])
        for name in match["name"].split("."):
            function = getattr(function, name)
        threshold = THRESHOLD if match["threshold"] is None else float(match["threshold"])
    except AssertionError:
        raise DivwatchError(f"verifier {spec!r} cannot be read: give 'module:function>=0.5'") from None
    except Exception as error:  # the module is the user's: importing it can raise anything
        where = f"give 'module:function>=0.5', with the module in {os.getcwd()} or installed"
        raise DivwatchError(f"verifier {spec!r} cannot be used ({one_line(error)}): {where}") from None
    if not callable(function):
        raise DivwatchError(f"verifier {spec!r} is not a function: give 'module:function>=0.5'")
    return function, threshold


def _find_in_working_directory() -> None:
    """Lets modules of the working directory be imported, as `python -m` does; a command's own path has its script's folder."""
    here = os.getcwd()
    if not {here, ""} & set(sys.path):
        sys.path.insert(0, here)


class _Caller:
    """Calls the function on batches, and answer by answer where a batch fails, until it has hung too often."""

    def __init__(self, function: Reward, seconds: float) -> None:
        self.function, self.seconds, self.hung = function, seconds, 0

    def rewards(self, answers: Sequence[str], prompts: Sequence[Prompt]) -> list[float | Verification]:
        """One reward per answer; a Verification without a result where there is none."""
        if self.hung >= _PATIENCE:
            return [unverified(f"not tried after {self.hung} calls that hung")] * len(answers)
        # One more than there should be shows a wrong number; a generator may have no end.
        most = len(answers) + 1
        result = _within(
            self.seconds, lambda: list(islice(self.function(**_arguments(self.function, answers, prompts)), most))
        )
        if isinstance(result, list) and len(result) == len(answers):
            # NaN is what TRL makes of None.
            return [unverified(f"the reward is {r}") if r is None or float(r) != float(r) else float(r) for r in result]
        if isinstance(result, list):
            result = ValueError(f"{len(result)} rewards for {len(answers)} answers")
        self.hung += isinstance(result, TimeoutError)
        if len(answers) == 1:
            return [unverified(result)]
        return [r for answer, prompt in zip(answers, prompts, strict=True) for r in self.rewards([answer], [prompt])]


def _arguments(function: Reward, answers: Sequence[str], prompts: Sequence[Prompt]) -> dict[str, Any]:
    conversational = prompts[0].messages is not None
    arguments: dict[str, Any] = {
        "prompts": [p.messages if conversational else p.text for p in prompts],
        "completions": [[{"role": "assistant", "content": a}] if conversational else a for a in answers],
        "reference": [p.reference for p in prompts],
    }
    for prompt in prompts:
        if isinstance(prompt.reference, Mapping):
            for key in prompt.reference:
                arguments.setdefault(
                    key, [p.reference.get(key) if isinstance(p.reference, Mapping) else None for p in prompts]
                )
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and parameter.name not in _OF_TRAINER:
            arguments.setdefault(parameter.name, arguments["reference"])
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return arguments
    return {p.name: arguments[p.name] for p in parameters if p.name in arguments}


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns, or the exception that it raised, or TimeoutError where it takes longer; never raises."""
    thread = BackgroundThread("divwatch reward")
    future = thread.submit(call)
    if thread.close(seconds):
        return TimeoutError(f"timed out after {seconds:g} s")
    error = future.exception()
    if error is None:
        return future.result()
    return error if isinstance(error, Exception) else RuntimeError(one_line(error))  # SystemExit
