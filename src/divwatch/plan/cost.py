"""What a look costs before the run: seconds, memory and share of the training time, from counted operations and bytes.

Sampling a batch of rows is a prefill of its prompts, bound by arithmetic, and then one step a new token: the matrix
products (bound by reading the weights or by arithmetic), attention (bound by reading the rows' keys and values) and the
small kernels between them, one after the other. docs/cost.md derives the formulas and holds them against measurements.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.sampling.memory import LOGIT_BYTES, MEMORY_SHARE

# Bytes per parameter in training: bf16 weight and gradient; fp32 master weight and two moments.
WEIGHT, GRADIENT, OPTIMIZER = 2, 2, 12
STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


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
    """

    parameters: int
    layers: int
    token_bytes: int
    vocabulary: int
    weight_bytes: int = WEIGHT
    trained: int | None = None
    lookup: int = 0
    head: int = 0

    @property
    def multiplied(self) -> int:
        return self.parameters - self.lookup


@dataclass(frozen=True)
class Device:
    """The speed and memory that a device reaches in practice.

    flops:          operations/s in matrix products.
    bandwidth:      bytes/s when reading weights from memory.
    attention:      bytes/s of keys and values that attention reads.
    link:           bytes/s between the devices of a node.
    memory:         bytes.
    layer_seconds:  least seconds per layer of a decode step: the time to launch its kernels.
    logit_seconds:  extra seconds of a decode step per row and vocabulary token (the sampler).
    small_seconds:  extra seconds of a decode step per row and byte of a token's keys and values (norms, rotations and
                    other small kernels, which grow with that size).
    overlaps:       whether weights are read while others are multiplied, as on a GPU.
    network:        bytes/s from a device to other nodes; None: as fast as `link`.
    training:       operations/s in a training step; None: same as `flops`.
    shares_prompts: whether all samples of a prompt share one copy of its keys, which is read once.
    """

    name: str
    flops: float
    bandwidth: float
    attention: float
    link: float
    memory: float
    layer_seconds: float
    logit_seconds: float = 0.0
    small_seconds: float = 0.0
    overlaps: bool = True
    network: float | None = None
    training: float | None = None
    shares_prompts: bool = False

    def together(self, one: float, other: float) -> float:
        """Seconds for two operations: a GPU overlaps them, a CPU runs them one after the other."""
        return max(one, other) if self.overlaps else one + other

    def between(self, devices: int) -> float:
        """Bytes/s at which a device receives the weights of the others. The slowest link of the ring is the limit."""
        return self.network if self.network is not None and devices > NODE else self.link


# The share of a device's published peaks that is reached in practice. Measured on one NVIDIA H200, 2026-11-26, by
# benchmarks/gpu.py at the Olmo 3 7B shape with captured decoding; for other devices the same shares are an assumption.
PREFILL = 0.39  # of dense bf16 operations, in a prefill
TRAINING = 0.33  # of the same, in a training step (LoRA: 0.30)
WEIGHTS = 0.5  # of the memory's bandwidth, where weights are read
ATTENTION = 0.5  # of the same, where attention reads keys and values with one query per row
LAYER_SECONDS = 0.129e-3  # small kernels, per layer of a decode step
LOGIT_SECONDS = 1.48e-10  # per row and vocabulary token
SMALL_SECONDS = 4.1e-12  # per row and byte of a token's keys and values
LINK = 0.7  # of NVLink one way, and of the network: assumption


def _gpu(name: str, flops: float, bandwidth: float, memory: float, link: float, network: float) -> Device:
    """A device with these published peaks: dense bf16 operations/s, bytes/s of memory, of NVLink one way and of the network."""
    return Device(
        name, PREFILL * flops, WEIGHTS * bandwidth, ATTENTION * bandwidth, LINK * link, memory, LAYER_SECONDS,
        LOGIT_SECONDS, SMALL_SECONDS, network=LINK * network, training=TRAINING * flops, shares_prompts=True,
    )  # fmt: skip


# network: one adapter per GPU, of 200 Gb/s (A100) or 400 Gb/s. `--device here` measures this machine instead.
DEVICES = {
    "a100": _gpu("a100", 312e12, 2.0e12, 80e9, 300e9, 25e9),
    "h100": _gpu("h100", 989e12, 3.35e12, 80e9, 450e9, 50e9),
    "h200": _gpu("h200", 989e12, 4.8e12, 141e9, 450e9, 50e9),
    "b200": _gpu("b200", 2250e12, 8.0e12, 180e9, 900e9, 50e9),
}
NODE = 8  # devices per node


@dataclass(frozen=True)
class Look:
    """The look to plan for.

    prompts:       prompts per look.
    samples:       completions per prompt.
    prompt_tokens: tokens per prompt.
    new_tokens:    the most tokens of a completion: the decode steps of a batch, which runs until its longest row ends.
    every:         optimizer steps between looks.
    mean_tokens:   mean tokens per completion, at most new_tokens; None: every completion has new_tokens.
    """

    prompts: int = 64
    samples: int = 16
    prompt_tokens: int = 300
    new_tokens: int = 256
    every: int = 100
    mean_tokens: float | None = None

    def __post_init__(self) -> None:
        if self.mean_tokens is not None and not 0 < self.mean_tokens <= self.new_tokens:
            raise DivwatchError(f"--mean-tokens must be above 0 and at most its limit of {self.new_tokens} new tokens")

    @property
    def running(self) -> float:
        """Rows that still run, as a share of the batch: the mean over its decode steps."""
        return (self.mean_tokens or self.new_tokens) / self.new_tokens


@dataclass(frozen=True)
class Cost:
    """The cost of one look.

    seconds:      time that training waits for the look: gather + prefill + decode.
    gather:       seconds to gather sharded weights.
    prefill:      seconds to read the prompts.
    decode:       seconds to write the completions.
    batches:      batches per rank.
    rows:         rows per batch.
    train_bytes:  weights, gradients and optimizer state, per device.
    look_bytes:   what the look adds at its peak: gathered weights, keys, values, logits.
    gathered:     whether sharded weights are gathered once for the look, not at every token.
    step_seconds: seconds per optimizer step of the training.
    overhead:     seconds / (seconds + every * step_seconds), the share of the time that looks take.
    """

    seconds: float
    gather: float
    prefill: float
    decode: float
    batches: int
    rows: int
    train_bytes: float
    look_bytes: float
    gathered: bool
    step_seconds: float
    overhead: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def steps_within(self, share: float) -> int:
        """The fewest optimizer steps between looks that keep their share of the time at or below `share` (0 to 1)."""
        return max(1, math.ceil(self.seconds * (1 - share) / (share * self.step_seconds)))


def cost_of(
    shape: Shape, device: Device, devices: int, look: Look, strategy: str = "ddp", step_tokens: int = 1_048_576
) -> Cost:
    """The cost of a look on `devices` devices. `step_tokens`: tokens per optimizer step, over all devices.

    Raises DivwatchError if the model does not fit.
    """
    if strategy not in STRATEGIES:
        raise DivwatchError(f"unknown strategy {strategy!r}: choose from {', '.join(STRATEGIES)}")
    train = train_bytes(shape, devices, strategy)
    sharded = strategy in ("zero3", "fsdp2") and devices > 1
    whole = shape.parameters * shape.weight_bytes
    free = device.memory - train
    gathered = sharded and whole < 0.9 * free
    room = free - (whole if gathered else 0)
    prompt_share = look.prompt_tokens / (look.samples if device.shares_prompts else 1)  # tokens of a prompt, by row
    width = prompt_share + look.new_tokens + LOGIT_BYTES * shape.vocabulary // shape.token_bytes
    if MEMORY_SHARE * room < width * shape.token_bytes:
        raise DivwatchError(
            f"training takes {train / 1e9:.0f} of {device.memory / 1e9:.0f} GB a device ({strategy}), which leaves no room "
            "for a look: use more devices, zero3 or fsdp2"
        )
    rows_here = math.ceil(look.prompts * look.samples / devices)
    rows = min(rows_here, int(MEMORY_SHARE * room / (width * shape.token_bytes)))
    batches = math.ceil(rows_here / rows)
    gather = whole * (devices - 1) / devices / device.between(devices) if gathered else 0.0
    prompts_here = math.ceil(rows_here / look.samples)
    prefill = 2 * (shape.multiplied - shape.head) * prompts_here * look.prompt_tokens / device.flops
    # Rows that have ended cost nothing more. A prompt's keys are read while one of its samples runs, if these share them.
    held = prompt_share / look.running if device.shares_prompts else prompt_share
    step = decode_step(shape, device, rows * look.running, held + look.new_tokens * look.running / 2)
    if sharded and not gathered:  # weights come over the link at every token
        step += whole * (devices - 1) / devices / device.between(devices)
    decode = batches * look.new_tokens * step
    seconds = gather + prefill + decode
    step_seconds = train_operations(shape) * step_tokens / devices / (device.training or device.flops)
    look_bytes = rows * width * shape.token_bytes + (whole if gathered else 0)
    overhead = seconds / (seconds + look.every * step_seconds)
    return Cost(seconds, gather, prefill, decode, batches, rows, train, look_bytes, gathered, step_seconds, overhead)


def train_operations(shape: Shape) -> float:
    """Operations per token of a training step with activation checkpointing: two forward passes and the gradients.

    LoRA needs no weight gradients, but its steps were no shorter when both were measured."""
    return 8 * shape.multiplied


def decode_step(shape: Shape, device: Device, rows: float, tokens: float) -> float:
    """Seconds per decode step for `rows` rows with `tokens` cached tokens each."""
    products = products_of(shape, device, rows)
    attention = rows * tokens * shape.token_bytes / device.attention
    small = shape.layers * device.layer_seconds  # one kernel runs after the other, also in a CUDA graph
    besides = rows * (shape.vocabulary * device.logit_seconds + shape.token_bytes * device.small_seconds)
    return small + products + attention + besides


def products_of(shape: Shape, device: Device, rows: float) -> float:
    """Seconds per decode step for matrix products: read the weights, multiply them with each row."""
    reading, arithmetic = shape.weight_bytes / device.bandwidth, 2 * rows / device.flops
    return shape.multiplied * device.together(reading, arithmetic)


def train_bytes(shape: Shape, devices: int, strategy: str) -> float:
    """Weights, gradients and optimizer state in bf16 with fp32 AdamW, on one device."""
    parts = {
        "ddp": WEIGHT + GRADIENT + OPTIMIZER,
        "zero1": WEIGHT + GRADIENT + OPTIMIZER / devices,
        "zero2": WEIGHT + (GRADIENT + OPTIMIZER) / devices,
        "zero3": (WEIGHT + GRADIENT + OPTIMIZER) / devices,
        "fsdp2": (WEIGHT + GRADIENT + OPTIMIZER) / devices,
    }
    if shape.trained is None:
        return shape.parameters * parts[strategy]
    frozen = WEIGHT / devices if strategy in ("zero3", "fsdp2") else WEIGHT
    return shape.parameters * frozen + shape.trained * parts[strategy]


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
        config = Olmo3Config(**KNOWN[model]) if model in KNOWN else AutoConfig.from_pretrained(model)
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
    trained = lora_r and lora_r * sum(
        m.in_features + m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head
    )
    return Shape(
        sum(p.numel() for p in model.parameters()),
        text.num_hidden_layers,
        token_bytes(model),
        text.vocab_size,
        next(model.parameters()).element_size(),
        trained,
        0 if head is not None and table.weight is head.weight else table.weight.numel(),
        0 if head is None else head.weight.numel(),
    )


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
