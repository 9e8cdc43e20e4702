"""What a look costs before the run: seconds and memory, from counted operations and bytes.

Sampling a batch of rows is a prefill of its prompts, bound by arithmetic, and then one step a new token: the matrix
products (bound by reading the weights or by arithmetic), attention (bound by reading the rows' keys and values) and the
small kernels between them, one after the other. docs/cost.md derives the formulas and holds them against measurements.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.plan.device import Device
from divwatch.plan.refilled import Stretch, refilled
from divwatch.plan.shape import BYTES, Shape
from divwatch.sampling.memory import LOGIT_BYTES, MEMORY_SHARE

# Bytes per parameter in training: bf16 weight and gradient; fp32 master weight and two moments.
WEIGHT, GRADIENT, OPTIMIZER = BYTES, 2, 12
STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True)
class Look:
    """The look to plan for.

    prompts:       prompts per look.
    samples:       completions per prompt.
    prompt_tokens: tokens per prompt.
    new_tokens:    the most tokens of a completion: the decode steps of a batch, which runs until its longest row ends.
    mean_tokens:   mean tokens per completion, at most new_tokens; None: every completion has new_tokens.
    varied:        whether lengths vary about mean_tokens as a model's do, so that batches are refilled.
    """

    prompts: int = 64
    samples: int = 16
    prompt_tokens: int = 300
    new_tokens: int = 256
    mean_tokens: float | None = None
    varied: bool = False

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

    seconds:      time that training waits for the look: gather + prefill + decode + blame_seconds.
    gather:       seconds to gather sharded weights.
    prefill:      seconds to read the prompts.
    decode:       seconds to write the completions.
    batches:      batches per rank.
    rows:         rows of the largest batch.
    train_bytes:  weights, gradients and optimizer state, per device.
    look_bytes:   what the look adds at its peak: gathered weights, keys, values, logits.
    gathered:     whether sharded weights are gathered once for the look, not at every token.
    step_seconds: seconds per optimizer step of the training.
    blame_seconds: seconds of `watch_blame` after the look; 0 where it is off.
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
    blame_seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    tokens, beside = int(MEMORY_SHARE * room / shape.token_bytes), LOGIT_BYTES * shape.vocabulary // shape.token_bytes
    rows_here = math.ceil(look.prompts * look.samples / devices)
    batches = _batches(look, rows_here, tokens, beside, device.shares_prompts)
    if not batches:
        raise DivwatchError(
            f"training takes {train / 1e9:.0f} of {device.memory / 1e9:.0f} GB a device ({strategy}), which leaves no room "
            "for a look: use more devices, zero3 or fsdp2"
        )
    gather = whole * (devices - 1) / devices / device.between(devices) if gathered else 0.0
    prompts_here = math.ceil(rows_here / look.samples)
    # Rows that continue are read again, each with its prompt.
    again = sum(b.rows * (look.prompt_tokens + b.written) for b in batches if b.written)
    read = prompts_here * look.prompt_tokens + again
    prefill = 2 * (shape.multiplied - shape.head) * read / device.flops
    # Weights that stay sharded come over the link at every token.
    link = whole * (devices - 1) / devices / device.between(devices) if sharded and not gathered else 0.0
    decode = sum(b.steps * (_step(shape, device, look, b) + link) for b in batches)
    seconds = gather + prefill + decode
    step_seconds = train_operations(shape) * step_tokens / devices / (device.training or device.flops)
    rows, stored = max(b.rows for b in batches), max(b.stored for b in batches)
    look_bytes = stored * shape.token_bytes + (whole if gathered else 0)
    return Cost(seconds, gather, prefill, decode, len(batches), rows, train, look_bytes, gathered, step_seconds)


def _batches(look: Look, rows: int, tokens: int, beside: int, on_gpu: bool) -> list[Stretch]:
    """How a device decodes its rows; empty if not one fits. tokens: how many fit into its memory. beside: what a row needs
    beside its tokens, counted in tokens. on_gpu: whether a prompt is stored once for all its samples."""
    width = look.prompt_tokens / (look.samples if on_gpu else 1) + look.new_tokens + beside
    at_once = min(rows, int(tokens / width))
    if at_once < 1:
        return []
    if at_once < rows and look.varied and look.mean_tokens:
        return refilled(
            rows, look.samples, look.prompt_tokens, look.new_tokens, look.mean_tokens, tokens, beside, on_gpu
        )
    return [Stretch(at_once, look.new_tokens, look.running, 0.0, int(at_once * width))] * math.ceil(rows / at_once)


def _step(shape: Shape, device: Device, look: Look, batch: Stretch) -> float:
    """Mean seconds of a decode step of a batch. Rows that have ended cost nothing more."""
    held = look.prompt_tokens + batch.written
    if device.shares_prompts and not batch.written:  # a prompt's keys are read while one of its samples runs
        held = look.prompt_tokens / look.samples / batch.running
    return decode_step(shape, device, batch.rows * batch.running, held + batch.steps * batch.running / 2)


def train_operations(shape: Shape) -> float:
    """Operations per token of a training step with activation checkpointing: two forward passes and the gradients.

    LoRA needs no weight gradients, but its steps were no shorter when both were measured."""
    return 8 * shape.multiplied


def decode_step(shape: Shape, device: Device, rows: float, tokens: float) -> float:
    """Seconds per decode step for `rows` rows with `tokens` cached tokens each."""
    products = products_of(shape, device, rows)
    attention = rows * tokens * shape.token_bytes / device.attention
    # One kernel runs after the other, also in a CUDA graph.
    small = shape.layers * device.layer_seconds + shape.adapted * device.adapter_seconds
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
