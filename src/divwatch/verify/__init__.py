"""Correct or not: completions become judged samples. `judge_samples` is the way in; `get_verifier` finds a verifier.

docs/verifiers.md says what each verifier accepts and what it is worth.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.records import Completion, Prompt, PromptSamples
from divwatch.verify.judgement import Judgement, Verifier, each, unsaid
from divwatch.verify.rewards import as_reward
from divwatch.verify.thinking import final_answer

__all__ = ["NAMES", "Judgement", "Verifier", "as_reward", "check_verifiers", "get_verifier", "judge", "judge_samples"]

NAMES = (
    "exact", "gsm8k", "math", "cruxeval", "humaneval", "mbpp", "ifeval", "ifeval_loose", "truthfulqa", "tiny", "judge",
)  # fmt: skip

_log = logging.getLogger("divwatch")


def get_verifier(spec: str | Callable[..., Any], *, unsafe_code: bool = False) -> Verifier:
    """The verifier of a name, of 'module:function>=0.5' (a TRL reward function), or of a reward function itself.

    Raises DivwatchError, with the mend, for an unknown name, for code without a sandbox (unless `unsafe_code`), and for
    a judge that is not configured.
    """
    from divwatch.verify.apart import apart
    from divwatch.verify.literal import cruxeval
    from divwatch.verify.rewards import reward_verifier
    from divwatch.verify.text import exact, gsm8k

    if not isinstance(spec, str) or ":" in spec:
        return reward_verifier(spec)
    name, _, threshold = spec.partition(">=")
    if name == "tiny":
        from divwatch.tiny.panel import verify as tiny

        return each(tiny)
    if name in ("humaneval", "mbpp"):
        from divwatch.verify import code

        make_job = code.humaneval_job if name == "humaneval" else code.mbpp_job
        return code.code_verifier(make_job, unsafe_code=unsafe_code)
    if name == "judge":
        from divwatch.verify import endpoint

        return endpoint.judge_verifier(_number(spec, threshold) if threshold else endpoint.GOOD)
    verifiers = {
        "exact": each(exact),
        "gsm8k": each(gsm8k),
        "cruxeval": each(cruxeval),
        "math": apart("divwatch.verify.maths", "math"),
        "ifeval": apart("divwatch.verify.ifeval", "ifeval"),
        "ifeval_loose": apart("divwatch.verify.ifeval", "ifeval_loose"),
        "truthfulqa": apart("divwatch.verify.truthfulqa", "truthfulqa"),
    }
    if spec not in verifiers:
        raise DivwatchError(
            f"unknown verifier {spec!r}: choose from {', '.join(sorted(NAMES))}, or give module:function>=0.5"
        )
    return verifiers[spec]


def _number(spec: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DivwatchError(f"verifier {spec!r} has no number after '>=': write judge>=7") from None


def check_verifiers(prompts: Sequence[Prompt], *, unsafe_code: bool = False) -> None:
    """Before the first look: every verifier that the prompts name is there and can run. DivwatchError otherwise."""
    for spec in dict.fromkeys(p.verifier for p in prompts):
        if spec is not None:
            get_verifier(spec, unsafe_code=unsafe_code)


def judge_samples(
    prompts: Sequence[Prompt], completions: Sequence[Completion], *, unsafe_code: bool = False
) -> list[PromptSamples]:
    """One PromptSamples a prompt, in the panel's order: reasoning stripped, usable or not, correct or not.

    An answer that cannot be judged counts as wrong; a prompt none of whose usable answers can be judged has no
    `correct`: missing, not wrong. The reasons are counted in a warning, and returned by `judge`.
    """
    samples, reasons = judge(prompts, completions, unsafe_code=unsafe_code)
    if reasons:
        told = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
        _log.warning("%d of %d answers could not be judged: %s", sum(reasons.values()), len(completions), told)
    return samples


def judge(
    prompts: Sequence[Prompt], completions: Sequence[Completion], *, unsafe_code: bool = False
) -> tuple[list[PromptSamples], Counter[str]]:
    """(samples, reasons): as `judge_samples`, with how often each reason kept an answer from being judged."""
    found = _read(prompts, completions)
    asked: dict[Hashable, dict[tuple[int, str], None]] = {}
    for i, (prompt, samples) in enumerate(zip(prompts, found, strict=True)):
        if prompt.verifier is not None:
            of_verifier = asked.setdefault(prompt.verifier, {})
            of_verifier.update({(i, a): None for a, fit in zip(samples.outputs, samples.usable, strict=True) if fit})
    judged: dict[tuple[int, str], Judgement] = {}
    for spec, questions in asked.items():
        verifier = get_verifier(spec, unsafe_code=unsafe_code)  # type: ignore[arg-type]
        at = list(questions)
        judged |= zip(at, ask(verifier, [a for _, a in at], [prompts[i] for i, _ in at]), strict=True)
    reasons: Counter[str] = Counter()
    for i, prompt in enumerate(prompts):
        if prompt.verifier is not None:
            of_prompt = {a: judged[i, a] for a, fit in zip(found[i].outputs, found[i].usable, strict=True) if fit}
            found[i], unjudged = _with_judgements(found[i], of_prompt)
            reasons.update(unjudged)
    return found, reasons


def ask(verifier: Verifier, answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
    """What the verifier says; where it fails as a whole, that nothing can be said."""
    if not answers:
        return []
    try:
        judged = list(verifier(answers, prompts))
        if len(judged) != len(answers):
            raise ValueError(f"{len(judged)} judgements for {len(answers)} answers")
    except Exception as error:
        return [unsaid(error)] * len(answers)
    return judged


def _read(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[PromptSamples]:
    by_prompt: dict[str, list[Completion]] = {prompt.id: [] for prompt in prompts}
    for completion in sorted(completions, key=lambda c: c.sample):
        by_prompt[completion.prompt_id].append(completion)
    found = []
    for prompt in prompts:
        answers = [final_answer(c.text) for c in by_prompt[prompt.id]]
        usable = [c.finished and bool(a) for c, a in zip(by_prompt[prompt.id], answers, strict=True)]
        found.append(PromptSamples(prompt.id, prompt.task, [a or "" for a in answers], usable))
    return found


def _with_judgements(samples: PromptSamples, of: dict[str, Judgement]) -> tuple[PromptSamples, list[str]]:
    judged = [of[a] if fit else None for a, fit in zip(samples.outputs, samples.usable, strict=True)]
    said = [j for j in judged if j is not None]
    reasons = [j.reason or "no reason given" for j in said if j.correct is None]
    if said and len(reasons) == len(said):
        return samples, reasons
    answers = [None if j is None else j.answer for j in judged]
    return (
        replace(
            samples,
            correct=[j is not None and bool(j.correct) for j in judged],
            answers=answers if any(a is not None for a in answers) else None,
        ),
        reasons,
    )
