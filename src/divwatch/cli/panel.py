"""`divwatch panel list | show TASK | check [--against DATA]`: what can be watched, worded how, and is it held out?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from divwatch.cli.options import AsJson, Command, write_json
from divwatch.words import counted

panel_app = typer.Typer(no_args_is_help=True, help="Held-out prompts: list, show and check them.")


@panel_app.command("list", cls=Command)
def list_panels(as_json: AsJson = None) -> None:
    """The named panels and tasks. Works without the hub.

    Example: divwatch panel list
    """
    from divwatch.panel import SHIPPED
    from divwatch.tasks import PANELS, TASKS

    panels = {name: list(dict.fromkeys(p.task for p in prompts())) for name, prompts in SHIPPED.items()}
    panels |= {name: [task.name for task in tasks] for name, tasks in PANELS.items()}
    tasks = [
        {"task": t.name, "about": t.about, "set": t.hub, "verifier": t.verifier or "", "limit": t.limit or "all"}
        for t in TASKS.values()
    ]
    if write_json(as_json, {"panels": panels, "tasks": tasks}):
        return
    _table("panels", [{"panel": name, "tasks": ", ".join(members)} for name, members in panels.items()])
    _table("tasks (each is a panel too; name several with commas)", tasks)


@panel_app.command(cls=Command)
def show(
    task: Annotated[str, typer.Argument(help="A task's name, as in `divwatch panel list`.")], as_json: AsJson = None
) -> None:
    """A task: its set, wording, limits and verifier, and an example of divwatch's own. Works without the hub.

    Example: divwatch panel show gsm8k
    """
    from divwatch.errors import DivwatchError
    from divwatch.panel.length import token_limit
    from divwatch.tasks import TASKS

    if task not in TASKS:
        raise DivwatchError(f"unknown task {task!r}: choose from {', '.join(TASKS)}")
    entry = TASKS[task]
    prompt = entry.prompt(entry.example, f"{entry.name}/example")
    facts = {
        "task": entry.name, "about": entry.about, "path": entry.path, "config": entry.config, "split": entry.split,
        "revision": entry.revision, "columns": list(entry.columns), "prompts": entry.limit or "all",
        "verifier": entry.verifier, "stop (plain form)": list(entry.stop),
        "max_new_tokens": token_limit(prompt, None), "paper_max_new_tokens": entry.paper_max_new_tokens,
        "example prompt": prompt.text, "example reference": prompt.reference,
    }  # fmt: skip
    if write_json(as_json, facts):
        return
    for name, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        print(f"{name}:\n{_indented(text)}" if "\n" in text else f"{name}: {text}")


@panel_app.command(cls=Command)
def check(
    panel: Annotated[str, typer.Argument(help="A panel, a task, several with commas, or a JSONL file.")] = "quick",
    against: Annotated[
        Optional[str],
        typer.Option(help="Training data to search: a mix's name, a JSONL or parquet file, or a hub set."),
    ] = None,
    model: Annotated[
        Optional[str], typer.Option(help="Show the first prompt of each task as this model gets it.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes for the search.")] = 0,
    as_json: AsJson = None,
) -> None:
    """Load a panel, name what is wrong with it, and search the training data for its prompts.

    Example: divwatch panel check verifiable --against allenai/Dolci-Instruct-SFT --workers 8
    """
    from divwatch.outputs.text import inert
    from divwatch.panel import fingerprint
    from divwatch.panel.held_out import check_held_out
    from divwatch.pretrained import load_tokenizer

    tokenizer = load_tokenizer(model) if model else None
    notes: list[str] = []
    prompts, sets = _loaded(panel, tokenizer, notes)
    result: dict[str, Any] = {
        "panel": panel,
        "prompts": len(prompts),
        "fingerprint": fingerprint(prompts),
        "tasks": sets,
    }
    if tokenizer is not None:
        result |= _asked(prompts, tokenizer, notes)
    result["problems"] = notes
    report = check_held_out(prompts, _training_rows(against), workers=workers) if against else None
    if report:
        result["against"] = {"data": against, **report.as_dict()}
    if write_json(as_json, result):
        return
    _table(f"panel {panel}: {counted(len(prompts), 'prompt')}, fingerprint {result['fingerprint']}", sets)
    for task, text in result.get("asked", {}).items():
        print(f"{task}, the first prompt as {model} gets it ({result['form']} form):\n{_indented(inert(text))}")
    if report:
        rows = [
            {"task": task, "prompts": t.prompts, "found": t.contaminated, "%": f"{100 * t.share:.1f}",
             "words covered %": f"{100 * t.coverage:.1f}"} for task, t in report.by_task.items()
        ]  # fmt: skip
        _table(f"13-gram overlap with {against} ({counted(report.rows, 'row')})", rows)
        print(report.line)
        for id, row in list(report.contaminated.items())[:20]:
            print(f"  {id} in row {row}")


def _asked(prompts: list[Any], tokenizer: Any, notes: list[str]) -> dict[str, Any]:
    """The form in which `auto` asks this model, and task -> the text that it gets for the task's first prompt.

    notes: gets a line about what the chat template drops.
    """
    from divwatch.panel.form import fixed_form, in_form, prompt_text
    from divwatch.panel.problems import dropped_parts

    form = fixed_form("auto", tokenizer)
    first: dict[str, Any] = {}
    for prompt in in_form(prompts, form):
        first.setdefault(prompt.task, prompt)
    asked = {task: prompt_text(tokenizer, p, form=form) for task, p in first.items()}
    if (dropped := dropped_parts(tokenizer, in_form(prompts, form), form)) is not None:
        notes.append(dropped)
        print(dropped, file=sys.stderr)
    return {"form": form, "asked": asked}


def _loaded(panel: str, tokenizer: Any, notes: list[str]) -> tuple[list[Any], list[dict[str, Any]]]:
    """The prompts of a panel, and a line about each of its tasks; for a hub set, the commit it was read at."""
    from divwatch.panel import load_panel
    from divwatch.panel.form import answer_opening
    from divwatch.tasks import TASKS
    from divwatch.tasks.task import hub_rows, resolved_revision

    def note(line: str) -> None:  # printed at once: an error may follow
        notes.append(line)
        print(line, file=sys.stderr)

    opening = answer_opening(tokenizer) if tokenizer is not None else None
    _, prompts = load_panel(panel, note=note, opening=opening)
    lines = []
    for name in dict.fromkeys(p.task for p in prompts):
        own = [p for p in prompts if p.task == name]
        line = {"task": name, "prompts": len(own), "verifier": ", ".join(sorted({p.verifier or "" for p in own}))}
        if name in TASKS and not Path(panel).is_file():
            line["set"] = TASKS[name].hub
            line["revision"] = resolved_revision(hub_rows(TASKS[name])) or "not noted by the data set's cache"
        lines.append(line)
    return prompts, lines


def _training_rows(name: str) -> Any:
    """Rows to search: a file or a mix that divwatch knows, else the hub set's train split, streamed from the cache."""
    from datasets import Dataset, load_dataset

    from divwatch.errors import DivwatchError, one_line
    from divwatch.files import read_jsonl
    from divwatch.mixes import load_mix

    if Path(name).suffix == ".parquet" and Path(name).is_file():
        try:
            return Dataset.from_parquet(name)
        except Exception as error:  # the reader has its own error for each way to be wrong
            problem = one_line(error.__cause__ or error, kind=False)
            raise DivwatchError(f"--against {name} is no parquet file that can be read ({problem}): fix it") from None
    if Path(name).is_file():
        return (row for _, row in read_jsonl(Path(name)))  # one by one: lines may differ in their schema
    try:
        return load_mix(name)[0]
    except DivwatchError as unknown:
        if "/" not in name or name.startswith("tiny/"):
            raise unknown from None
    try:
        return load_dataset(name, split="train")
    except Exception as error:
        raise DivwatchError(
            f"--against {name}: neither a mix, a file nor a hub set that can be read ({one_line(error, kind=False)})"
        ) from None


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(row.get(name, ""))) for name in names))
    Console().print(table)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
