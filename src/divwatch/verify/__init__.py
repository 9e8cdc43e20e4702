"""Correct or not: completions become judged samples. A verifier is a plain function (answer text, reference) -> Judgement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.records import Completion, Prompt, PromptSamples
from divwatch.verify.judgement import Judgement
from divwatch.verify.thinking import final_answer

Verifier = Callable[[str, Any], Judgement]


def get_verifier(name: str) -> Verifier:
    """The verifier of that name. Raises DivwatchError, listing the names, where there is none."""
    from divwatch.tiny.panel import verify as tiny
    from divwatch.verify.text import exact, gsm8k

    verifiers: dict[str, Verifier] = {"exact": exact, "gsm8k": gsm8k, "tiny": tiny}
    if name not in verifiers:
        raise DivwatchError(f"unknown verifier {name!r}: choose from {', '.join(sorted(verifiers))}")
    return verifiers[name]


def judge_samples(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[PromptSamples]:
    """One PromptSamples a prompt, in the panel's order: reasoning stripped, usable or not, correct or not."""
    by_prompt: dict[str, list[Completion]] = {prompt.id: [] for prompt in prompts}
    for completion in sorted(completions, key=lambda c: c.sample):
        by_prompt[completion.prompt_id].append(completion)
    return [_judge_prompt(prompt, by_prompt[prompt.id]) for prompt in prompts]


def _judge_prompt(prompt: Prompt, completions: list[Completion]) -> PromptSamples:
    answers = [final_answer(c.text) for c in completions]
    usable = [c.finished and bool(a) for c, a in zip(completions, answers, strict=True)]
    samples = PromptSamples(prompt.id, prompt.task, [a or "" for a in answers], usable)
    if prompt.verifier is None:
        return samples
    verifier = get_verifier(prompt.verifier)
    judged = [
        verifier(a or "", prompt.reference) if ok else Judgement(False, None)
        for a, ok in zip(answers, usable, strict=True)
    ]
    parsed = [j.answer for j in judged]
    return PromptSamples(
        prompt.id,
        prompt.task,
        samples.outputs,
        usable,
        correct=[bool(j.correct) for j in judged],
        answers=parsed if any(a is not None for a in parsed) else None,
    )
