"""Looking changes nothing: what a look may disturb is put back on every way out, exceptions included."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def untouched(model: Any, device: Any) -> Iterator[None]:
    """Inside: eval mode and plain generation defaults. After: all as it was.

    Sampling draws from streams of its own (`nucleus.uniforms`); still the random state of Python, NumPy and torch is
    kept, for what a model, a backend or a library might draw. The mode of each submodule and the model's
    generation_config (Olmo 3 ships T 0.6 and top-p 0.95, which `generate` would mix into what was asked) come back too.
    Gradient checkpointing needs no switch: transformers applies it in train mode only, and eval keeps the cache on.
    """
    import numpy as np
    import torch
    from transformers import GenerationConfig

    modes = [(module, module.training) for module in model.modules()]
    config = model.generation_config
    python_state, numpy_state = random.getstate(), np.random.get_state()
    kind = device.type
    # One device: that of this rank. Without a list all that can be seen are saved, with a warning.
    devices = [] if kind == "cpu" else [device]
    with torch.random.fork_rng(devices=devices, device_type=kind if devices else "cuda"):
        try:
            model.generation_config = GenerationConfig()
            model.eval()
            yield
        finally:
            model.generation_config = config
            for module, training in modes:
                module.training = training
            random.setstate(python_state)
            np.random.set_state(numpy_state)
