"""`divwatch wandb setup`: a ready W&B workspace."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Optional

import typer

wandb_app = typer.Typer(no_args_is_help=True, help="Weights & Biases: a ready workspace.")


@wandb_app.command()
def setup(
    project: Annotated[Optional[str], typer.Option(help="W&B project. Default: $WANDB_PROJECT, else divwatch.")] = None,
    entity: Annotated[Optional[str], typer.Option(help="User or team. Default: who is logged in.")] = None,
    run: Annotated[Optional[Path], typer.Option(help="A watched run: a panel for each task that it watches.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the workspace as JSON, and send nothing.")] = False,
) -> None:
    """Make a W&B workspace with the monitor's panels in reading order.

    Example: divwatch wandb setup --project divwatch --run runs/demo/think-sft
    """
    from divwatch.outputs.workspace import NAME, send, watched, workspace

    tasks, metric = watched(run) if run else ([], "sbert")
    where = project or os.getenv("WANDB_PROJECT") or "divwatch"
    if as_json:
        view = workspace(entity or "entity", where, tasks, metric)
        spec = view._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        print(json.dumps({"name": NAME, "project": where, "spec": spec}, indent=1))
        return
    print(f"workspace {NAME!r}: {send(entity, where, tasks, metric)}")
