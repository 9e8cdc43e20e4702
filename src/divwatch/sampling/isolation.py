"""Looking changes nothing: what a look may disturb is put back on every way out, exceptions included."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from divwatch.sampling.known import restore_modules, states_in_modules


@contextmanager
def untouched(model: Any, device: Any) -> Iterator[None]:
    """Inside: eval mode and plain generation defaults. After: all as it was.

    Sampling draws from its own streams (`nucleus.uniforms`); still the random state of Python, NumPy and torch is
    kept, for what a model, a backend or a library might draw. The mode of each submodule and the model's
    generation_config (Olmo 3 ships T 0.6 and top-p 0.95, which `generate` would mix into what was asked) come back too,
    and so do states that a model keeps in its modules (RecurrentGemma's recurrent states, Qwen-VL's position offsets).
    Gradient checkpointing needs no switch: transformers applies it in train mode only, and eval keeps the cache on.
    """
    import numpy as np
    import torch
    from transformers import GenerationConfig

    modes = [(module, module.training) for module in model.modules()]
    states = states_in_modules(model)
    # PEFT's `generate` hands its own generation_config down to the model inside.
    configs = [(m, vars(m)["generation_config"]) for m in model.modules() if "generation_config" in vars(m)]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    kind = device.type
    # One device: that of this rank. Without a list all that can be seen are saved, with a warning.
    devices = [] if kind == "cpu" else [device]
    with torch.random.fork_rng(devices=devices, device_type=kind if devices else "cuda"):
        try:
            for owner, _ in configs:
                owner.generation_config = GenerationConfig()
            model.eval()
            yield
        finally:
            for owner, config in configs:
                owner.generation_config = config
            restore_modules(states)
            for module, training in modes:
                module.training = training
            random.setstate(python_state)
            np.random.set_state(numpy_state)
