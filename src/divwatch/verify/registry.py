"""Verifiers by name: the one place that knows which there are. A new one is a module of this package and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.records import Prompt
from divwatch.tiny import panel as tiny
from divwatch.verify.child_process import in_child_process
from divwatch.verify.code import code_verifier, humaneval_job, mbpp_job
from divwatch.verify.endpoint import GOOD, judge_verifier
from divwatch.verify.literal import cruxeval
from divwatch.verify.reference import checking_references
from divwatch.verify.reward_functions import reward_verifier
from divwatch.verify.text import exact, gsm8k
from divwatch.verify.verifier import Verifier, per_answer

# Verifiers of text. `in_child_process` imports its module in the child, never here.
_OF_TEXT: dict[str, Verifier] = {
    "exact": per_answer(exact),
    "gsm8k": per_answer(gsm8k),
    "math": in_child_process("divwatch.verify.maths", "math"),
    "cruxeval": per_answer(cruxeval),
    "ifeval": in_child_process("divwatch.verify.ifeval", "ifeval"),
    "ifeval_google": in_child_process("divwatch.verify.ifeval", "ifeval_google"),
    "ifeval_loose": in_child_process("divwatch.verify.ifeval", "ifeval_loose"),
    "truthfulqa": in_child_process("divwatch.verify.truthfulqa", "truthfulqa"),
    "tiny": per_answer(tiny.verify),
}
# Verifiers that run the answer as a program: the function makes the job for the sandbox.
_OF_CODE = {"humaneval": humaneval_job, "mbpp": mbpp_job}

NAMES = (*_OF_TEXT, *_OF_CODE, "judge")


def get_verifier(spec: str | Callable[..., Any], *, unsafe_code: bool = False) -> Verifier:
    """The verifier of a name, of 'module:function>=0.5' (a TRL reward function), or of a reward function itself.

    Raises DivwatchError for an unknown name, for code without a sandbox (unless `unsafe_code`), and for `judge`
    (or `judge>=8`) without an endpoint.
    """
    if not isinstance(spec, str) or ":" in spec:
        return reward_verifier(spec)
    if spec in _OF_TEXT:
        return checking_references(spec, _OF_TEXT[spec])
    if spec in _OF_CODE:
        return checking_references(spec, code_verifier(_OF_CODE[spec], unsafe_code=unsafe_code))
    name, _, threshold = spec.partition(">=")
    if name == "judge":
        return judge_verifier(_number(spec, threshold) if threshold else GOOD)
    raise DivwatchError(
        f"unknown verifier {spec!r}: choose from {', '.join(sorted(NAMES))}, or give module:function>=0.5"
    )


def check_verifiers(prompts: Sequence[Prompt], *, unsafe_code: bool = False) -> None:
    """Raises DivwatchError unless every verifier that the prompts name exists and can run. Call before the first look."""
    for spec in dict.fromkeys(p.verifier for p in prompts):
        if spec is not None:
            get_verifier(spec, unsafe_code=unsafe_code)


def _number(spec: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DivwatchError(f"verifier {spec!r} has no number after '>=': write judge>=7") from None
