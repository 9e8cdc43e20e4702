"""What of a trainer's model and settings cannot be watched: checked when the monitor is attached, not at the first look."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.sampling.known import uses_prompt_learning
from divwatch.sampling.memory import has_attention_only
from divwatch.sampling.tokens import stop_tokens


def check_watchable(trainer: Any, tokenizer: Any, config: WatchConfig) -> None:
    """Raises DivwatchError, one line with the fix, for what would fail at every look."""
    _check_model(trainer.model)
    _check_launch(trainer.accelerator)
    _check_backend(trainer, config)
    stop_tokens(trainer.model, tokenizer)


def why_uncoupled(config: WatchConfig) -> str | None:
    """One line if the backend cannot sample with divwatch's random numbers; else None."""
    if config.backend == "transformers":
        return None
    return (
        f"watch_backend {config.backend} draws with random numbers of its own, so looks are sampled independently "
        "(watch_coupled is false) and small changes take longer to show"
    )


def _check_model(model: Any) -> None:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = type(base).__name__
    if getattr(getattr(base, "config", None), "is_encoder_decoder", False):
        raise DivwatchError(f"{name} is an encoder-decoder model: only decoder-only language models can be watched")
    writes = base.can_generate() if hasattr(base, "can_generate") else hasattr(base, "generate")
    if not writes:
        raise DivwatchError(f"{name} writes no text: watch a causal language model (AutoModelForCausalLM)")


def _check_launch(accelerator: Any) -> None:
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if accelerator.num_processes > 1 and plugin is not None and getattr(plugin, "fsdp_version", 2) == 1:
        raise DivwatchError("FSDP version 1 cannot be watched: set fsdp_version: 2 (configs/accelerate/fsdp2.yaml)")


def _check_backend(trainer: Any, config: WatchConfig) -> None:
    backend = config.backend
    if backend == "transformers":
        return
    remedy = "set watch_backend: transformers"
    if config.think_tokens is not None:
        raise DivwatchError(f"watch_backend {backend} closes no thought: {remedy}, or leave watch_think_tokens out")
    if uses_prompt_learning(trainer.model):
        raise DivwatchError(f"watch_backend {backend} knows no virtual tokens (prompt learning): {remedy}")
    if backend == "continuous" and not has_attention_only(trainer.model):
        raise DivwatchError(f"watch_backend continuous takes models with attention only: {remedy}")
    if backend == "vllm" and getattr(trainer, "vllm_generation", None) is None and find_spec("vllm") is None:
        raise DivwatchError(f"watch_backend vllm needs vLLM: pip install 'divwatch[vllm]', or {remedy}")
