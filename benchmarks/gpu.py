"""What only a GPU shows: a look at the Olmo 3 7B shape against the roofline, and its share of LoRA and full training.

    python benchmarks/gpu.py                      one GPU of 80 GB or more, under 9 minutes, nothing is downloaded
    python benchmarks/gpu.py --write docs/benchmarks.md
    python benchmarks/gpu.py --rehearse           the same parts on a CPU at toy size, so that the script is known to run

The model has random weights in bf16, made on the device. A part that the nine minutes no longer hold is said to be not
run. The roofline of a look: the products of the prompts' tokens at the peak arithmetic; then for every new token all
weights read once a batch, of as few batches as the memory allows (or their arithmetic where that takes longer), and every
row's keys and values read once. Sharing a prompt's keys between its samples would read less; nothing else would.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import Result, machine, options, place, publish, table, versions
from sampling import STOP, Work, compare, small_model
from transformers import Olmo3Config, Olmo3ForCausalLM

from divwatch import cost
from divwatch.sampling.memory import token_bytes

LIMIT = 9 * 60 - 20
STEP_TOKENS, EVERY = 1_048_576 // 8, 100  # tokens a GPU of an optimizer step; steps between looks
PROMISE = 0.03

# Published peaks: dense bf16 operations/s, bytes/s of memory.
PEAKS = {"A100": (312e12, 2.0e12), "H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "B200": (2250e12, 8.0e12)}


@dataclass(frozen=True)
class Setting:
    """What the parts run on: the real thing, or a rehearsal."""

    device: str
    flops: float
    bandwidth: float
    memory: float
    look: Work
    short: Work
    heavy: Work
    row: int  # tokens of a training row
    rows: int  # of an optimizer step
    make: Callable[[], Any]


def large_model() -> Any:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return Olmo3ForCausalLM(Olmo3Config(**cost.KNOWN["olmo3-7b"], eos_token_id=STOP, pad_token_id=STOP)).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def real() -> Setting:
    if not torch.cuda.is_available():
        sys.exit("no GPU here: run it on one, or with --rehearse")
    name = torch.cuda.get_device_name()
    known = next((peak for key, peak in PEAKS.items() if key in name), None)
    if known is None:
        sys.exit(f"the peaks of {name!r} are not known: add them to PEAKS in {__file__}")
    look, short, heavy = (
        Work(64, 300, 16, 256, calls=2),
        Work(16, 30, 16, 256, calls=2),
        Work(16, 100, 16, 512, True, calls=2),
    )
    memory = torch.cuda.get_device_properties(0).total_memory
    return Setting("cuda", *known, memory, look, short, heavy, 4096, STEP_TOKENS // 4096, large_model)


def rehearsal() -> Setting:
    here = cost.this_machine()
    work = Work(2, 20, 4, 8, calls=2)
    return Setting(
        "cpu", here.flops, here.bandwidth, here.memory, work, work, Work(2, 20, 4, 16, True, calls=2), 64, 2,
        lambda: small_model(num_hidden_layers=2, vocab_size=4096),
    )  # fmt: skip


def roofline(model: Any, work: Work, here: Setting) -> float:
    """Tokens/s that the device could make at most, as the head of this file counts."""
    parameters = sum(p.numel() for p in model.parameters())
    weights = parameters * next(model.parameters()).element_size()
    rows, token = work.prompts * work.samples, token_bytes(model)
    batches = math.ceil(rows * (work.tokens + work.new) * token / (here.memory - weights))
    prefill = 2 * parameters * work.prompts * work.tokens / here.flops
    products = max(batches * work.new * weights / here.bandwidth, 2 * parameters * rows * work.new / here.flops)
    attention = rows * token * work.new * (work.tokens + work.new / 2) / here.bandwidth
    return rows * work.new / (prefill + products + attention)


# parts


def sampling(here: Setting, result: Result, title: str, work: Work) -> None:
    model = here.make()
    rates = compare(model, work, 1, result, title, batch=4)
    if work.heavy:
        return  # how many tokens each step still reads is chance
    most = roofline(model, work, here)
    shares = table(
        ["way", "tokens/s", "of the roofline"], [[n, f"{r:.0f}", f"{r / most:.0%}"] for n, r in rates.items()]
    )
    result.add(f"Roofline of this look: {most:,.0f} tokens/s.", "", *shares)
    if work is here.look and here.device == "cuda":
        best = max(rates["divwatch"], rates["continuous batching (transformers)"]) / most
        result.add("- " + result.bound("at least half of the roofline at the default look", best >= 0.5), "")


def training(here: Setting, result: Result, title: str, lora: bool) -> None:
    """Steps of TRL's SFTTrainer with the callback: the median step, the looks, and the share at one look in EVERY."""
    free = torch.cuda.mem_get_info()[0] if here.device == "cuda" else here.memory
    model = here.make()
    parameters = sum(p.numel() for p in model.parameters())
    needed = parameters * (2 if lora else 8) * 1.25  # bf16 weights; with gradients and two moments
    if needed > free:
        result.add(f"{title}: not run, {needed / 1e9:.0f} GB do not fit into {free / 1e9:.0f} GB.", "")
        return
    with tempfile.TemporaryDirectory() as folder:
        steps, looks = _trained(here, model, lora, Path(folder))
    step, look = statistics.median(steps[1:]), looks[-1]["seconds"]["total"]
    share = look / (look + EVERY * step)
    held = ", ".join(f"{record['seconds']['total']:.1f} s" for record in looks)
    result.add(
        f"{title}: a step of {here.row * here.rows:,} tokens {step:.2f} s (median of {len(steps) - 1}), "
        f"looks {held}: {share:.1%} of the time with a look every {EVERY} steps.",
        "",
    )
    if here.device == "cuda":
        result.add("- " + result.bound(f"{title}: at most {PROMISE:.0%}", share <= PROMISE), "")


def _trained(here: Setting, model: Any, lora: bool, folder: Path) -> tuple[list[float], list[dict[str, Any]]]:
    """(seconds of each step without its look, the records of the looks)."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    import divwatch
    from divwatch.store import RunDirectory

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.steps: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            _wait(here.device)
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            _wait(here.device)
            self.steps.append(time.perf_counter() - self.started)

    draw, vocabulary, steps = random.Random(0), model.config.vocab_size, 3
    data = Dataset.from_list(
        [{"input_ids": draw.choices(range(10, vocabulary), k=here.row)} for _ in range(steps * here.rows)]
    )
    arguments = SFTConfig(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=1, gradient_accumulation_steps=here.rows,
        max_length=here.row, bf16=here.device == "cuda", use_cpu=here.device == "cpu", gradient_checkpointing=True,
        optim="adamw_torch", learning_rate=1e-5, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        processing_class=_tokenizer(),
        peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None,
    )
    clock = Clock()
    trainer.add_callback(clock)  # before the look of a step begins
    divwatch.watch(
        trainer, every=steps, panel=str(_panel(folder, here.look)), prompts=here.look.prompts, samples=here.look.samples,
        max_new_tokens=here.look.new, form="plain", encoder="minilm", max_overhead=0, on_error="raise",
    )  # fmt: skip
    trainer.train()
    return clock.steps, RunDirectory.of(folder).looks()


def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    from divwatch.tiny import BASE_MODEL

    return AutoTokenizer.from_pretrained(BASE_MODEL)


def _panel(folder: Path, work: Work) -> Path:
    """Prompts of the work's length: a word that is one token, and the number of the prompt."""
    tokenizer, file = _tokenizer(), folder / "prompts.jsonl"
    with file.open("w") as out:
        for i in range(work.prompts):
            words = [f"question {i}:"]
            while len(tokenizer(" ".join([*words, "the"]))["input_ids"]) <= work.tokens:
                words.append("the")
            out.write(json.dumps({"id": str(i), "prompt": " ".join(words)}) + "\n")
    return file


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(here: Setting) -> Result:
    started = time.monotonic()
    result = Result()
    said = torch.cuda.get_device_name() if here.device == "cuda" else "rehearsal on a CPU, figures of no meaning"
    result.add(f"{said}; {machine()}; {versions()}.", "")
    # With the seconds that each may need on an H100, so that none is begun that could not end in time.
    parts: list[tuple[str, int, Callable[[str], None]]] = [
        ("the default look", 180, lambda title: sampling(here, result, title, here.look)),
        ("LoRA, rank 16", 190, lambda title: training(here, result, title, True)),
        ("full fine-tuning", 190, lambda title: training(here, result, title, False)),
        ("short prompts", 90, lambda title: sampling(here, result, title, here.short)),
        ("heavy-tailed lengths", 90, lambda title: sampling(here, result, title, here.heavy)),
    ]
    for title, needs, part in parts:
        if time.monotonic() - started + needs > LIMIT:
            result.add(f"{title}: not run, the nine minutes do not hold it.", "")
            continue
        print(f"{title} ...", file=sys.stderr, flush=True)
        part(title)
        if here.device == "cuda":
            torch.cuda.empty_cache()
    return result


def main() -> int:
    chosen = options(
        __doc__,
        lambda parser: parser.add_argument("--rehearse", action="store_true", help="on a CPU, at toy size"),
        lambda parser: parser.add_argument("--write", type=Path, help="the page whose section `gpu` is replaced"),
    )
    if chosen.rehearse:
        torch.set_num_threads(1)
    result = measure(rehearsal() if chosen.rehearse else real())
    if chosen.write:
        place(chosen.write, "gpu", result.lines)
    return publish(result, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
