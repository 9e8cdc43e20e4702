"""What a person at a terminal sees: a line a look, a bar while one is taken, a table of stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def say(text: str) -> None:
    """A line that does not tear the trainer's progress bar; what matters in it stands out on a terminal."""
    import sys

    from tqdm import tqdm

    with suppress(OSError, ValueError):  # a closed or full standard output: where nothing can be written, nothing is
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
    line.highlight_regex(r"[-+]\d+ % \[[^]]*\]", "cyan")
    line.highlight_regex(
        r"collapse|narrowing among correct answers|degeneration|false recovery|\bfalls since\b", "bold red"
    )
    console = Console(force_terminal=True, color_system="standard", width=10_000, highlight=False)
    with console.capture() as captured:
        console.print(line, end="")
    return captured.get()


@contextmanager
def bar_of(what: str, total: int, shown: bool = True) -> Iterator[Any]:
    """A progress bar below the trainer's that leaves nothing behind; silent where nobody watches (no terminal)."""
    import sys

    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="sample", leave=False, disable=not (shown and sys.stderr.isatty())) as bar:
        yield bar


def look_line(look: dict[str, Any], assessment: Any) -> str:
    """One look in one line: diversity and its change, correct-answer diversity, accuracy, verdict."""
    parts = [f"divwatch step {look['step']}"]
    for name, key in (
        ("diversity", f"diversity/{assessment.primary}"),
        ("correct", f"correct_diversity/{assessment.primary}"),
    ):
        value = look["tasks"]["all"].get(key)
        if value is None:
            continue
        status = assessment.statuses.get(("all", key))
        known = status is not None and look["status"] == "ok" and look["step"] != assessment.baseline_step
        change = f" ({change_text(status)})" if known else ""
        parts.append(f"{name} {value['mean']:.3f}{change}")
    accuracy = look["tasks"]["all"].get("quality/accuracy")
    if accuracy is not None:
        parts.append(f"accuracy {accuracy['mean']:.2f}")
    parts.append(look["verdict"]["kind"] if look["status"] == "ok" else f"not comparable: {look['reason']}")
    return " | ".join(parts)


def change_text(status: Any) -> str:
    """`-24 % [-28, -19]`."""
    lo, hi = status.change_interval
    if not (status.change == status.change and lo == lo):
        return "change unknown"
    return f"{100 * status.change:+.0f} % [{100 * lo:+.0f}, {100 * hi:+.0f}]"


def event_message(event: dict[str, Any]) -> str:
    """What fell, where, since when, how surely: the text of an alert."""
    what = "correct-answer diversity" if event["key"].startswith("correct") else "output diversity"
    where = "the whole panel" if event["task"] == "all" else f"task {event['task']}"
    lo, hi = event["change_interval"]
    onset = f"since step {event['onset_step']}"
    if event["onset_interval"]:
        onset += " (90 % interval {} to {})".format(*event["onset_interval"])
    sure = "confirmed" if event["confirmed"] else "not yet confirmed"
    return (
        f"{what} of {where} falls {onset}: {100 * event['change']:+.0f} % [{100 * lo:+.0f}, {100 * hi:+.0f}], {sure}."
    )
