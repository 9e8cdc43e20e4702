"""`divwatch import`: the curve of a run that was never watched, from the completions that another tool has written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Optional

import typer

from divwatch.cli.options import AsJson, nothing_but_json, write_json


def import_(
    paths: Annotated[list[Path], typer.Argument(help="A run's dump: folders or files, in the order of training.")],
    out: Annotated[Path, typer.Option(help="Folder for the run.")],
    form: Annotated[
        str,
        typer.Option("--format", help="auto, verl, trl, lm-eval, lighteval or plain (NoveltyBench, W&B tables, own)."),
    ] = "auto",
    score: Annotated[Optional[str], typer.Option(help="Column with the scores. Default: the usual one.")] = None,
    correct_above: Annotated[float, typer.Option(help="A completion is correct if its score is above this.")] = 0.5,
    prompts: Annotated[int, typer.Option(min=1, help="Most prompts of a look.")] = 500,
    samples: Annotated[
        Optional[int], typer.Option(min=2, help="Completions of each prompt. Default: what nine of ten prompts have.")
    ] = None,
    metrics: Annotated[Optional[str], typer.Option(help="Metrics, separated by commas.")] = None,
    encoder: Annotated[Optional[str], typer.Option(help="Sentence encoder: hub name, directory, or minilm.")] = None,
    stage: Annotated[Optional[str], typer.Option(help="Name of the stage. Default: the name of OUT.")] = None,
    lineage: Annotated[Optional[str], typer.Option(help="Name of the lineage.")] = None,
    baseline: Annotated[
        Optional[Path], typer.Option(help="The run before this one, so that stages are attributed.")
    ] = None,
    wandb: Annotated[bool, typer.Option("--wandb", help="Send the looks to W&B too.")] = False,
    as_json: AsJson = None,
) -> None:
    """Turn the completions that verl, TRL, lm-evaluation-harness, lighteval or NoveltyBench wrote into a run directory.

    Example: divwatch import rollouts/ --encoder minilm --out runs/imported
    """
    from divwatch.config import WatchConfig, settings_written_as
    from divwatch.errors import DivwatchError
    from divwatch.imports import import_run
    from divwatch.imports.files import Dump
    from divwatch.outputs.terminal import look_line, say
    from divwatch.store.run_directory import RunDirectory

    options = {"prompts": prompts, "metrics": metrics, "encoder": encoder, "lineage": lineage}
    with settings_written_as("--"):
        config = WatchConfig.from_settings(panel=None, **{k: v for k, v in options.items() if v is not None})
    parent = RunDirectory.of(baseline) if baseline else None
    if parent is not None and not parent.exists:
        raise DivwatchError(f"--baseline {baseline} holds no divwatch run: give the output directory of one")
    with nothing_but_json(as_json):
        run, looks = import_run(
            Dump(paths, form, score),
            out,
            config,
            stage=stage or out.name,
            correct_above=correct_above,
            parent=parent,
            samples=samples,
            say=lambda line: say(f"divwatch: {line}"),
        )
        for look in looks:
            say(look_line(look))
        if wandb:
            from divwatch.outputs.upload import upload

            upload(run, looks)
    if write_json(as_json, {"run": str(run.path), "steps": [look.step for look in looks]}, indent=None):
        return
    print(f"now: {shlex.join(['divwatch', 'report', str(out)])}")
