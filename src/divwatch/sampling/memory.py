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
    """Bytes of keys and values that a model keeps for a token of a row."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * next(model.parameters()).element_size()


def logit_tokens(model: Any) -> int:
    """What a row's logits take, counted in tokens of the cache."""
    return LOGIT_BYTES * model.config.get_text_config().vocab_size // token_bytes(model)


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
