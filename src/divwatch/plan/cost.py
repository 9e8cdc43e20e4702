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

# Bytes a parameter of the training itself: bf16 weight and gradient; fp32 master weight and two moments.
WEIGHT, GRADIENT, OPTIMIZER = 2, 2, 12
STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True)
class Shape:
    """A model: parameters, layers, bytes of keys and values a token, vocabulary, bytes a weight; trained: parameters of the
    adapter that is trained in place of the model, None: all of the model's. Of the parameters, lookup: those that are
    looked up and not multiplied (embeddings not tied to the head); head: those of the head, which of a prompt only the
    last token needs."""

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
    """What a device reaches in practice.

    flops: operations/s in matrix products; bandwidth: bytes/s from its memory; attention: bytes of keys and values read
    a second by attention; link: bytes/s between the devices of a node; memory: bytes; layer_seconds: the least time that one
    layer of a decode step takes, its kernels being launched. What a row of a batch costs a decode step besides:
    logit_seconds for each token of the vocabulary (the sampler), small_seconds for each byte of keys and values of a token
    (norms, rotations and other small kernels, which grow as those do). overlaps: reading weights and multiplying go on
    at once, as on a GPU. network: bytes/s of a device to other nodes, None: as the link. training: operations/s in a
    training step, None: as flops. shares_prompts: the keys of a prompt are held and read once for all its samples.
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
        """Seconds of two things that a GPU does at once and a CPU one after the other."""
        return max(one, other) if self.overlaps else one + other

    def between(self, devices: int) -> float:
        """Bytes/s at which a device is sent what the others hold: the slowest way on the ring bounds all."""
        return self.network if self.network is not None and devices > NODE else self.link


# What is reached of a device's published peaks: measured on one NVIDIA H200, 2026-11-26, by benchmarks/gpu.py at the Olmo 3
# 7B shape with captured decoding; on other devices the same shares are an assumption.
PREFILL = 0.39  # of dense bf16 operations, in a prefill
TRAINING = 0.33  # of the same, in a training step (LoRA: 0.30)
WEIGHTS = 0.5  # of the memory's bandwidth, where weights are read
ATTENTION = 0.5  # of the same, where attention reads keys and values with one query a row
LAYER_SECONDS = 0.129e-3  # small kernels of a layer in a decode step
LOGIT_SECONDS = 1.48e-10  # a row and token of the vocabulary
SMALL_SECONDS = 4.1e-12  # a row and byte of keys and values of a token
LINK = 0.7  # of NVLink one way, and of the network: assumption


def _gpu(name: str, flops: float, bandwidth: float, memory: float, link: float, network: float) -> Device:
    """A device of these published peaks: dense bf16 operations/s, bytes/s of memory, of NVLink one way and of the network."""
    return Device(
        name, PREFILL * flops, WEIGHTS * bandwidth, ATTENTION * bandwidth, LINK * link, memory, LAYER_SECONDS,
        LOGIT_SECONDS, SMALL_SECONDS, network=LINK * network, training=TRAINING * flops, shares_prompts=True,
    )  # fmt: skip


# network: one adapter a GPU, of 200 Gb/s (A100) or 400 Gb/s. `--device here` takes measured figures of this machine.
DEVICES = {
    "a100": _gpu("a100", 312e12, 2.0e12, 80e9, 300e9, 25e9),
    "h100": _gpu("h100", 989e12, 3.35e12, 80e9, 450e9, 50e9),
    "h200": _gpu("h200", 989e12, 4.8e12, 141e9, 450e9, 50e9),
    "b200": _gpu("b200", 2250e12, 8.0e12, 180e9, 900e9, 50e9),
}
NODE = 8  # devices of a node


@dataclass(frozen=True)
class Look:
    """The look asked for: prompts x samples, tokens of a prompt and of a completion (its mean), and how often."""

    prompts: int = 64
    samples: int = 16
    prompt_tokens: int = 300
    new_tokens: int = 256
    every: int = 100


@dataclass(frozen=True)
class Cost:
    """Of one look. seconds: what training waits; of it gather, prefill and decode; batches a rank; rows a batch.

    train_bytes: weights, gradients and optimizer a device; look_bytes: what the look adds at its peak (gathered weights,
    keys, values, logits). step_seconds: an optimizer step of the training; overhead: seconds / (seconds + every steps).
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
        """The least number of optimizer steps between looks at which they take at most this share (0 to 1) of the time."""
        return max(1, math.ceil(self.seconds * (1 - share) / (share * self.step_seconds)))


def cost_of(
    shape: Shape, device: Device, devices: int, look: Look, strategy: str = "ddp", step_tokens: int = 1_048_576
) -> Cost:
    """The cost of a look at a model on so many devices; `step_tokens`: tokens of an optimizer step, all devices together.

    Raises DivwatchError if the model does not fit at all.
    """
    if strategy not in STRATEGIES:
        raise DivwatchError(f"unknown strategy {strategy!r}: choose from {', '.join(STRATEGIES)}")
    train = train_bytes(shape, devices, strategy)
    sharded = strategy in ("zero3", "fsdp2") and devices > 1
    whole = shape.parameters * shape.weight_bytes
    free = device.memory - train
    gathered = sharded and whole < 0.9 * free
    room = free - (whole if gathered else 0)
    held = look.prompt_tokens / look.samples if device.shares_prompts else look.prompt_tokens  # of a prompt, by row
    width = held + look.new_tokens + LOGIT_BYTES * shape.vocabulary // shape.token_bytes
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
    step = decode_step(shape, device, rows, held + look.new_tokens / 2)
    if sharded and not gathered:  # weights come over the link at every token
        step += whole * (devices - 1) / devices / device.between(devices)
    decode = batches * look.new_tokens * step
    seconds = gather + prefill + decode
    step_seconds = train_operations(shape) * step_tokens / devices / (device.training or device.flops)
    look_bytes = rows * width * shape.token_bytes + (whole if gathered else 0)
    overhead = seconds / (seconds + look.every * step_seconds)
    return Cost(seconds, gather, prefill, decode, batches, rows, train, look_bytes, gathered, step_seconds, overhead)


def train_operations(shape: Shape) -> float:
    """Operations a token of a training step with activation checkpointing: two passes forward and the gradients. LoRA
    saves those of the weights, but its steps were no shorter where both were measured."""
    return 8 * shape.multiplied


def decode_step(shape: Shape, device: Device, rows: int, tokens: float) -> float:
    """Seconds of one decode step of `rows` rows with `tokens` tokens each in their cache."""
    products = products_of(shape, device, rows)
    attention = rows * tokens * shape.token_bytes / device.attention
    small = shape.layers * device.layer_seconds  # one kernel runs after the other, also in a CUDA graph
    besides = rows * (shape.vocabulary * device.logit_seconds + shape.token_bytes * device.small_seconds)
    return small + products + attention + besides


def products_of(shape: Shape, device: Device, rows: int) -> float:
    """Seconds of the matrix products of one decode step: the weights are read, and multiplied with each row."""
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
    """The shape of a known model, of a directory or of a hub name: built on the meta device, no weights are read.

    lora_r: a LoRA adapter of that rank on all linear layers but the head is trained.
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
        made = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return shape_of_model(made, lora_r)


def shape_of_model(model: Any, lora_r: int | None = None) -> Shape:
    """The shape of a model that is there, on whatever device."""
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
    """What this machine's CPU reaches, measured in a few seconds by the operations that a look is made of."""
    import time

    import psutil
    import torch

    def fastest(what: Any, times: int = 20) -> float:
        found = []
        for _ in range(times):
            started = time.perf_counter()
            what()
            found.append(time.perf_counter() - started)
        return min(found)

    with torch.no_grad():
        rows, square = torch.randn(64, 1024), torch.randn(1024, 1024)
        flops = 2 * rows.numel() * 1024 / fastest(lambda: rows @ square)
        big, vector = torch.randn(4096, 4096), torch.randn(1, 4096)
        bandwidth = big.numel() * 4 / fastest(lambda: vector @ big)
    memory = psutil.virtual_memory().total
    bare = Device("this CPU", flops, bandwidth, math.inf, bandwidth, memory, 0.0, overlaps=False)
    found = _Probes(bare)
    return replace(
        bare, attention=found.attention, layer_seconds=found.layer, logit_seconds=found.logit, small_seconds=found.small
    )


class _Probes:
    """What the matrix products leave of decode steps of two small models: by the layer, row, logit and token of context."""

    LAYERS, ROWS, CONTEXT, TOKENS = 4, 64, 400, 24

    def __init__(self, bare: Device) -> None:
        self._bare = bare
        narrow, wide = self._model(512), self._model(16_384)
        few, many = self._left(narrow, 1, 8), self._left(narrow, self.ROWS, 8)
        shape = shape_of_model(narrow)
        self.layer = few / self.LAYERS
        vocabularies = shape_of_model(wide).vocabulary - shape.vocabulary
        self.logit = max(0.0, (self._left(wide, self.ROWS, 8) - many) / self.ROWS / vocabularies)
        row = (many - few) / self.ROWS - self.logit * shape.vocabulary
        self.small = max(0.0, row / shape.token_bytes)
        longer = self._left(narrow, self.ROWS, self.CONTEXT) - many
        self.attention = self.ROWS * (self.CONTEXT - 8) * shape.token_bytes / max(1e-9, longer)

    def _model(self, vocabulary: int) -> Any:
        from transformers import Olmo3Config, Olmo3ForCausalLM

        config = Olmo3Config(
            hidden_size=256, intermediate_size=512, num_hidden_layers=self.LAYERS, num_attention_heads=8,
            num_key_value_heads=8, vocab_size=vocabulary, max_position_embeddings=1024, eos_token_id=1,
        )  # fmt: skip
        return Olmo3ForCausalLM(config).eval()

    def _left(self, model: Any, rows: int, context: int) -> float:
        """Seconds of a decode step with so many rows and tokens, without its matrix products; the fastest of three."""
        import time

        import torch

        from divwatch.sampling.decode import decode
        from divwatch.sampling.decoding import Decoding
        from divwatch.sampling.nucleus import uniforms

        how = Decoding(0.6, 0.95, [-1], self.TOKENS)  # nothing stops early
        noise = uniforms(0, [("probe", k) for k in range(rows)], self.TOKENS)
        found = []
        for _ in range(3):
            started = time.perf_counter()
            with torch.no_grad():
                decode(model, [[5] * context], [0] * rows, noise, [self.TOKENS] * rows, how, torch.device("cpu"))
            found.append((time.perf_counter() - started) / self.TOKENS)
        shape = shape_of_model(model)
        # The prompt is read once, by all steps.
        prefill = 2 * (shape.multiplied - shape.head) * context / self._bare.flops / self.TOKENS
        return min(found) - prefill - products_of(shape, self._bare, rows)
