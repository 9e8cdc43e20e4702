"""What a person at a terminal sees: a line a look, a bar while one is taken, a table of stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divwatch.records import Change, ScoredLook


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
    parts.append(assessment.verdict["kind"] if comparable else f"not comparable: {why_not_comparable(look)}")
    return " | ".join(parts)


def why_not_comparable(look: ScoredLook) -> str | None:
    """The reason in looks.jsonl; None for a look that is comparable."""
    return None if look.status == "ok" else f"{look.usable_share:.0%} of the outputs are finished and readable"


def change_text(change: Change) -> str:
    """`-24 % [-28, -19]`."""
    lo, hi = change.change_interval
    if not (change.change == change.change and lo == lo):
        return "change unknown"
    return f"{100 * change.change:+.0f} % [{100 * lo:+.0f}, {100 * hi:+.0f}]"


def alarm_message(alarm: Change) -> str:
    """What fell, where, since when and how certain that is: the text of an alert."""
    what = "correct-answer diversity" if alarm.key.startswith("correct") else "output diversity"
    where = "the whole panel" if alarm.task == "all" else f"task {alarm.task}"
    onset = f"since step {alarm.onset_step}"
    if alarm.onset_interval:
        onset += " (90 % interval {} to {})".format(*alarm.onset_interval)
    confirmed = "confirmed" if alarm.confirmed else "not yet confirmed"
    return f"{what} of {where} falls {onset}: {change_text(alarm)}, {confirmed}."


def print_stages(page: Path) -> None:
    """The table of stages, from the tables that the report wrote beside its page."""
    import pandas as pd
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    stages = pd.read_csv(page.with_suffix("") / "stages.csv")
    onsets = pd.read_csv(page.with_suffix("") / "onsets.csv")
    table = Table(box=SIMPLE, title="Stages at their last look; change since the stage before [95 %]")
    table.add_column("stage", no_wrap=True)
    for name in (
        "diversity",
        "correct-answer\ndiversity",
        "accuracy",
        "change",
        "change among\ncorrect",
        "onset [90 %]",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in stages.to_dict("records"):
        mine = onsets[(onsets.lineage == row["lineage"]) & (onsets.stage == row["stage"]) & (onsets.task == "all")]
        table.add_row(
            f"{row['lineage']} {row['stage']}",
            *(_level(row[key]) for key in ("diversity", "correct_diversity", "accuracy")),
            _percent(row, "change"),
            _percent(row, "correct_change"),
            "" if row["stage"] == "base" else _onset(mine.to_dict("records")),
        )
    console = Console()
    Console(width=max(console.width, 120)).print(table)


def _level(value: float) -> str:
    return "" if value != value else f"{value:.3f}"


def _percent(row: dict[str, Any], key: str) -> str:
    value, lo, hi = (100 * row[k] for k in (key, f"{key}_lo", f"{key}_hi"))
    if value != value:
        return ""
    return f"{value:+.0f} %" + ("" if lo != lo else f" [{lo:+.0f}, {hi:+.0f}]")


def _onset(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "none flagged"
    first = min(rows, key=lambda row: row["key"])  # that of correct answers, where there is one, as in the report
    return f"step {first['step']} [{first['lo']:.0f}, {first['hi']:.0f}]"


def print_report_json(page: Path) -> None:
    """Where the report is, and its tables of stages and onsets."""
    import json

    import pandas as pd

    found: dict[str, Any] = {"page": str(page), "tables": str(page.with_suffix(""))}
    for name in ("stages", "onsets"):
        found[name] = json.loads(pd.read_csv(page.with_suffix("") / f"{name}.csv").to_json(orient="records"))
    print(json.dumps(found, indent=1))


def print_records(page: Path, folders: Sequence[Path]) -> None:
    """Where the report and the W&B records are, and the command that opens each."""
    from divwatch.store.run_directory import RunDirectory
    from divwatch.store.search import find_runs

    print(f"report: {page}\n  open it: xdg-open {page}")
    for path in find_runs([Path(f) for f in folders]):
        record = RunDirectory(path).info().get("wandb")
        if record:
            folder = Path(record["dir"]).parent
            print(
                f"W&B record of {path.parent}: {folder}\n  open it: wandb leet {folder}   upload it: wandb sync {folder}"
            )


def print_reference(page: Path) -> None:
    """On the paper's tasks, what each stage kept of the base's diversity beside what Olmo 3 7B kept."""
    import pandas as pd

    for line in reference_lines(pd.read_csv(page.with_suffix("") / "curves.csv")):
        print(line)


def reference_lines(curves: Any) -> list[str]:
    """A line a stage and published task, for lineages named think or instruct; `curves` is the report's table of curves."""
    from divwatch.tasks.published import LINES, retained

    rows = curves[(curves["key"] == "diversity/sbert") & (curves["task"] != "all") & (curves["status"] == "ok")]
    lines = []
    for (lineage, task), mine in rows.groupby(["lineage", "task"], sort=False):
        if lineage not in LINES:
            continue
        mine = mine.sort_values(["number", "step"])
        base = mine.iloc[0]["mean"]
        for stage, looks in mine.groupby("stage", sort=False):
            published = retained(lineage, stage, task)
            if published is not None and base > 0:
                kept = looks.iloc[-1]["mean"] / base
                lines.append(f"{lineage} {stage} kept {kept:.0%} of the base on {task}; Olmo 3 7B kept {published:.0%}")
    return lines
