"""The size of a model, as its cost depends on it: read from its config, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.smollm2 import resolve_model

BYTES = 2  # per weight in bf16


@dataclass(frozen=True)
class Shape:
    """The size of a model.

    parameters:   number of parameters.
    layers:       number of layers.
    token_bytes:  bytes of keys and values per token.
    vocabulary:   number of tokens in the vocabulary.
    weight_bytes: bytes per weight.
    trained:      parameters of the adapter, if one is trained; None: the whole model is trained.
    lookup:       parameters that are looked up, not multiplied: embeddings that are not tied to the head.
    head:         parameters of the head. In a prefill, only the last token of a prompt needs it.
    adapted:      linear layers with an adapter.
    """

    parameters: int
    layers: int
    token_bytes: int
    vocabulary: int
    weight_bytes: int = BYTES
    trained: int | None = None
    lookup: int = 0
    head: int = 0
    adapted: int = 0

    @property
    def multiplied(self) -> int:
        return self.parameters - self.lookup


# Olmo 3's published shapes, for when no checkpoint is at hand: config fields of Olmo3Config.
KNOWN: dict[str, dict[str, Any]] = {
    "olmo3-7b": {"vocab_size": 100278, "num_key_value_heads": 32, "max_position_embeddings": 65536},
    "olmo3-32b": {
        "vocab_size": 100278,
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "max_position_embeddings": 65536,
    },
}


def shape_of(model: str, dtype: str = "bfloat16", lora_r: int | None = None) -> Shape:
    """The shape of a known model, a directory or a hub name. Built on the meta device: no weights are read.

    lora_r: the rank of a LoRA adapter that is trained on all linear layers but the head; None: the model itself is trained.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Olmo3Config

    try:
        config = Olmo3Config(**KNOWN[model]) if model in KNOWN else AutoConfig.from_pretrained(resolve_model(model))
    except (OSError, ValueError) as error:
        raise DivwatchError(
            f"model {model!r} has no config that can be read ({one_line(error, kind=False)}): "
            f"give a directory, a hub name, or {', '.join(KNOWN)}"
        ) from None
    with torch.device("meta"):
        model_on_meta = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return shape_of_model(model_on_meta, lora_r)


def shape_of_model(model: Any, lora_r: int | None = None) -> Shape:
    """The shape of a loaded model, on any device."""
    import torch

    from divwatch.sampling.memory import token_bytes

    text = model.config.get_text_config()
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head] if lora_r else []
    trained = lora_r and lora_r * sum(m.in_features + m.out_features for m in linears)
    return Shape(
        sum(p.numel() for p in model.parameters()),
        text.num_hidden_layers,
        token_bytes(model),
        text.vocab_size,
        next(model.parameters()).element_size(),
        trained,
        0 if head is not None and table.weight is head.weight else table.weight.numel(),
        0 if head is None else head.weight.numel(),
        len(linears),
    )
