"""A causal language model, and its tokenizer, by directory or hub name; an error says which one cannot be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.smollm2 import resolve_model

ADAPTER = "adapter_config.json"


def load_tokenizer(name: str, **options: Any) -> Any:
    """options: of transformers' `from_pretrained`. Raises DivwatchError if it cannot be loaded."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, "the tokenizer of", name, options)


def load_model(name: str, **options: Any) -> Any:
    """The same for the model; options may hold `dtype`."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, "model", name, options)


def load_adapter(name: str, **options: Any) -> Any:
    """An adapter on its base model, by peft. options: `is_trainable`, `dtype`."""
    from peft import AutoPeftModelForCausalLM

    return _load(AutoPeftModelForCausalLM, "adapter", name, options)


def is_adapter(name: str) -> bool:
    return (Path(name) / ADAPTER).is_file()


def holds_model(folder: Path) -> bool:
    """Whether the directory holds a model or an adapter."""
    return any((folder / name).is_file() for name in ("config.json", ADAPTER))


def _load(reader: Any, what: str, name: str, options: dict[str, Any]) -> Any:
    try:
        return reader.from_pretrained(resolve_model(name), **options)
    except (OSError, ValueError) as error:
        raise DivwatchError(
            f"{what} {name!r} cannot be loaded ({one_line(error, kind=False)}): "
            "give a directory that holds it, or a hub name that can be reached"
        ) from None
