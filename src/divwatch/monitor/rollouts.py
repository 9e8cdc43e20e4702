"""Diversity of the rollouts of GRPO and RLOO, which are groups of completions of one prompt: no extra sampling.

It is measured where the trainer computes rewards, over all rollouts and over the correct ones, and logged through the
trainer's `log_metric` as `rollouts/diversity/<metric>` and `rollouts/correct_diversity/<metric>`. The prompts are those of
training, at the trainer's temperature, so it is never part of the verdict.

The trainer deals the rollouts of a step out to its ranks, so a reward function may see a part of a group, or a single
completion. Rank 0 collects them in the trainer's order and measures whole groups: the values do not depend on the launch.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from divwatch.config import WatchConfig
from divwatch.errors import one_line
from divwatch.outputs.terminal import say
from divwatch.records import PromptSamples
from divwatch.sampling.ranks import ALONE, Ranks
from divwatch.verify.thinking import final_answer

Rollouts = list[tuple[str, str, float | None]]  # of each rollout its prompt, answer and reward

# A completion is correct if the first reward function gives more than this.
CORRECT_REWARD = 0.5
# Groups that are measured at each step; the mean over more would cost time and hardly change.
MAX_GROUPS = 16
# Metrics that need only the texts; canonical answers are not known here, and NLI is too expensive for every step.
METRICS = ("ead", "sbert", "vendi")


def watch_rollouts(trainer: Any, config: WatchConfig, load_encoder: Callable[[], Any]) -> bool:
    """Wraps the trainer's first reward function that is a plain function; returns whether it has one.

    load_encoder: called at the first rollouts; returns the encoder, or None if no metric needs one.
    """
    functions = getattr(trainer, "reward_funcs", None) or []
    metrics = [name for name in config.metrics if name in METRICS]
    for i, function in enumerate(functions):
        if _is_plain(function) and metrics:
            functions[i] = _measure_rollouts(
                function, metrics, load_encoder, _ranks_of(trainer), _most_rollouts(trainer)
            )
            return True
    return False


def unwatch_rollouts(trainer: Any) -> None:
    """Gives the trainer the reward functions back that `watch_rollouts` has wrapped."""
    functions = getattr(trainer, "reward_funcs", None) or []
    for i, function in enumerate(functions):
        if getattr(function, "measured_by_divwatch", False):
            functions[i] = function.__wrapped__


def _ranks_of(trainer: Any) -> Ranks:
    """The ranks that compute rewards together: all, in trainers that do it in the training step, else this one alone."""
    in_step = {kind.__name__ for kind in type(trainer).__mro__} & {"GRPOTrainer", "RLOOTrainer"}
    return Ranks.of(trainer.accelerator) if in_step else ALONE


def _most_rollouts(trainer: Any) -> int:
    """Rollouts that hold MAX_GROUPS groups, in training and in evaluation."""
    return MAX_GROUPS * max(getattr(trainer, name, 1) for name in ("num_generations", "num_generations_eval"))


def _is_plain(function: Any) -> bool:
    import inspect

    from torch.nn import Module

    inner = function
    while isinstance(inner, functools.partial):  # as TRL tells which rewards it awaits
        inner = inner.func
    awaited = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(inner.__call__)
    return not isinstance(function, Module) and not awaited


def _measure_rollouts(
    function: Callable[..., Any], metrics: Sequence[str], load_encoder: Callable[[], Any], ranks: Ranks, most: int
) -> Callable[..., Any]:
    models: list[Any] = []
    failed = False

    def measure(parts: Sequence[Rollouts | Exception], log_metric: Callable[[str, float], None]) -> None:
        for part in parts:
            if isinstance(part, Exception):
                raise part
        rollouts = [rollout for part in parts for rollout in part]  # type: ignore[union-attr]
        if not models:
            models.append(load_encoder())
        prompts, texts, rewards = zip(*rollouts[:most], strict=True) if rollouts else ((), (), ())
        for name, value in rollout_diversity(prompts, texts, rewards, metrics, models[0]).items():
            log_metric(name, value)

    @functools.wraps(function)
    def rewards(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Any:
        nonlocal failed
        result = function(prompts=prompts, completions=completions, **columns)
        if "log_metric" not in columns:
            return result
        own: Rollouts | Exception
        try:
            sent = max(
                0, most - ranks.rank * len(prompts)
            )  # the trainer deals out equal parts in the order of the ranks
            own = _rollouts(prompts[:sent], completions[:sent], result[:sent])
        except Exception as error:
            own = error
        parts = ranks.collect(own)  # also after a failure: the other ranks do not know of it
        if parts and not failed:
            try:
                measure(parts, columns["log_metric"])
            except Exception as error:  # watching never fails training
                failed = True
                say(f"divwatch: rollouts are no longer measured: {one_line(error)}")
        return result

    rewards.measured_by_divwatch = True  # type: ignore[attr-defined]
    return rewards


def _rollouts(prompts: Sequence[Any], completions: Sequence[Any], rewards: Sequence[Any]) -> Rollouts:
    """What rank 0 needs of each rollout: its prompt in short, its answer and its reward."""
    return [
        (
            hashlib.sha256(json.dumps(prompt, default=str).encode()).hexdigest(),
            final_answer(_text(completion)) or "",
            None if reward is None else float(reward),
        )
        for prompt, completion, reward in zip(prompts, completions, rewards, strict=True)
    ]


def rollout_diversity(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    rewards: Sequence[float | None],
    metrics: Sequence[str],
    encoder: Any,
) -> dict[str, float]:
    """Name -> mean over the groups with at least two completions, at most MAX_GROUPS of them.

    prompts, completions: [n] texts or conversations, those of a group next to each other. rewards: [n].
    """
    from divwatch.metrics.scoring import score_prompts

    samples = _groups(prompts, completions, rewards)[:MAX_GROUPS]
    if not samples:
        return {}
    scores = score_prompts(samples, metrics, encoder)
    means = {}
    for key, values in scores.values.items():
        group = key.split("/")[0]
        if group in ("diversity", "correct_diversity") and np.isfinite(values).any():
            means[f"rollouts/{key}"] = float(np.nanmean(values))
    return means


def _groups(prompts: Sequence[Any], completions: Sequence[Any], rewards: Sequence[float | None]) -> list[PromptSamples]:
    rows = [
        (
            json.dumps(prompt, default=str),
            final_answer(_text(completion)) or "",
            reward is not None and reward > CORRECT_REWARD,
        )
        for prompt, completion, reward in zip(prompts, completions, rewards, strict=True)
    ]
    groups = []
    for number, (_, group) in enumerate(groupby(rows, key=lambda row: row[0])):
        members = list(group)
        if len(members) >= 2:
            outputs, correct = [text for _, text, _ in members], [ok for _, _, ok in members]
            groups.append(PromptSamples(str(number), "rollouts", outputs, [bool(o) for o in outputs], correct))
    return groups


def _text(completion: Any) -> str:
    """The text of a completion, which may be a conversation."""
    if isinstance(completion, str):
        return completion
    return "\n".join(str(turn.get("content") or "") for turn in completion if turn.get("role") == "assistant")
