"""How much memory a rank has left, and what a row of a batch needs of it."""

from __future__ import annotations

import gc
from typing import Any

# Of what is free on a device, for keys, values and logits; activations and the allocator's loss need the rest.
MEMORY_SHARE = 0.7
# Of a row's logits, a token of the vocabulary: those of this step and of the last, at most 4 bytes each. What the
# sampler needs beside does not grow with the rows.
LOGIT_BYTES = 8


def free_bytes(device: Any) -> int:
    """What is free on the device, the allocator's unused share included; on a CPU what the system can give."""
    if device.type == "cpu":
        import psutil

        return psutil.virtual_memory().available
    import torch

    module = torch.get_device_module(device)
    unused = module.memory_reserved(device) - module.memory_allocated(device)
    return module.mem_get_info(device)[0] + unused


def token_bytes(model: Any) -> int:
    """Bytes of keys and values that a model keeps for a token of a row, in its layers with attention.

    At least one hidden state: a state-space model keeps nothing for a token, but computes that much when it reads one.
    """
    config, size = _text_config(model), next(model.parameters()).element_size()
    heads = _number(config, "num_key_value_heads", "num_attention_heads", "num_heads", "n_head") or 1
    of_queries = _number(config, "num_attention_heads", "num_heads", "n_head") or 1
    width = _number(config, "head_dim") or (_number(config, "hidden_size") or 1) // of_queries
    layers = sum(attention for attention, _ in _layers(config))
    return max(1, size * max(2 * layers * heads * width, _number(config, "hidden_size") or 1))


def state_bytes(model: Any) -> int:
    """Bytes of recurrent and convolution states that a model keeps for a row, however long it is: an upper estimate.

    Gated delta rule: a matrix of keys by values for each head. Selective state spaces: `state size` numbers a channel.
    """
    config = _text_config(model)
    hidden = _number(config, "hidden_size") or 1
    delta = (
        (_number(config, "linear_num_value_heads") or 0)
        * (_number(config, "linear_key_head_dim") or 0)
        * (_number(config, "linear_value_head_dim") or 0)
    )
    channels = _number(config, "mamba_intermediate", "mamba_d_ssm") or hidden * (
        _number(config, "mamba_expand", "expand") or 2
    )
    state = _number(config, "mamba_d_state", "mamba_state_size", "ssm_state_size", "state_size") or 0
    convolution = _number(config, "mamba_d_conv", "conv_kernel", "conv_L_cache", "linear_conv_kernel_dim") or 4
    layers = sum(linear for _, linear in _layers(config))
    # Recurrent states are often kept in fp32, whatever the weights are.
    return 4 * layers * (max(delta, channels * state) + 2 * channels * convolution)


def row_tokens(model: Any) -> int:
    """What a row's logits and states take beside its tokens, counted in tokens of the cache."""
    vocabulary = _number(_text_config(model), "vocab_size") or 0
    return (LOGIT_BYTES * vocabulary + state_bytes(model)) // token_bytes(model)


def has_attention_only(model: Any) -> bool:
    """Whether no layer keeps states of linear attention."""
    return not any(linear for _, linear in _layers(_text_config(model)))


def context_length(model: Any) -> int | None:
    """Tokens that the model reads at most, as its config says; None if it names no limit."""
    return _number(_text_config(model), "max_position_embeddings")


def _layers(config: Any) -> list[tuple[bool, bool]]:
    """For each layer whether it keeps keys and values, and whether it keeps states of linear attention."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, LinearAttentionCacheLayerMixin

    try:
        layers = DynamicCache(config=config).layers
    except Exception:  # a config that names its layers in its own way
        layers = []
    kinds = [(isinstance(x, DynamicLayer), isinstance(x, LinearAttentionCacheLayerMixin)) for x in layers]
    return kinds or [(True, False)] * (_number(config, "num_hidden_layers", "num_layers", "n_layer") or 1)


def _text_config(model: Any) -> Any:
    """The config of the part that writes text; the whole one if it names none or several."""
    try:
        return model.config.get_text_config(decoder=True)
    except Exception:
        return model.config


def _number(config: Any, *names: str) -> int | None:
    """The first of `names` that the config has as a number, the largest if it has a list for the layers."""
    for name in names:
        try:
            value = getattr(config, name, None)
        except Exception:  # a property that needs what this config lacks
            continue
        if isinstance(value, (list, tuple)):
            value = max((v for v in value if isinstance(v, int)), default=None)
        if isinstance(value, (int, float)) and value:
            return int(value)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    import torch

    text = str(error).lower()
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "out of memory" in text or "can't allocate memory" in text


def release(device: Any) -> None:
    """Gives unused memory back, so that a smaller batch can have it."""
    import torch

    gc.collect()
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
