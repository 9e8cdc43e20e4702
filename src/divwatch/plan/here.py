"""The speed of this machine's CPU, measured with the operations of a look."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from divwatch.plan.cost import products_of
from divwatch.plan.device import Device
from divwatch.plan.shape import shape_of_model


def this_machine() -> Device:
    """The speed of this machine's CPU, measured in a few seconds with the operations of a look."""
    import time

    import psutil
    import torch

    def fastest(what: Any, times: int = 20) -> float:
        seconds = []
        for _ in range(times):
            started = time.perf_counter()
            what()
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    with torch.no_grad():
        rows, square = torch.randn(64, 1024), torch.randn(1024, 1024)
        flops = 2 * rows.numel() * 1024 / fastest(lambda: rows @ square)
        big, vector = torch.randn(4096, 4096), torch.randn(1, 4096)
        bandwidth = big.numel() * 4 / fastest(lambda: vector @ big)
    memory = psutil.virtual_memory().total
    bare = Device("this CPU", flops, bandwidth, math.inf, bandwidth, memory, 0.0, overlaps=False)
    probe = _Probes(bare)
    return replace(
        bare, attention=probe.attention, layer_seconds=probe.layer, logit_seconds=probe.logit, small_seconds=probe.small
    )


class _Probes:
    """Decode time of two small models beyond their matrix products, split by layer, row, logit and context token."""

    LAYERS, ROWS, CONTEXT, TOKENS = 4, 64, 400, 24

    def __init__(self, bare: Device) -> None:
        self._bare = bare
        narrow, wide = self._model(512), self._model(16_384)
        few, many = self._rest(narrow, 1, 8), self._rest(narrow, self.ROWS, 8)
        shape = shape_of_model(narrow)
        self.layer = few / self.LAYERS
        vocabularies = shape_of_model(wide).vocabulary - shape.vocabulary
        self.logit = max(0.0, (self._rest(wide, self.ROWS, 8) - many) / self.ROWS / vocabularies)
        row = (many - few) / self.ROWS - self.logit * shape.vocabulary
        self.small = max(0.0, row / shape.token_bytes)
        longer = self._rest(narrow, self.ROWS, self.CONTEXT) - many
        self.attention = self.ROWS * (self.CONTEXT - 8) * shape.token_bytes / max(1e-9, longer)

    def _model(self, vocabulary: int) -> Any:
        from transformers import Olmo3Config, Olmo3ForCausalLM

        config = Olmo3Config(
            hidden_size=256, intermediate_size=512, num_hidden_layers=self.LAYERS, num_attention_heads=8,
            num_key_value_heads=8, vocab_size=vocabulary, max_position_embeddings=1024, eos_token_id=1,
        )  # fmt: skip
        return Olmo3ForCausalLM(config).eval()

    def _rest(self, model: Any, rows: int, context: int) -> float:
        """Seconds per decode step beyond its matrix products; the fastest of three runs."""
        import time

        import torch

        from divwatch.sampling.decode import decode
        from divwatch.sampling.decoding import Decoding
        from divwatch.sampling.noise import token_seeds

        how = Decoding(0.6, 0.95, [-1], self.TOKENS)  # nothing stops early
        seeds = token_seeds(0, [("probe", k) for k in range(rows)], self.TOKENS)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            with torch.no_grad():
                decode(model, [[5] * context], [0] * rows, seeds, [self.TOKENS] * rows, how, torch.device("cpu"))
            seconds.append((time.perf_counter() - started) / self.TOKENS)
        shape = shape_of_model(model)
        # The prompt is read once for all steps.
        prefill = 2 * (shape.multiplied - shape.head) * context / self._bare.flops / self.TOKENS
        return min(seconds) - prefill - products_of(shape, self._bare, rows)
