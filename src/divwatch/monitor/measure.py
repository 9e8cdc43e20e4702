"""`divwatch measure`: a look at each of several checkpoints, stored as the stages of a lineage.

Models M0, M1, M2 become the runs M1 (step 0: M0, step 1: M1) and M2 (step 0: M1, step 1: M2), which report and stage
attribution read like watched runs. Each model is sampled once. A single model becomes one run with one look.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from divwatch.config import COMPARABLE, WatchConfig
from divwatch.errors import DivwatchError
from divwatch.monitor.description import describe_run
from divwatch.monitor.look import take_look
from divwatch.monitor.panel_of_run import panel_of_run
from divwatch.monitor.record import look_row
from divwatch.monitor.score_look import Models, load_models
from divwatch.outputs.terminal import bar_of, say, unreadable_line
from divwatch.panel import choose, load_panel
from divwatch.panel.form import in_forms
from divwatch.panel.length import of_the_paper
from divwatch.pretrained import holds_model, load_model, load_tokenizer
from divwatch.records import Prompt, ScoredLook
from divwatch.sampling.ranks import LookFailed
from divwatch.smollm2 import resolve_model
from divwatch.store.run_directory import RunDirectory
from divwatch.verify import check_verifiers

# Settings by preset. The paper's protocol has up to 500 prompts a task (TruthfulQA 817, IFEval 541), so all of its panel.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {"panel": "paper", "prompts": 10_000, "samples": 16, "temperature": 0.6, "top_p": 0.95},
}


def settings_like(run: RunDirectory, changes: dict[str, Any]) -> WatchConfig:
    """The settings of a watched run. Raises DivwatchError if `changes` would make looks incomparable."""
    theirs = run.info()["settings"]
    differ = [f"{k} {v!r} instead of {theirs[k]!r}" for k, v in changes.items() if k in COMPARABLE and v != theirs[k]]
    if differ:
        raise DivwatchError(f"not comparable with {run.path}: {', '.join(differ)}; leave these options out")
    return WatchConfig.of_record(theirs | changes)


def measure(
    models: Sequence[str],
    out: Path,
    config: WatchConfig,
    like: RunDirectory | None = None,
    device: str | None = None,
    paper: bool = False,
) -> list[RunDirectory]:
    """Takes a look at each of `models`; returns the runs that were written.

    models: directories, hub names or `smollm2`, in the order of training. like: a watched run, whose prompts must be the same.
    paper: with the token limits of the paper's protocol, under which answers and thoughts come to their end.
    Raises DivwatchError if a model cannot be loaded or the prompts differ.
    """
    import torch

    panel, prompts = panel_of_run(like) if like is not None else panel_of(config, paper)
    check_verifiers(prompts, unsafe_code=config.unsafe_code)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_models(config, device)
    runs: list[RunDirectory] = []
    looks: list[ScoredLook] = []
    last = min(len(models) - 1, 1)  # the step of a stage's own look
    sources = [resolve_model(model) for model in models]
    for name, model in list(zip(_names(models), sources, strict=True))[last:]:
        run = RunDirectory(out / name / "divwatch")
        run.create(
            describe_run(
                stage=name,
                lineage=config.lineage or out.name,
                model=model,
                output_dir=str(out / name),
                parent=runs[-1] if runs else None,
                config=config,
                panel=panel,
                prompts=prompts,
                max_steps=last,
                trainer="measure",
                **({} if runs or not last else {"base": _names(models)[0]}),
            )
        )
        if runs:
            _copy_look(runs[-1], run)
        elif last:
            looks.append(_look_at(sources[0], prompts, config, loaded, run, 0, device))
        looks.append(_look_at(model, prompts, config, loaded, run, last, device))
        runs.append(run)
    if unreadable := max(look.unreadable for look in looks):
        say(unreadable_line(unreadable, len(prompts), config.encoder, "--encoder"))
    return runs


def panel_of(config: WatchConfig, paper: bool) -> tuple[dict[str, Any], list[Prompt]]:
    """What run.json says of the panel, and its prompts."""
    name, panel = load_panel(config.panel, note=lambda line: say(f"divwatch: {line}"))
    panel = of_the_paper(panel) if paper else panel
    return {"name": name}, in_forms(choose(panel, config.prompts, config.seed), config.thinking)


def _look_at(
    name: str, prompts: Any, config: WatchConfig, loaded: Models, run: RunDirectory, step: int, device: str
) -> ScoredLook:
    """Takes a look and appends it to `run`."""
    model, tokenizer = load_model(name, dtype="auto"), load_tokenizer(name)
    model = model.to(device)
    with bar_of(f"look at {name}", len(prompts) * config.samples) as bar:
        try:
            look = take_look(model, tokenizer, prompts, config, loaded, run, step, bar.update)
        except LookFailed as error:
            raise DivwatchError(f"model {name!r} cannot be measured: {error}") from None
    run.append_look(look_row(look, look.sample_seconds + look.score_seconds))
    return look


def _copy_look(source: RunDirectory, target: RunDirectory) -> None:
    """The last look of a stage (step 1) becomes the first look of the next one (step 0)."""
    for part in ("completions", "scores"):
        shutil.copyfile(source.path / part / "step-00000001.parquet", target.path / part / "step-00000000.parquet")
    target.append_look(source.looks()[-1] | {"step": 0})


def checkpoints_of(folder: Path) -> list[str]:
    """The checkpoints that a trainer wrote into `folder`, in the order of their steps.

    Raises DivwatchError if it holds none.
    """
    numbered = [p for p in folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    whole = [p for p in numbered if holds_model(p)]
    if not whole:
        raise DivwatchError(f"{folder} holds no checkpoint-N with a model: give a trainer's output_dir")
    return [str(p) for p in sorted(whole, key=lambda p: int(p.name.removeprefix("checkpoint-")))]


def _names(models: Sequence[str]) -> list[str]:
    """The names of the directories, with their position in front if two are the same."""
    names = [Path(model).name or model for model in models]
    return [f"{i}-{name}" if names.count(name) > 1 else name for i, name in enumerate(names)]
