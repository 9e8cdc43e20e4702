"""What `divwatch plan` needs to know, out of a recipe's config: model, looks, and the steps and tokens of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from divwatch.config import WatchConfig, number_in, settings_written_as
from divwatch.errors import DivwatchError
from divwatch.panel import token_limits
from divwatch.plan.like import Like
from divwatch.schedule import AUTO
from divwatch.setting_types import shown


@dataclass(frozen=True)
class Planned:
    """model: as `shape.shape_of` takes it. every, looks, max_overhead: as in `WatchConfig`. max_steps: optimizer steps of the
    run. new_tokens: the most of a completion. mean_tokens: their mean, None: new_tokens. step_tokens: tokens a step, all
    devices. lora_r: rank of the adapter that is trained, None: the whole model. tasks: of the panel. coupled, alpha,
    min_drop: as in `WatchConfig`. blame_rows: rows of each source that `watch_blame` reads, None: it is off. The defaults are
    those of a run without a config."""

    model: str
    every: float | str = AUTO
    looks: int | None = None
    max_steps: int = 2000
    prompts: int = 64
    samples: int = 16
    new_tokens: int = 256
    mean_tokens: float | None = None
    varied: bool = False
    step_tokens: int = 1_048_576
    lora_r: int | None = None
    max_overhead: float = WatchConfig.max_overhead
    tasks: int = 1
    coupled: bool = WatchConfig.coupled
    alpha: float = WatchConfig.alpha
    min_drop: float = WatchConfig.min_drop
    blame_rows: int | None = None


def planned(
    config: Path | None, gpus: int, prompt_tokens: int, options: dict[str, Any], like: Like | None = None
) -> Planned:
    """From the config, without one from the run `like`; `options` win. Raises DivwatchError without a model.

    Completions are as long as in `like`; without it and `mean_tokens`, each has the limit of its task. Rows that are not packed
    are taken to have a look's prompt and an answer of `_answer_tokens`, at most max_length.
    """
    run = _from_run(like, options) if config is None else _from_config(config, gpus, prompt_tokens, options, like)
    varied = like is not None or "mean_tokens" in options
    run = replace(run, **{k: v for k, v in options.items() if k != "model"}, varied=varied)
    if run.mean_tokens is not None and "mean_tokens" not in options:
        run = replace(run, mean_tokens=min(run.mean_tokens, run.new_tokens))
    return run


def _from_run(like: Like | None, options: dict[str, Any]) -> Planned:
    if like is None:
        if "model" not in options:
            raise DivwatchError("no model: give a recipe's config, or --model olmo3-7b, a directory or a hub name")
        return Planned(options["model"])
    settings = like.settings
    return Planned(
        options.get("model") or released(like.model), settings.every, settings.looks, like.max_steps, like.prompts,
        settings.samples, like.longest, like.mean_tokens, max_overhead=settings.max_overhead, tasks=len(like.tokens) or 1,
        coupled=settings.coupled, alpha=settings.alpha, min_drop=settings.min_drop,
        blame_rows=settings.blame_rows if settings.blame else None,
    )  # fmt: skip


def _from_config(config: Path, gpus: int, prompt_tokens: int, options: dict[str, Any], like: Like | None) -> Planned:
    from divwatch.files import read_yaml

    recipe = read_yaml(config)
    name = options.get("model") or recipe.get("model_name_or_path")
    if not name:
        raise DivwatchError(f"{config} names no model_name_or_path: give --model")
    run = Planned(released(str(name)), lora_r=_whole(recipe, "lora_r", 16) if recipe.get("use_peft") else None)
    looks = {"prompts": "watch_prompts", "samples": "watch_samples", "new_tokens": "watch_max_new_tokens"}
    watched: dict[str, Any] = {ours: _whole(recipe, theirs) for ours, theirs in looks.items() if recipe.get(theirs)}
    limits = token_limits(recipe.get("watch_panel"), watched.get("new_tokens"))
    thought = _whole_if_set(recipe, "watch_think_tokens") or 0
    watched["new_tokens"] = max(limits.values()) + thought
    watched["mean_tokens"] = like.mean_within(limits) if like else mean(limits.values()) + thought
    alarm: dict[str, Any] = {
        name: _number(recipe, f"watch_{name}", getattr(run, name)) for name in ("max_overhead", "alpha", "min_drop")
    }
    coupled = recipe.get("watch_coupled", run.coupled) in (True, "true")
    blamed = recipe.get("watch_blame") in (True, "true")
    rows = _whole(recipe, "watch_blame_rows", WatchConfig.blame_rows) if blamed else None
    run = replace(run, **watched, **alarm, tasks=len(limits), coupled=coupled, blame_rows=rows)
    step_tokens = _rows(recipe, gpus) * _row_tokens(recipe, prompt_tokens + _answer_tokens(recipe))
    run = replace(run, step_tokens=step_tokens, max_steps=_steps(recipe, gpus, step_tokens, run.max_steps))
    schedule = {name: recipe[f"watch_{name}"] for name in ("every", "looks") if f"watch_{name}" in recipe}
    with settings_written_as("watch_"):
        watch = WatchConfig(**{name: number_in(value) for name, value in schedule.items()})
    return replace(run, every=watch.every, looks=watch.looks)


def released(name: str) -> str:
    """Olmo 3's checkpoints of one size have one shape, which is known without the hub.

    >>> released("allenai/Olmo-3-7B-Think-SFT"), released("runs/mine")
    ('olmo3-7b', 'runs/mine')
    """
    if name.startswith("allenai/Olmo-3"):
        for size in ("7B", "32B"):
            if size in name:
                return f"olmo3-{size.lower()}"
    return name


def _rows(recipe: dict[str, Any], gpus: int) -> int:
    """Rows of an optimizer step: packed sequences, pairs, or completions."""
    return _whole(recipe, "per_device_train_batch_size", 8) * _whole(recipe, "gradient_accumulation_steps", 1) * gpus


def _row_tokens(recipe: dict[str, Any], assumed: int) -> int:
    longest = _whole_if_set(recipe, "max_length") or 10**9
    if recipe.get("packing"):
        return longest
    answers = 2 if _kind(recipe) == "preference" else 1
    return answers * min(assumed, longest)


def _answer_tokens(recipe: dict[str, Any]) -> int:
    """Mean tokens of an answer that is trained on: of a rollout, a quarter of the longest; else as in docs/recipes.md."""
    if "max_completion_length" in recipe:
        return _whole(recipe, "max_completion_length") // 4
    return 5000 if str(recipe.get("mix") or "").startswith("think") else 840


def _kind(recipe: dict[str, Any]) -> str | None:
    from divwatch.mixes.show import described

    mix = str(recipe.get("mix") or "")
    return described(mix)["kind"] if mix and not mix.endswith((".json", ".jsonl")) else None


def _steps(recipe: dict[str, Any], gpus: int, step_tokens: int, unknown: int) -> int:
    """Optimizer steps of the run: as set, or from the published size of the mix; `unknown` where that is not known."""
    from divwatch.mixes.show import described

    steps = _whole(recipe, "max_steps", -1)
    if steps > 0:
        return steps
    mix = str(recipe.get("mix") or "")
    known = described(mix) if mix and not mix.endswith((".json", ".jsonl")) else {"tokens": None, "rows": None}
    epochs = _number(recipe, "num_train_epochs", 3.0)
    if recipe.get("packing") and known["tokens"]:
        return max(1, round(epochs * known["tokens"] / step_tokens))
    rows = _whole_if_set(recipe, "mix_rows") or known["rows"]
    return max(1, round(epochs * int(rows) / _rows(recipe, gpus))) if rows else unknown


def _number(recipe: dict[str, Any], name: str, default: float = 0.0) -> float:
    """A setting of the config. Texts are numbers too: YAML reads 1e-3 as a text, and a recipe's parser takes it."""
    value = recipe.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DivwatchError(f"{name} is {shown(value)}: give a number")
    return number


def _whole(recipe: dict[str, Any], name: str, default: int = 0) -> int:
    value = _number(recipe, name, default)
    if not value.is_integer():
        raise DivwatchError(f"{name} is {shown(recipe[name])}: give a whole number")
    return int(value)


def _whole_if_set(recipe: dict[str, Any], name: str) -> int | None:
    return _whole(recipe, name) if recipe.get(name) is not None else None
