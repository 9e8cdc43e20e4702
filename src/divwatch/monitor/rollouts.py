"""Free looks in GRPO and RLOO: the rollouts are groups of completions of one prompt already.

Their diversity, and that of the right ones, is measured where the trainer computes rewards, and logged through the
trainer's own `log_metric` as `rollouts/diversity/<metric>` and `rollouts/correct_diversity/<metric>`. Nothing more is
generated. These are training prompts at the trainer's temperature: a curve to watch, never part of the verdict.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from divwatch.config import WatchConfig
from divwatch.errors import one_line
from divwatch.outputs.terminal import say
from divwatch.records import PromptSamples
from divwatch.verify.thinking import final_answer

# An answer is right where the first reward function gives more.
RIGHT = 0.5
# Of a step's groups on one rank, so many are measured: a mean over more would cost more than it tells.
GROUPS = 16
# Those that need nothing but the texts; a canonical answer is not known here, and NLI is too dear for every step.
METRICS = ("ead", "sbert", "vendi")


def watch_rollouts(trainer: Any, config: WatchConfig, load_encoder: Callable[[], Any]) -> bool:
    """Wraps the first plain reward function of a trainer that has any; whether there was one.

    `load_encoder` is called with the first rollouts, where a metric needs one.
    """
    functions = getattr(trainer, "reward_funcs", None) or []
    metrics = [name for name in config.metrics if name in METRICS]
    for i, function in enumerate(functions):
        if _plain(function) and metrics:
            functions[i] = _measured(function, metrics, load_encoder)
            return True
    return False


def _plain(function: Any) -> bool:
    import inspect

    from torch.nn import Module

    return not isinstance(function, Module) and not inspect.iscoroutinefunction(function)


def _measured(
    function: Callable[..., Any], metrics: Sequence[str], load_encoder: Callable[[], Any]
) -> Callable[..., Any]:
    models: list[Any] = []
    failed = False

    @functools.wraps(function)
    def rewards(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Any:
        nonlocal failed
        given = function(prompts=prompts, completions=completions, **columns)
        if failed or "log_metric" not in columns:
            return given
        try:
            if not models:
                models.append(load_encoder())
            for name, value in rollout_diversity(prompts, completions, given, metrics, models[0]).items():
                columns["log_metric"](name, value)
        except Exception as error:  # watching never fails training
            failed = True
            say(f"divwatch: rollouts are not watched any more: {one_line(error)}")
        return given

    return rewards


def rollout_diversity(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    rewards: Sequence[float | None],
    metrics: Sequence[str],
    encoder: Any,
) -> dict[str, float]:
    """Means over the groups of this rank by logged name; a group of which less than two are here is left out.

    prompts, completions: [n] texts or conversations, a group's one after the other; rewards: [n].
    """
    from divwatch.metrics.scoring import score_prompts

    samples = _groups(prompts, completions, rewards)[:GROUPS]
    if not samples:
        return {}
    scores = score_prompts(samples, metrics, encoder)
    found = {}
    for key, values in scores.values.items():
        group = key.split("/")[0]
        if group in ("diversity", "correct_diversity") and np.isfinite(values).any():
            found[f"rollouts/{key}"] = float(np.nanmean(values))
    return found


def _groups(prompts: Sequence[Any], completions: Sequence[Any], rewards: Sequence[float | None]) -> list[PromptSamples]:
    rows = [
        (json.dumps(prompt, default=str), final_answer(_text(completion)) or "", reward is not None and reward > RIGHT)
        for prompt, completion, reward in zip(prompts, completions, rewards, strict=True)
    ]
    made = []
    for number, (_, group) in enumerate(groupby(rows, key=lambda row: row[0])):
        members = list(group)
        if len(members) >= 2:
            outputs, right = [text for _, text, _ in members], [ok for _, _, ok in members]
            made.append(PromptSamples(str(number), "rollouts", outputs, [bool(o) for o in outputs], right))
    return made


def _text(completion: Any) -> str:
    """The text of a completion, which may be a conversation."""
    if isinstance(completion, str):
        return completion
    return "\n".join(str(turn.get("content") or "") for turn in completion if turn.get("role") == "assistant")
