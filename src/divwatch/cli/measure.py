"""`divwatch measure`: looks at checkpoints that were never watched in training."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Optional

import typer

from divwatch.cli.options import AsJson, nothing_but_json, write_json
from divwatch.errors import DivwatchError


def measure(
    models: Annotated[
        list[str], typer.Argument(help="Model directories or hub names, in the order of their training.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the runs.")],
    preset: Annotated[
        str, typer.Option(help="default, or paper: all prompts of the paper's tasks, 16 samples, its token limits.")
    ] = "default",
    like: Annotated[Optional[Path], typer.Option(help="Take panel and settings from this watched run.")] = None,
    panel: Annotated[Optional[str], typer.Option(help="A panel's name (tiny) or a JSONL file.")] = None,
    prompts: Annotated[Optional[int], typer.Option(help="Prompts of the panel.")] = None,
    samples: Annotated[Optional[int], typer.Option(help="Completions a prompt.")] = None,
    temperature: Annotated[Optional[float], typer.Option(help="Sampling temperature.")] = None,
    top_p: Annotated[Optional[float], typer.Option(help="Nucleus mass.")] = None,
    max_new_tokens: Annotated[
        Optional[int], typer.Option(help="Most tokens of a completion. Default: by task.")
    ] = None,
    encoder: Annotated[Optional[str], typer.Option(help="Sentence encoder: hub name, directory, or minilm.")] = None,
    lineage: Annotated[Optional[str], typer.Option(help="Name of the lineage.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of prompts and sampling.")] = None,
    all_checkpoints: Annotated[
        bool, typer.Option("--all-checkpoints", help="MODELS are output directories: look at every checkpoint in them.")
    ] = False,
    device: Annotated[Optional[str], typer.Option(help="Where to sample. Default: cuda if there is one.")] = None,
    as_json: AsJson = None,
) -> None:
    """Look at checkpoints that were never watched in training; each becomes a stage that `report` reads.

    Example: divwatch measure BASE SFT DPO --panel tiny --encoder minilm --out runs/measured
    """
    from divwatch.config import WatchConfig, settings_written_as
    from divwatch.monitor.measure import PRESETS, checkpoints_of, settings_like
    from divwatch.monitor.measure import measure as run_measure
    from divwatch.store.run_directory import RunDirectory

    if preset not in PRESETS:
        raise DivwatchError(f"unknown preset {preset!r}: choose from {', '.join(PRESETS)}")
    if like and preset != "default":
        raise DivwatchError(
            f"--preset {preset} and --like: give one of them, --like takes its panel and settings from the run"
        )
    options = {
        "panel": panel, "prompts": prompts, "samples": samples, "temperature": temperature, "top_p": top_p,
        "max_new_tokens": max_new_tokens, "encoder": encoder, "lineage": lineage, "seed": seed,
    }  # fmt: skip
    settings = PRESETS[preset] | {name: value for name, value in options.items() if value is not None}
    models = [name for folder in models for name in checkpoints_of(Path(folder))] if all_checkpoints else models
    run = RunDirectory.of(like) if like else None
    with settings_written_as("--"):
        config = settings_like(run, settings) if run else WatchConfig.from_settings(**settings)
    with nothing_but_json(as_json):
        done = run_measure(models, out, config, run, device, paper=preset == "paper")
    if write_json(as_json, {"runs": [str(measured.path) for measured in done]}, indent=None):
        return
    for measured in done:
        print(f"measured: {measured.path}")
    print(f"now: {shlex.join(['divwatch', 'report', str(out)])}")
