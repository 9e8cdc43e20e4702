"""Looking changes nothing: what a look may disturb is put back on every way out, exceptions included."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def untouched(model: Any, seed: int) -> Iterator[None]:
    """Inside: eval mode, plain generation defaults, random state of its own (`seed`). After: all as it was.

    Random state of Python, NumPy and torch (every visible accelerator), the mode of each submodule, and the model's
    generation_config (Olmo 3 ships T 0.6 and top-p 0.95, which `generate` would mix into what was asked) are restored.
    Gradient checkpointing needs no switch: transformers applies it in train mode only, and eval keeps the cache on.
    """
    import numpy as np
    import torch
    from transformers import GenerationConfig

    modes = [(module, module.training) for module in model.modules()]
    config = model.generation_config
    python_state, numpy_state = random.getstate(), np.random.get_state()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    with torch.random.fork_rng(device_type=device.type if device else "cuda", enabled=True):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            model.generation_config = GenerationConfig()
            model.eval()
            yield
        finally:
            model.generation_config = config
            for module, training in modes:
                module.training = training
            random.setstate(python_state)
            np.random.set_state(numpy_state)
