"""Lines of the file become samples: reasoning stripped, usable or not, correct or not."""

from __future__ import annotations

from collections.abc import Sequence

from divwatch.errors import DivwatchError
from divwatch.metrics import paper
from divwatch.records import Prompt, PromptSamples, Verification
from divwatch.score_file.rows import Row
from divwatch.score_file.rules import Rules
from divwatch.verify.thinking import final_answer
from divwatch.verify.verifier import run_verifier


def to_samples(rows: Sequence[Row], rules: Rules) -> list[PromptSamples]:
    """The samples of some lines; the verifier sees them together, each text of a line once."""
    answers_of = [_texts(row, rules) for row in rows]
    if rules.verify is None:
        return [_unverified(row, texts, usable) for row, (texts, usable) in zip(rows, answers_of, strict=True)]
    questions = [(i, text) for i, (texts, _) in enumerate(answers_of) for text in dict.fromkeys(texts)]
    prompts = [Prompt(row.id, row.task, row.prompt, reference=row.reference) for row in rows]
    judged = run_verifier(rules.verify, [text for _, text in questions], [prompts[i] for i, _ in questions])
    judgements = dict(zip(questions, judged, strict=True))
    canonical = any(j.answer is not None for j in judged)  # a program or a reward has no answer that could be voted on
    samples = []
    for i, (row, (texts, usable)) in enumerate(zip(rows, answers_of, strict=True)):
        of_row = [judgements[i, text] for text in texts]
        _refuse_unjudged(row, of_row, rules)
        correct = [fit and bool(j.correct) for j, fit in zip(of_row, usable, strict=True)]
        answers = [j.answer if fit else None for j, fit in zip(of_row, usable, strict=True)]
        samples.append(PromptSamples(row.id, row.task, texts, usable, correct, answers if canonical else None))
    return samples


def _texts(row: Row, rules: Rules) -> tuple[list[str], list[bool]]:
    """Answers and whether they are usable: the paper keeps every output, else one without an answer after its thought
    is not."""
    if rules.paper:
        return [paper.strip_cot(text) for text in row.outputs], [True] * len(row.outputs)
    answers = [final_answer(text) for text in row.outputs]
    return [text or raw for text, raw in zip(answers, row.outputs, strict=True)], [bool(text) for text in answers]


def _unverified(row: Row, texts: list[str], usable: list[bool]) -> PromptSamples:
    answers = [text if fit else None for text, fit in zip(texts, usable, strict=True)]
    correct = None if row.is_correct is None else [c and u for c, u in zip(row.is_correct, usable, strict=True)]
    return PromptSamples(row.id, row.task, texts, usable, correct, answers)


def _refuse_unjudged(row: Row, judged: Sequence[Verification], rules: Rules) -> None:
    """Where a verifier can say nothing of a line, the line is at fault; unless its answers took too long."""
    reason = judged[0].reason or ""
    if all(j.correct is None for j in judged) and not reason.startswith("timed out"):
        raise DivwatchError(f"{row.where}: verifier {rules.verifier!r} failed ({reason}): check the reference")
