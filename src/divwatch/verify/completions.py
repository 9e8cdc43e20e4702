"""Completions become verified samples: reasoning stripped, usable or not, correct or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from divwatch.records import Completion, Prompt, PromptSamples, Verification
from divwatch.verify.registry import get_verifier
from divwatch.verify.thinking import final_answer
from divwatch.verify.verifier import run_verifier


def verify_completions(
    prompts: Sequence[Prompt], completions: Sequence[Completion], *, unsafe_code: bool = False
) -> tuple[list[PromptSamples], Counter[str]]:
    """(samples, reasons): one PromptSamples per prompt, in the panel's order, and why answers could not be verified.

    An answer that could not be verified counts as wrong; `reasons` has the number of answers per reason. A prompt none
    of whose usable answers could be verified has `correct=None`: missing, not wrong. A verifier that fails never raises
    here. Equal answers to one prompt are verified once.

    Raises DivwatchError if a verifier does not exist or cannot run (see `get_verifier`).
    """
    samples = strip_reasoning(prompts, completions)
    by_verifier: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        if prompt.verifier is not None:
            by_verifier.setdefault(prompt.verifier, []).append(i)
    reasons: Counter[str] = Counter()
    for spec, indices in by_verifier.items():
        verifier = get_verifier(spec, unsafe_code=unsafe_code)
        pairs = [(i, answer) for i in indices for answer in _distinct_usable(samples[i])]
        results = run_verifier(verifier, [answer for _, answer in pairs], [prompts[i] for i, _ in pairs])
        by_answer = dict(zip(pairs, results, strict=True))
        for i in indices:
            own = {answer: by_answer[i, answer] for answer in _distinct_usable(samples[i])}
            samples[i], unverified = _with_results(samples[i], own)
            reasons.update(unverified)
    return samples, reasons


def strip_reasoning(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[PromptSamples]:
    """The answers to each prompt, in the panel's order, and which of them are usable. Nothing is verified."""
    by_prompt: dict[str, list[Completion]] = {prompt.id: [] for prompt in prompts}
    for completion in sorted(completions, key=lambda c: c.sample):
        by_prompt[completion.prompt_id].append(completion)
    samples = []
    for prompt in prompts:
        answers = [final_answer(c.text) for c in by_prompt[prompt.id]]
        usable = [
            bool(a) and (c.finished or not prompt.needs_end) for c, a in zip(by_prompt[prompt.id], answers, strict=True)
        ]
        samples.append(PromptSamples(prompt.id, prompt.task, [a or "" for a in answers], usable))
    return samples


def _distinct_usable(samples: PromptSamples) -> list[str]:
    return list(dict.fromkeys(a for a, usable in zip(samples.outputs, samples.usable, strict=True) if usable))


def _with_results(samples: PromptSamples, results: Mapping[str, Verification]) -> tuple[PromptSamples, list[str]]:
    """The samples of one prompt with `correct` and `answers`, and a reason per answer that could not be verified."""
    of_sample = [results[a] if usable else None for a, usable in zip(samples.outputs, samples.usable, strict=True)]
    reasons = [r.reason or "no reason given" for r in of_sample if r is not None and r.correct is None]
    if reasons and len(reasons) == sum(samples.usable):
        return samples, reasons
    answers = [None if r is None else r.answer for r in of_sample]
    return (
        replace(
            samples,
            correct=[r is not None and bool(r.correct) for r in of_sample],
            answers=answers if any(a is not None for a in answers) else None,
        ),
        reasons,
    )
