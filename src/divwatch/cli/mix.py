"""`divwatch mix`: which mixes there are and what is in them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from divwatch.cli.options import AsJson, Command, write_json

app = typer.Typer(no_args_is_help=True, help="Data mixes: the Olmo 3 sets by source, your own, the embedded ones.")


@app.command("list", cls=Command)
def list_mixes(as_json: AsJson = None) -> None:
    """List the mixes that --mix takes by name.

    Example: divwatch mix list
    """
    from divwatch.mixes.show import listed

    mixes = listed()
    if write_json(as_json, mixes):
        return
    rows = [[m["name"], m["kind"], _number(m["rows"]), str(len(m["sources"])), m["title"]] for m in mixes]
    _table(["mix", "kind", "rows", "sources", ""], rows)


@app.command(cls=Command)
def show(
    name: Annotated[str, typer.Argument(help="A mix by name, or a YAML file.")],
    as_json: AsJson = None,
) -> None:
    """Show a mix: its sources with published rows and shares, tokens where known, and where the figures come from.

    Example: divwatch mix show instruct_sft
    """
    from divwatch.mixes.show import described

    mix = described(name)
    if write_json(as_json, mix):
        return
    print(f"{mix['name']} ({mix['kind']}): {mix['title']}")
    for part in mix["parts"]:
        print("  from " + part["from"] + (f" at {part['revision']}" if part["revision"] else ""))
    _table(
        ["source", "rows", "share", ""],
        [[s["name"], _number(s["rows"]), _percent(s["share"]), s["note"]] for s in mix["sources"]],
    )
    print(f"rows: {_number(mix['rows'])}; tokens: {_number(mix['tokens'])}; ? = not published")
    for note in mix["notes"]:
        print(f"- {note}")


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.2f} %"


def _table(head: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False)
    numbers: Any = {"rows", "share", "sources"}
    for column in head:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)
