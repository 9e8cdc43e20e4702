"""`divwatch blame`: which sources and rows of the training data narrow the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from divwatch.blame.run_settings import ROWS
from divwatch.cli.options import AsJson, nothing_but_json, write_json
from divwatch.errors import DivwatchError

if TYPE_CHECKING:
    from divwatch.blame.data import TrainingData
    from divwatch.blame.offline import BlameConfig
    from divwatch.blame.result import Blame
    from divwatch.blame.trace import Checkpoint
    from divwatch.config import WatchConfig
    from divwatch.store.run_directory import RunDirectory


def blame(
    checkpoints: Annotated[
        list[str],
        typer.Argument(help="Checkpoints of one run; without trainer_state.json: the model that it started from."),
    ],
    mix: Annotated[
        Optional[str],
        typer.Option(help="The training data: a mix by name or in YAML. Default: what the run of --like trained on."),
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option(help="The training data: JSONL in TRL's form, with a column 'source'.")
    ] = None,
    rows: Annotated[int, typer.Option(min=8, help="Rows to read of each source.")] = ROWS,
    config: Annotated[
        Optional[Path], typer.Option(help="The run's recipe config: loss, max_length, learning rate, steps.")
    ] = None,
    like: Annotated[
        Optional[Path],
        typer.Option(help="Take panel, data and settings from this watched run."),
    ] = None,
    panel: Annotated[Optional[str], typer.Option(help="A panel's name (tiny) or a JSONL file.")] = None,
    encoder: Annotated[Optional[str], typer.Option(help="Sentence encoder: hub name, directory, or minilm.")] = None,
    prompts: Annotated[Optional[int], typer.Option(help="Prompts of the panel.")] = None,
    samples: Annotated[Optional[int], typer.Option(help="Completions a prompt.")] = None,
    max_new_tokens: Annotated[
        Optional[int], typer.Option(help="Most tokens of a completion. Default: by task.")
    ] = None,
    correct: Annotated[bool, typer.Option("--correct", help="Blame for diversity of correct outputs.")] = False,
    by_task: Annotated[
        bool, typer.Option(help="Effects on each task as well: as many times the forward passes over the rows.")
    ] = True,
    reference: Annotated[
        Optional[str],
        typer.Option(
            help="Reference model of DPO. Default: the first checkpoint; of adapters the run's start, else none."
        ),
    ] = None,
    learning_rate: Annotated[
        Optional[float],
        typer.Option(help="Where no trainer_state.json has it. Default: of --config, --like or TRL."),
    ] = None,
    steps: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            help="Steps to predict from a model at step 0. Default: of --config or --like, else 1.",
        ),
    ] = None,
    local_data: Annotated[
        Optional[str], typer.Option(help="Folder with files that are read in place of the hub sets.")
    ] = None,
    seed: Annotated[
        Optional[int],
        typer.Option(min=0, help="Seed of rows, prompts and sampling. Default: the run's of --like, else 0."),
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="Where to compute. Default: cuda if there is one.")] = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Print mix settings that halve the loss, and the command that trains.")
    ] = False,
    as_json: AsJson = None,
) -> None:
    """Say which sources and rows of the training data narrow the model, without training.

    Example: divwatch blame BASE RUN/checkpoint-* --like RUN --json blame.json
    """
    if (mix is not None and data is not None) or (mix is None and data is None and like is None):
        raise DivwatchError(
            "give the training data as either --mix NAME or --data FILE.jsonl, or the run with --like RUN"
        )
    if data is not None and data.suffix not in (".jsonl", ".json"):
        raise DivwatchError(f"--data {data} is no JSONL file: give a .jsonl file, or a mix with --mix")
    import datasets
    import torch
    from transformers.utils import logging

    from divwatch.blame.data import load_mix_of_run, training_data
    from divwatch.blame.offline import BlameConfig
    from divwatch.blame.run_settings import read_settings
    from divwatch.blame.text import result_lines, suggestion_lines
    from divwatch.blame.trace import in_order, read_checkpoint
    from divwatch.files import read_yaml, without_nan
    from divwatch.mixes import load_mix
    from divwatch.mixes.limit import Limit
    from divwatch.pretrained import load_tokenizer
    from divwatch.store.run_directory import RunDirectory

    for path in [*checkpoints, *([reference] if reference else [])]:
        _check_model(path)
    datasets.disable_progress_bars()  # of every checkpoint several; a line says which one is read
    logging.disable_progress_bar()
    found = in_order([read_checkpoint(path) for path in _of_one_kind(checkpoints)])
    run = RunDirectory.of(like) if like else None
    info = run.info() if run else {}
    settings = read_settings(read_yaml(config) if config else {}, info)
    options = {
        "panel": panel, "prompts": prompts, "samples": samples, "max_new_tokens": max_new_tokens, "encoder": encoder,
        "seed": None if run else seed,
    }  # fmt: skip
    watch = _watch_config(run, {k: v for k, v in options.items() if v is not None})
    seed = watch.seed if seed is None else seed
    tokenizer = load_tokenizer(found[-1].path)
    if data or mix:
        limit = Limit(tokenizer, settings.max_prompt)  # drops rows as the recipes do
        dataset, report = load_mix(str(data or mix), seed, local_data=local_data, limit=limit)
    else:
        dataset, report = load_mix_of_run(info, tokenizer, settings.max_prompt)
    training = training_data(dataset, report, rows, seed)
    how = BlameConfig(
        watch, seed, correct, device or ("cuda" if torch.cuda.is_available() else "cpu"), reference or _start(found),
        settings.loss_of(training.kind), by_task, settings.max_grad_norm,
    )  # fmt: skip
    with nothing_but_json(as_json):
        result, values = _compute(
            found, training, run, how, learning_rate or settings.rate(training.kind), steps or settings.max_steps or 1
        )
    if write_json(as_json, without_nan(values)):
        return
    print("\n".join(result_lines(values)))
    if suggest:
        print("\n".join(suggestion_lines(result.factors, report, config)))


def _compute(
    checkpoints: list[Checkpoint],
    training: TrainingData,
    run: RunDirectory | None,
    config: BlameConfig,
    rate: float,
    steps: int,
) -> tuple[Blame, dict[str, Any]]:
    from divwatch.blame.offline import measure_run
    from divwatch.blame.result import ALL, conclude, to_json
    from divwatch.blame.trace import learning_rates, share_of_learning
    from divwatch.metrics.encoder import load_encoder
    from divwatch.monitor.measure import panel_of
    from divwatch.monitor.panel_of_run import panel_of_run
    from divwatch.verify import check_verifiers

    _, prompts = panel_of_run(run) if run else panel_of(config.watch, paper=False)
    check_verifiers(prompts, unsafe_code=config.watch.unsafe_code)
    encoder = load_encoder(config.watch.encoder, device=config.device)
    measured = measure_run(
        checkpoints,
        training,
        prompts,
        config,
        encoder,
        lambda line: print(f"divwatch: {line}", file=sys.stderr, flush=True),
    )
    last = checkpoints[-1].step or steps
    learning = share_of_learning(learning_rates(checkpoints, last, rate), [c.step for c in checkpoints])
    result = conclude(checkpoints, measured, learning, training, last, config.seed)
    observed = result.observed[ALL] if result.observed else _observed(run, checkpoints[-1].step, config.correct)
    return result, to_json(result, training, observed)


def _observed(run: Any, step: int, correct: bool) -> float | None:
    """The change of the watched run's curve from its first look to `step`; None if it has no look there."""
    if run is None or not step:
        return None
    key = f"{'correct_diversity' if correct else 'diversity'}/sbert"
    levels = {
        look["step"]: look["tasks"].get("all", {}).get(key, {}).get("mean") for look in run.looks() if look.get("tasks")
    }
    first = levels.get(min(levels, default=-1))
    return levels[step] - first if levels.get(step) is not None and first is not None else None


def _watch_config(run: RunDirectory | None, options: dict[str, Any]) -> WatchConfig:
    from divwatch.config import WatchConfig, settings_written_as
    from divwatch.monitor.measure import settings_like

    with settings_written_as("--"):
        return settings_like(run, options) if run else WatchConfig.from_settings(**options)


def _start(checkpoints: list[Checkpoint]) -> str | None:
    """What DPO compares with by default: the first checkpoint. For adapters, an adapter that the run started from, or none."""
    from divwatch.pretrained import is_adapter

    first = checkpoints[0]
    return None if is_adapter(first.path) and first.step else first.path


def _of_one_kind(paths: list[str]) -> list[str]:
    """Adapters alone where there are any: the whole model under them has other weights to nudge."""
    from divwatch.pretrained import is_adapter

    adapters = [path for path in paths if is_adapter(path)]
    for path in set(paths) - set(adapters) if adapters else ():
        print(f"divwatch: {path} is left out: the other checkpoints are adapters", file=sys.stderr)
    return adapters or paths


def _check_model(path: str) -> None:
    """A missing local path is not looked up on the hub."""
    from divwatch.pretrained import holds_model

    folder = Path(path)
    if folder.is_dir() and not holds_model(folder):
        raise DivwatchError(f"{path} holds no config.json: give a checkpoint that the trainer saved")
    if not folder.is_dir() and (folder.is_absolute() or path.startswith(".") or len(folder.parts) > 2):
        raise DivwatchError(f"checkpoint {path!r} is not there: give a directory or a hub name")
