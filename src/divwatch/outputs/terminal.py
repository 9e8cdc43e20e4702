"""What a person at a terminal sees: a line for each look and alarm, and a progress bar while a look is taken."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from divwatch.metrics.unknown import MULTILINGUAL
from divwatch.outputs import numbers
from divwatch.outputs.text import inert
from divwatch.words import counted

if TYPE_CHECKING:
    from divwatch.records import Change, ScoredLook


def say(text: str) -> None:
    """Prints a line without breaking the trainer's progress bar, highlighted on a terminal."""
    import sys

    from tqdm import tqdm

    with suppress(OSError, ValueError):  # standard output may be closed or full
        tqdm.write(_lit(text) if sys.stdout.isatty() else text)


def _lit(text: str) -> str:
    """The line with terminal colours: its name, changes with their intervals, and a verdict that is bad news.

    >>> _lit("divwatch step 5 | diversity 0.4 | none")
    '\\x1b[1mdivwatch\\x1b[0m step 5 | diversity 0.4 | none'
    """
    from rich.console import Console
    from rich.text import Text

    line = Text(text)
    line.highlight_regex(r"^divwatch", "bold")
    line.highlight_regex(r"[-+]?\d+ % \[[^]]*\]", "cyan")
    line.highlight_regex(
        r"collapse|narrowing among correct answers|degeneration|false recovery|\bfalls since\b", "bold red"
    )
    console = Console(force_terminal=True, color_system="standard", width=10_000, highlight=False)
    with console.capture() as captured:
        console.print(line, end="")
    return captured.get()


@contextmanager
def bar_of(what: str, total: int, shown: bool = True) -> Iterator[Any]:
    """A progress bar below the trainer's, removed at the end; none without a terminal."""
    import sys

    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="sample", leave=False, disable=not (shown and sys.stderr.isatty())) as bar:
        yield bar


def look_line(look: ScoredLook) -> str:
    """One look in one line: diversity and its change, correct-answer diversity, accuracy, verdict."""
    parts = [f"divwatch step {look.step}"]
    assessment, means = look.assessment, look.tasks["all"]
    for name, group in (("diversity", "diversity"), ("correct", "correct_diversity")):
        key = f"{group}/{assessment.primary}"
        if key not in means:
            continue
        change = assessment.change_of("all", key)
        known = change is not None and look.status == "ok" and look.step != assessment.baseline_step
        text = f" ({change_text(change)})" if known and change is not None else ""
        parts.append(f"{name} {means[key]['mean']:.3f}{text}")
    if "quality/accuracy" in means:
        parts.append(f"accuracy {means['quality/accuracy']['mean']:.2f}")
    comparable = look.status == "ok"
    kind = numbers.verdict_text(assessment.verdict["kind"], assessment.confirmed)
    parts.append(kind if comparable else f"not comparable: {why_not_comparable(look)}")
    return " | ".join(parts)


def why_not_comparable(look: ScoredLook) -> str | None:
    """The reason in looks.jsonl; None for a look that is comparable."""
    return None if look.status == "ok" else f"{look.usable_share:.0%} of the outputs are finished and readable"


def unreadable_line(prompts: int, of: int, encoder: str, setting: str, missing: bool = True) -> str:
    """Why metrics of embeddings are missing (or, if not `missing`, wrong), and which encoder reads the outputs."""
    return (
        f"divwatch: metrics of embeddings (sbert, vendi) are {'missing' if missing else 'not reliable'} for {prompts} of "
        f"{counted(of, 'prompt')}: more than a tenth of their outputs is unknown tokens to encoder {encoder!r}. "
        f"Set {setting} to a multilingual one, such as {MULTILINGUAL}"
    )


def change_text(change: Change) -> str:
    """`-24 % [-28, -19]`; without the interval where there are too few prompts for one."""
    if math.isnan(change.change):
        return "change unknown"
    return numbers.plain(numbers.change(change.change, *change.change_interval))


def alarm_message(alarm: Change) -> str:
    """What fell, where, since when and how certain that is: the text of an alert."""
    what = "correct-answer diversity" if alarm.key.startswith("correct") else "output diversity"
    where = "the whole panel" if alarm.task == "all" else f"task {alarm.task}"
    onset = f"since step {alarm.onset_step}"
    if alarm.onset_interval:
        onset += " (90 % interval {} to {})".format(*alarm.onset_interval)
    confirmed = "confirmed" if alarm.confirmed else "not yet confirmed"
    return f"{what} of {where} falls {onset}: {change_text(alarm)}, {confirmed}."


def before_line(checkpoint: Any, start: str) -> str:
    """Which weights are from before a fall. checkpoint: a path, or None; start: the model that training began with.

    >>> before_line("run/_before_collapse/checkpoint-40", "base")
    'divwatch: from before the fall, or its onset: run/_before_collapse/checkpoint-40'
    """
    early = checkpoint if checkpoint is not None else f"no checkpoint, only the model that training began with, {start}"
    return f"divwatch: from before the fall, or its onset: {early}"


def asked_line(text: str, form: str, prompts: int) -> str:
    """How the model is asked, shown by the first prompt as it gets it.

    >>> asked_line("<|user|>Why?<|assistant|>", "chat", 8)
    'divwatch: 8 prompts are asked in chat form; the model gets the first one as "<|user|>Why?<|assistant|>"'
    """
    shown = text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"
    quoted = inert(json.dumps(shown, ensure_ascii=False))
    asked = f"{counted(prompts, 'prompt')} {'is' if prompts == 1 else 'are'} asked in {form} form"
    return f"divwatch: {asked}; the model gets {'it' if prompts == 1 else 'the first one'} as {quoted}"


def first_look_line(prompts: int, tokens: Sequence[int], seconds: float) -> str:
    """What the first look showed of all looks' cost. tokens: of each completion.

    >>> first_look_line(2, [10, 20, 30, 40], 3.14159)
    'divwatch: the first look took 3.1 s: 2 prompts x 2 completions of 25 tokens on average, 40 at most'
    """
    samples, mean = len(tokens) // prompts, sum(tokens) / len(tokens)
    return (
        f"divwatch: the first look took {seconds:.2g} s: {counted(prompts, 'prompt')} x {samples} completions of "
        f"{mean:.0f} tokens on average, {max(tokens)} at most"
    )


def schedule_line(steps: Sequence[int], share: float | None, look: float, step: float | None) -> str:
    """The planned looks of a run.

    share: of the run's time that all looks take, None if not known. look, step: seconds of one.

    >>> schedule_line([0, 4, 80], 0.0291, 3.14, 1.5)
    'divwatch: about 3 looks, at steps 0, 4, 80: 2.9 % of the run (a look takes 3.1 s, a step 1.5 s)'
    """
    line = f"divwatch: about {counted(len(steps), 'look')}, at steps {numbers.steps_of(steps)}"
    if share is None or step is None:
        return line
    return f"{line}: {share * 100:.2g} % of the run (a look takes {look:.2g} s, a step {step:.2g} s)"


def too_expensive_line(limit: float, look: float, fits: float, prompts: int) -> str:
    """Why a run has fewer looks than it should, and what size would fit.

    >>> too_expensive_line(0.03, 40, 10, 64).split(": ")[-1]
    'looks of 10 s would fit (watch_prompts 16, say; divwatch plan proposes a size)'
    """
    fewer = max(1, int(prompts * fits / max(look, fits)))
    return (
        f"divwatch: watch_max_overhead {limit:g} leaves no room for the looks of this run, which take {look:.2g} s each: "
        f"looks of {fits:.2g} s would fit (watch_prompts {fewer}, say; divwatch plan proposes a size)"
    )
