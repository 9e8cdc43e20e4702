"""What the parts of gpu.py share: the sizes they run at, the models, and the record that is written as they go."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from sampling import STOP, endless
from transformers import Olmo3Config, Olmo3ForCausalLM

from divwatch.plan.device import DEVICES, Device
from divwatch.plan.shape import KNOWN
from divwatch.sampling.decoding import Decoding

# Published peaks by the name that torch gives: dense bf16 operations/s, bytes/s of memory, the name in DEVICES.
PEAKS = {
    "NVIDIA A100-SXM4-80GB": (312e12, 2.04e12, "a100"),
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12, "h100"),
    "NVIDIA H200": (989e12, 4.8e12, "h200"),
    "NVIDIA B200": (2250e12, 8.0e12, "b200"),
}
LARGE = KNOWN["olmo3-7b"]
CLOSE = 0.25  # a prediction counts as right within this share of the measurement


@dataclass(frozen=True)
class Setting:
    """flops, bandwidth: published peaks; memory: bytes. large: fields of the large model's config.

    samples, prompt, new: of the looks that are timed; prompts: by batch size. look: (prompts, samples, new tokens) of the
    look taken in training. row: tokens of a training row; rows: of a step; steps: of a run. draws: samples of a prompt in
    the test of the law. probe: (rows, short context, long context, few tokens, many tokens) of the timed decode steps.
    """

    device: str
    flops: float
    bandwidth: float
    memory: float
    base: str
    large: dict[str, Any]
    middle: dict[str, Any]
    samples: int
    prompt: int
    new: int
    prompts: tuple[int, ...]
    look: tuple[int, int, int]
    row: int
    rows: int
    steps: int
    draws: int
    probe: tuple[int, int, int, int, int]

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def now(self) -> float:
        """Seconds, when all that was launched is done."""
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def constants(self, facts: dict[str, Any]) -> Device:
        """The device with the constants measured so far, else as cost.py assumes it."""
        names = {field.name for field in fields(Device)}
        known = {name: value for name, value in facts.items() if name in names}
        return replace(DEVICES[self.base], memory=self.memory, **known)


# A model of about a billion parameters, whose steps are short.
MIDDLE = {
    "hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 16, "num_attention_heads": 16,
    "num_key_value_heads": 16, "vocab_size": 32768,
}  # fmt: skip


def real() -> Setting:
    if not torch.cuda.is_available():
        sys.exit("no GPU here: run it on one, or with --rehearse")
    name = torch.cuda.get_device_name()
    if name not in PEAKS:
        sys.exit(f"the peaks of {name!r} are not known: add them to PEAKS in {__file__}")
    flops, bandwidth, base = PEAKS[name]
    memory = torch.cuda.get_device_properties(0).total_memory
    return Setting(
        "cuda", flops, bandwidth, memory, base, LARGE, MIDDLE, 16, 300, 256, (1, 4, 8, 16), (16, 8, 384), 4096, 4, 6, 2048,
        (64, 32, 600, 32, 96),
    )  # fmt: skip


def rehearsal() -> Setting:
    """The same code on a CPU at toy size: its figures mean nothing."""
    torch.set_num_threads(1)
    small = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": 2048, "max_position_embeddings": 2048,
    }  # fmt: skip
    return Setting(
        "cpu", 5e10, 1e10, 8e9, "h100", small, small, 4, 20, 12, (1, 2), (4, 4, 24), 64, 2, 4, 200, (8, 8, 60, 4, 12)
    )


def random_model(here: Setting, shape: dict[str, Any], dtype: Any = torch.bfloat16, **more: Any) -> Any:
    """An Olmo 3 with random weights, made on the device; no end token of its own."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(here.device):
            config = Olmo3Config(**shape | more, pad_token_id=STOP, eos_token_id=None, attn_implementation="sdpa")
            return endless(Olmo3ForCausalLM(config).eval())
    finally:
        torch.set_default_dtype(torch.float32)


def modes() -> list[str]:
    """The ways in which a batch is decoded, as far as this version has them."""
    known = any(field.name == "mode" for field in fields(Decoding))
    return ["eager", "shared", "captured"] if known else ["eager"]


def in_mode(request: Any, mode: str, new: int, **more: Any) -> Any:
    """The request for exactly `new` tokens a row, decoded in that mode. more: fields of `Decoding`."""
    chosen = {"mode": mode} if len(modes()) > 1 else {}
    how = replace(request.how, limit=new, **{"stops": [-1]} | chosen | more)
    return replace(request, how=how, limits=[new] * len(request.limits))


def words(vocabulary: int) -> Any:
    """A tokenizer in which every id is a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w4"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=f"w{STOP}", pad_token="w5", unk_token="w4")


def panel(folder: Path, prompts: int, tokens: int, vocabulary: int) -> Path:
    """A file of prompts of so many tokens each."""
    draw, file = random.Random(1), folder / "prompts.jsonl"
    with file.open("w") as out:
        for i in range(prompts):
            text = " ".join(f"w{draw.randrange(10, vocabulary)}" for _ in range(tokens))
            out.write(json.dumps({"id": str(i), "prompt": text}) + "\n")
    return file


class Report:
    """One part's results, appended to `file` at once, a JSON object a line: {part, kind, ...}."""

    def __init__(self, file: Path, part: str) -> None:
        self._file, self.part = file, part
        self.facts: dict[str, Any] = {}  # of the parts before
        for event in read_events([file]):
            if event["kind"] == "fact":
                self.facts[event["name"]] = event["value"]

    def event(self, kind: str, **what: Any) -> None:
        with self._file.open("a") as out:
            out.write(json.dumps({"part": self.part, "kind": kind, **what}) + "\n")

    def line(self, text: str = "") -> None:
        print(text, flush=True)
        self.event("line", text=text)

    def lines(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.line(text)

    def fact(self, name: str, value: float | str) -> None:
        self.facts[name] = value
        print(f"{name}: {value}", flush=True)
        self.event("fact", name=name, value=value)

    def bound(self, text: str, holds: bool) -> None:
        self.line(f"- {text}: {'yes' if holds else '**no**'}")
        if not holds:
            self.event("missed", text=text)


def read_events(files: Sequence[Path]) -> list[dict[str, Any]]:
    """All events in order; of a part that ran twice only the last run's."""
    events: list[dict[str, Any]] = []
    for file in files:
        for line in file.read_text().splitlines() if file.is_file() else []:
            event = json.loads(line)
            if event["kind"] == "begin":
                events = [e for e in events if e["part"] != event["part"]]
            events.append(event)
    return events


def beside(predicted: float, measured: float) -> str:
    """A prediction with its deviation.

    >>> beside(1.1, 1.0)
    '1.1 s (+10 %)'
    """
    return f"{predicted:.3g} s ({predicted / measured - 1:+.0%})".replace("%)", " %)")
