"""`divwatch wandb setup`: a ready W&B workspace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from divwatch.cli.options import AsJson, Command, write_json

wandb_app = typer.Typer(no_args_is_help=True, help="Weights & Biases: a ready workspace.")


@wandb_app.command(cls=Command)
def setup(
    project: Annotated[Optional[str], typer.Option(help="W&B project. Default: $WANDB_PROJECT, else divwatch.")] = None,
    entity: Annotated[Optional[str], typer.Option(help="User or team. Default: who is logged in.")] = None,
    run: Annotated[Optional[Path], typer.Option(help="A watched run: a panel for each task that it watches.")] = None,
    as_json: AsJson = None,
) -> None:
    """Make a W&B workspace with the monitor's panels in reading order.

    Example: divwatch wandb setup --project divwatch --run runs/demo/think-sft
    """
    from divwatch.outputs.workspace import NAME, send, watched, workspace

    tasks, metric = watched(run) if run else ([], "sbert")
    where = project or os.getenv("WANDB_PROJECT") or "divwatch"
    if as_json is not None:  # the workspace itself, and nothing is sent
        view = workspace(entity or "entity", where, tasks, metric)
        spec = view._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        write_json(as_json, {"name": NAME, "project": where, "spec": spec})
        return
    print(f"workspace {NAME!r}: {send(entity, where, tasks, metric)}")
