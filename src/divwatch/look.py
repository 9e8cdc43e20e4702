"""One look, from the model to the store: sample -> store completions -> verify -> score -> store scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from divwatch.config import WatchConfig
from divwatch.records import Prompt, PromptSamples, PromptScores
from divwatch.store import RunDirectory


@dataclass(frozen=True)
class Look:
    """What one look saw. `line` is its line in looks.jsonl, without a verdict; `comparable` is whether enough was usable."""

    step: int
    samples: list[PromptSamples]
    scores: PromptScores
    comparable: bool
    line: dict[str, Any]


class Models(NamedTuple):
    """What the metrics read texts with; None where no metric needs it."""

    encoder: Any
    nli: Any


def load_models(config: WatchConfig, device: str = "cpu") -> Models:
    """The encoder and the NLI classifier that the metrics need. Raises DivwatchError where one cannot be loaded."""
    from divwatch.metrics.encoder import load_encoder
    from divwatch.metrics.nli import load_nli
    from divwatch.scoring import needs_encoder

    encoder = load_encoder(config.encoder, device=device) if needs_encoder(config.metrics) else None
    nli = load_nli(config.nli_model, device=device) if config.nli_model and "nli" in config.metrics else None
    return Models(encoder, nli)


def take_look(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: WatchConfig,
    models: Models,
    store: RunDirectory,
    step: int,
    progress: Callable[[int], Any] = lambda done: None,
) -> Look:
    """Samples, judges and scores `prompts`; completions are stored before they are scored, so that a crash loses none."""
    from divwatch.sampling import sample
    from divwatch.scoring import score_prompts, summarise
    from divwatch.verify import judge_samples

    started = time.monotonic()
    seed = config.seed * 1_000_003 + step  # the samples of two looks are independent
    completions = sample(model, tokenizer, prompts, config, seed, progress)
    sampled = time.monotonic()
    store.write_completions(step, completions)
    samples = judge_samples(prompts, completions)
    finished = np.reshape([c.finished for c in completions], (len(samples), -1))
    scores = score_prompts(
        samples, config.metrics, models.encoder, models.nli, seed=config.seed, finished=finished.tolist()
    )
    store.write_judged(step, completions, samples)
    store.write_scores(step, scores)
    usable = float(np.mean([s.usable for s in samples]))
    comparable = usable >= config.min_usable
    done = time.monotonic()
    line = {
        "step": step,
        "status": "ok" if comparable else "not_comparable",
        "reason": None if comparable else f"{usable:.0%} of the outputs are finished and readable",
        "time": time.time(),
        "seconds": {
            "sample": round(sampled - started, 3),
            "score": round(done - sampled, 3),
            "total": round(done - started, 3),
        },
        "usable_share": usable,
        "finished_share": float(finished.mean()),
        "tasks": summarise(scores, seed=config.seed),
    }
    return Look(step, samples, scores, comparable, line)


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
