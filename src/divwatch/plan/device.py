"""The speed and memory that devices reach in practice."""

from __future__ import annotations

from dataclasses import dataclass


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
    adapter_seconds: least seconds of a decode step per linear layer with a LoRA adapter.
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
    adapter_seconds: float = 0.0
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
ADAPTER_SECONDS = (
    2e-5  # per adapted linear layer: looks with LoRA less those without, which took 1.7 s longer over 384 steps
)
LINK = 0.7  # of NVLink one way, and of the network: assumption


def _gpu(name: str, flops: float, bandwidth: float, memory: float, link: float, network: float) -> Device:
    """A device with these published peaks: dense bf16 operations/s, bytes/s of memory, of NVLink one way and of the network."""
    return Device(
        name, PREFILL * flops, WEIGHTS * bandwidth, ATTENTION * bandwidth, LINK * link, memory, LAYER_SECONDS,
        LOGIT_SECONDS, SMALL_SECONDS, ADAPTER_SECONDS, network=LINK * network, training=TRAINING * flops, shares_prompts=True,
    )  # fmt: skip


# network: one adapter per GPU, of 200 Gb/s (A100) or 400 Gb/s. `--device here` measures this machine instead.
DEVICES = {
    "a100": _gpu("a100", 312e12, 2.0e12, 80e9, 300e9, 25e9),
    "h100": _gpu("h100", 989e12, 3.35e12, 80e9, 450e9, 50e9),
    "h200": _gpu("h200", 989e12, 4.8e12, 141e9, 450e9, 50e9),
    "b200": _gpu("b200", 2250e12, 8.0e12, 180e9, 900e9, 50e9),
}
NODE = 8  # devices per node
