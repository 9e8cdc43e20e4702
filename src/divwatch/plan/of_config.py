"""What `divwatch plan` needs to know, out of a recipe's config: model, looks, tokens of a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from divwatch.config import WatchConfig, steps_between_looks
from divwatch.errors import DivwatchError


@dataclass(frozen=True)
class Planned:
    """model: as `cost.shape_of` takes it. every: optimizer steps between looks. step_tokens: tokens a step, all devices.
    lora_r: rank of the adapter that is trained, None: the whole model. max_overhead: the share of the time that looks may
    take, 0: any. The defaults are those of a run without a config."""

    model: str
    every: int = 100
    prompts: int = 64
    samples: int = 16
    new_tokens: int = 256
    step_tokens: int = 1_048_576
    lora_r: int | None = None
    max_overhead: float = WatchConfig.max_overhead


def planned(config: Path | None, gpus: int, prompt_tokens: int, given: dict[str, Any]) -> Planned:
    """From the config, what is `given` winning. Raises DivwatchError without a model.

    Rows that are not packed are taken to be as long as a look's prompt and completion, no longer than max_length.
    """
    if config is None:
        if "model" not in given:
            raise DivwatchError("no model: give a recipe's config, or --model olmo3-7b, a directory or a hub name")
        return Planned(**given)
    from divwatch.files import read_yaml

    told = read_yaml(config)
    name = given.get("model") or told.get("model_name_or_path")
    if not name:
        raise DivwatchError(f"{config} names no model_name_or_path: give --model")
    found = Planned(released(str(name)), lora_r=int(told.get("lora_r", 16)) if told.get("use_peft") else None)
    looks = {"prompts": "watch_prompts", "samples": "watch_samples", "new_tokens": "watch_max_new_tokens"}
    watched: dict[str, Any] = {ours: int(told[theirs]) for ours, theirs in looks.items() if theirs in told}
    found = replace(found, **watched, max_overhead=float(told.get("watch_max_overhead", found.max_overhead)))
    step_tokens = _rows(told, gpus) * _row_tokens(told, prompt_tokens + found.new_tokens)
    found = replace(found, step_tokens=step_tokens, every=_every(told, gpus, step_tokens))
    return replace(found, **{k: v for k, v in given.items() if k != "model"})


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


def _rows(told: dict[str, Any], gpus: int) -> int:
    """Rows of an optimizer step: packed sequences, pairs, or completions."""
    return int(told.get("per_device_train_batch_size", 8)) * int(told.get("gradient_accumulation_steps", 1)) * gpus


def _row_tokens(told: dict[str, Any], assumed: int) -> int:
    longest = int(told.get("max_length") or 10**9)
    if told.get("packing"):
        return longest
    answers = 2 if _kind(told) == "preference" else 1
    return answers * min(assumed, longest)


def _kind(told: dict[str, Any]) -> str | None:
    from divwatch.mixes.show import described

    mix = str(told.get("mix") or "")
    return described(mix)["kind"] if mix and not mix.endswith((".json", ".jsonl")) else None


def _every(told: dict[str, Any], gpus: int, step_tokens: int) -> int:
    return steps_between_looks(float(told.get("watch_every", WatchConfig.every)), _steps(told, gpus, step_tokens))


def _steps(told: dict[str, Any], gpus: int, step_tokens: int) -> int:
    """Optimizer steps of the run: told, or from the published size of the mix; 2,000 where that is not known."""
    from divwatch.mixes.show import described

    if int(told.get("max_steps", -1)) > 0:
        return int(told["max_steps"])
    mix = str(told.get("mix") or "")
    known = described(mix) if mix and not mix.endswith((".json", ".jsonl")) else {"tokens": None, "rows": None}
    epochs = float(told.get("num_train_epochs", 3))
    if told.get("packing") and known["tokens"]:
        return max(1, round(epochs * known["tokens"] / step_tokens))
    rows = told.get("mix_rows") or known["rows"]
    return max(1, round(epochs * int(rows) / _rows(told, gpus))) if rows else 2000
