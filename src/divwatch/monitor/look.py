"""One look at a model outside training, and what run.json says of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from divwatch.config import WatchConfig
from divwatch.monitor.scorer import Models, Scorer
from divwatch.records import Prompt
from divwatch.store.run_directory import RunDirectory


def take_look(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: WatchConfig,
    models: Models,
    store: RunDirectory,
    step: int,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Samples, stores and scores `prompts` in one process; returns the look's line for looks.jsonl."""
    from divwatch.sampling import Source, sample
    from divwatch.sampling.sampler import look_seed

    started = time.monotonic()
    completions = sample(Source(model), tokenizer, prompts, config, look_seed(config, step), progress)
    store.write_completions(step, completions)
    line = Scorer(store, prompts, config, 2, models).score(step, time.monotonic() - started)["line"]
    line["seconds"]["total"] = round(time.monotonic() - started, 3)
    return line


def describe_run(
    *,
    stage: str,
    lineage: str,
    model: str,
    output_dir: str,
    parent: RunDirectory | None,
    config: WatchConfig,
    panel_name: str,
    prompts: Sequence[Prompt],
    max_steps: int,
    **more: Any,
) -> dict[str, Any]:
    """What run.json says: enough to tell what was looked at, with which settings, and which run came before."""
    from divwatch.panel import fingerprint

    return {
        "divwatch": _version("divwatch"),
        "stage": stage,
        "lineage": lineage,
        "model": model,
        "output_dir": str(output_dir),
        "parent": str(parent.path.resolve()) if parent else None,
        "settings": config.as_dict(),
        "panel": {
            "name": panel_name,
            "fingerprint": fingerprint(prompts),
            "prompts": [{"id": p.id, "task": p.task, "text": p.text} for p in prompts],
        },
        "versions": {name: _version(name) for name in ("torch", "transformers", "trl", "accelerate", "wandb")},
        "max_steps": max_steps,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **more,
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
