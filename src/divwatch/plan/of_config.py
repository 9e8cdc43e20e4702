"""What `divwatch plan` needs to know, out of a recipe's config: model, looks, and the steps and tokens of the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.panel import token_limits
from divwatch.plan.like import Like
from divwatch.schedule import AUTO
from divwatch.setting_types import number_of, whole_if_set, whole_of


@dataclass(frozen=True)
class Planned:
    """model: as `shape.shape_of` takes it. every, looks, max_overhead: as in `WatchConfig`. max_steps: optimizer steps of the
    run. new_tokens: the most of a completion. mean_tokens: their mean, None: new_tokens. step_tokens: tokens a step, all
    devices. lora_r: rank of the adapter that is trained, None: the whole model. tasks: of the panel. coupled, alpha,
    min_drop: as in `WatchConfig`. prompts, tasks: with `watch_thinking: both` in both forms. blame_rows: rows of each source
    that `watch_blame` reads, None: it is off. blame_sources: of the training data, None: not known. The defaults are those of a
    run without a config."""

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
    blame_sources: int | None = None


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
        blame_rows=settings.blame_rows if settings.blame and like.sources else None, blame_sources=like.sources,
    )  # fmt: skip


def _from_config(config: Path, gpus: int, prompt_tokens: int, options: dict[str, Any], like: Like | None) -> Planned:
    from divwatch.files import read_yaml

    recipe = read_yaml(config)
    name = options.get("model") or recipe.get("model_name_or_path")
    if not name:
        raise DivwatchError(f"{config} names no model_name_or_path: give --model")
    watch = WatchConfig.from_recipe(recipe)
    limits = token_limits(watch.panel, watch.max_new_tokens)
    by_task = _by_task(limits, watch)
    both = 2 if watch.thinking == "both" else 1
    blamed = watch.blame and _kind(recipe) != "rl"  # GRPO is not blamed
    run = Planned(
        released(str(name)), watch.every, watch.looks, prompts=both * watch.prompts, samples=watch.samples,
        new_tokens=max(limits.values()) + (watch.think_tokens or 0),
        mean_tokens=like.mean_within(by_task) if like else mean(by_task.values()),
        lora_r=whole_of(recipe, "lora_r", 16) if recipe.get("use_peft") else None, max_overhead=watch.max_overhead,
        tasks=len(by_task), coupled=watch.coupled, alpha=watch.alpha, min_drop=watch.min_drop,
        blame_rows=watch.blame_rows if blamed else None,
        blame_sources=_sources(recipe) or (like.sources if like else None),
    )  # fmt: skip
    step_tokens = _rows(recipe, gpus) * _row_tokens(recipe, prompt_tokens + _answer_tokens(recipe))
    return replace(run, step_tokens=step_tokens, max_steps=_steps(recipe, gpus, step_tokens, run.max_steps))


def _by_task(limits: dict[str, int], watch: WatchConfig) -> dict[str, int]:
    """Task -> most tokens of an answer in the forms in which it is asked, with its thought where it thinks.

    limits: task -> most tokens without a thought.
    """
    asked: dict[str, int] = {}
    if watch.thinking != "as-trained":
        asked |= limits
    if watch.thinking != "off":
        suffix = "-thinking" if watch.thinking == "both" else ""
        asked |= {f"{task}{suffix}": limit + (watch.think_tokens or 0) for task, limit in limits.items()}
    return asked


def _sources(recipe: dict[str, Any]) -> int | None:
    """Number of sources of the mix that the run trains on; None if the mix does not say."""
    from divwatch.mixes.definition import find_mix, with_selection
    from divwatch.mixes.show import described
    from divwatch.recipe import selection_in

    mix = str(recipe.get("mix") or "")
    if not mix or mix.endswith((".json", ".jsonl")):
        return None
    asked = selection_in(recipe)
    if not mix.startswith("tiny/"):
        asked = with_selection(find_mix(mix), asked)
    return sum(asked.wants(source["name"]) for source in described(mix)["sources"]) or None


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
    return (
        whole_of(recipe, "per_device_train_batch_size", 8) * whole_of(recipe, "gradient_accumulation_steps", 1) * gpus
    )


def _row_tokens(recipe: dict[str, Any], assumed: int) -> int:
    longest = whole_if_set(recipe, "max_length") or 10**9
    if recipe.get("packing"):
        return longest
    answers = 2 if _kind(recipe) == "preference" else 1
    return answers * min(assumed, longest)


def _answer_tokens(recipe: dict[str, Any]) -> int:
    """Mean tokens of an answer that is trained on: of a rollout, a quarter of the longest; else as in docs/recipes.md."""
    if "max_completion_length" in recipe:
        return whole_of(recipe, "max_completion_length") // 4
    return 5000 if str(recipe.get("mix") or "").startswith("think") else 840


def _kind(recipe: dict[str, Any]) -> str | None:
    from divwatch.mixes.show import described

    mix = str(recipe.get("mix") or "")
    return described(mix)["kind"] if mix and not mix.endswith((".json", ".jsonl")) else None


def _steps(recipe: dict[str, Any], gpus: int, step_tokens: int, unknown: int) -> int:
    """Optimizer steps of the run: as set, or from the published size of the mix; `unknown` where that is not known."""
    from divwatch.mixes.show import described

    steps = whole_of(recipe, "max_steps", -1)
    if steps > 0:
        return steps
    mix = str(recipe.get("mix") or "")
    known = described(mix) if mix and not mix.endswith((".json", ".jsonl")) else {"tokens": None, "rows": None}
    epochs = number_of(recipe, "num_train_epochs", 3.0)
    if recipe.get("packing") and known["tokens"]:
        return max(1, round(epochs * known["tokens"] / step_tokens))
    rows = whole_if_set(recipe, "mix_rows") or known["rows"]
    return max(1, round(epochs * int(rows) / _rows(recipe, gpus))) if rows else unknown
