"""What a person at a terminal sees: a line a look, a bar while one is taken, a table of stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def say(text: str) -> None:
    """A line that does not tear the trainer's progress bar."""
    from tqdm import tqdm

    tqdm.write(text)


@contextmanager
def bar_of(what: str, total: int) -> Iterator[Any]:
    """A progress bar below the trainer's that leaves nothing behind; silent where nobody watches (no terminal)."""
    import sys

    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="sample", leave=False, disable=not sys.stderr.isatty()) as bar:
        yield bar


def look_line(look: dict[str, Any], assessment: Any) -> str:
    """One look in one line: diversity and its change, correct-answer diversity, accuracy, verdict, cost."""
    parts = [f"divwatch step {look['step']}"]
    for name, key in (("diversity", f"diversity/{assessment.primary}"), ("correct", f"correct_diversity/{assessment.primary}")):
        value = look["tasks"]["all"].get(key)
        if value is None:
            continue
        status = assessment.statuses.get(("all", key))
        change = "" if status is None or look["step"] == assessment.baseline_step else f" ({change_text(status)})"
        parts.append(f"{name} {value['mean']:.3f}{change}")
    accuracy = look["tasks"]["all"].get("quality/accuracy")
    if accuracy is not None:
        parts.append(f"accuracy {accuracy['mean']:.2f}")
    parts.append(look["verdict"]["kind"] if look["status"] == "ok" else f"not comparable: {look['reason']}")
    parts.append(f"{look['seconds']['total']:.1f} s")
    return " | ".join(parts)


def change_text(status: Any) -> str:
    """`-24 % [-28, -19]`."""
    lo, hi = status.change_interval
    if status.change != status.change:
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
    return f"{what} of {where} falls {onset}: {100 * event['change']:+.0f} % [{100 * lo:+.0f}, {100 * hi:+.0f}], {sure}."
