"""What only a GPU shows: a look at the Olmo 3 7B shape against the roofline, and its share of LoRA and full training.

    python benchmarks/gpu.py                      one GPU of 80 GB or more, under 9 minutes, nothing is downloaded
    python benchmarks/gpu.py --write docs/benchmarks.md
    python benchmarks/gpu.py --only "LoRA, rank 16"    one part
    python benchmarks/gpu.py --rehearse           the same parts on a CPU at toy size, so that the script is known to run

The model has random weights in bf16, made on the device. Each part is a process of its own, so that none finds memory
that another has left, and one that fails or is not done in nine minutes is said to be so. The most important come first.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from measuring import Result, machine, options, place, publish, table, versions
from sampling import CONTINUOUS, OURS, STOP, TEMPERATURE, TOP_P, Work, compare, endless, small_model
from transformers import Olmo3Config, Olmo3ForCausalLM

from divwatch.plan import cost

LIMIT = 9 * 60 - 15
STEP_TOKENS, EVERY = 1_048_576 // 8, 100  # tokens of this GPU in a step of eight; steps between looks
PROMISE = 0.03

# Published peaks by the name that torch gives: dense bf16 operations/s, bytes/s of memory.
PEAKS = {
    "NVIDIA A100-SXM4-80GB": (312e12, 2.04e12),
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12),
    "NVIDIA H200": (989e12, 4.8e12),
    "NVIDIA B200": (2250e12, 8.0e12),
}


@dataclass(frozen=True)
class Setting:
    """What the parts run on: the real thing, or a rehearsal. row: tokens of a training row; rows: of an optimizer step."""

    device: str
    flops: float
    bandwidth: float
    memory: float
    look: Work
    short: Work
    heavy: Work
    row: int
    rows: int
    make: Callable[[], Any]


def real() -> Setting:
    if not torch.cuda.is_available():
        sys.exit("no GPU here: run it on one, or with --rehearse")
    name = torch.cuda.get_device_name()
    if name not in PEAKS:
        sys.exit(f"the peaks of {name!r} are not known: add them to PEAKS in {__file__}")
    look = Work(64, 300, 16, 256, calls=2)
    short, heavy = Work(16, 30, 16, 256, calls=2), Work(16, 100, 16, 512, True, calls=2)
    memory = torch.cuda.get_device_properties(0).total_memory
    return Setting("cuda", *PEAKS[name], memory, look, short, heavy, 4096, STEP_TOKENS // 4096, large_model)


def rehearsal() -> Setting:
    torch.set_num_threads(1)
    here = cost.this_machine()
    work = Work(2, 20, 4, 8, calls=2)
    return Setting(
        "cpu", here.flops, here.bandwidth, here.memory, work, work, Work(2, 20, 4, 16, True, calls=2), 64, 2,
        lambda: small_model(num_hidden_layers=2, vocab_size=4096),
    )  # fmt: skip


def large_model() -> Any:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return endless(Olmo3ForCausalLM(Olmo3Config(**cost.KNOWN["olmo3-7b"], pad_token_id=STOP)).eval())
    finally:
        torch.set_default_dtype(torch.float32)


# the roofline


def roofline(shape: cost.Shape, work: Work, here: Setting, shared: bool) -> float:
    """Tokens/s that the device could make at most.

    Prefill: twice the body's parameters for every prompt token, at the peak arithmetic. Then for every new token the
    weights, read once a batch or multiplied once a row, whichever takes longer; of as few batches as the memory allows.
    And every row's keys and values: its own and the prompt's, which `shared` counts once a prompt and not once a row, as
    an attention kernel that knows of shared prefixes could. The table of embeddings is looked up and not multiplied.
    """
    rows, token, weights = work.prompts * work.samples, shape.token_bytes, shape.multiplied * shape.weight_bytes
    prompts = work.tokens * (work.prompts if shared else rows)  # tokens of prompts that are held and read a step
    batches = math.ceil((prompts + rows * work.new) * token / (here.memory - weights))
    prefill = 2 * (shape.multiplied - shape.head) * work.prompts * work.tokens / here.flops
    reading = batches * work.new * weights / here.bandwidth
    arithmetic = 2 * shape.multiplied * rows * work.new / here.flops
    keys = (prompts + rows * work.new / 2) * work.new * token / here.bandwidth
    return rows * work.new / (prefill + max(reading, arithmetic) + keys)


def shares(shape: cost.Shape, work: Work, here: Setting, rates: dict[str, float], result: Result) -> None:
    """Each way's share of both rooflines."""
    each, shared = (roofline(shape, work, here, prefix) for prefix in (False, True))
    rows = [[name, f"{rate:,.0f}", f"{rate / each:.0%}", f"{rate / shared:.0%}"] for name, rate in rates.items()]
    rows.append(["the roofline itself", "", f"{each:,.0f} tokens/s", f"{shared:,.0f} tokens/s"])
    result.add(*table(["way", "tokens/s", "of the roofline", "of the roofline with shared prefixes"], rows))


# parts


def sampling(here: Setting, result: Result, title: str, work: Work) -> None:
    model = here.make()
    rates = compare(model, work, 1, result, title)
    if work.heavy:
        return  # how many tokens each step still reads is chance
    shape = cost.shape_of_model(model)
    shares(shape, work, here, rates, result)
    if work is here.look and here.device == "cuda":
        best = max(rates[OURS], rates[CONTINUOUS]) / roofline(shape, work, here, shared=False)
        result.bound("at least half of the roofline at the default look, with the better backend", best >= 0.5)


def vllm(here: Setting, result: Result, title: str, work: Work) -> None:
    """An engine of the same shape with random weights of its own, in the share of the GPU that a look's engine gets."""
    if find_spec("vllm") is None or here.device == "cpu":
        result.add(f"{title}: not run, {'no GPU' if find_spec('vllm') else 'vLLM is not installed'}.")
        return
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    from divwatch.sampling.vllm import GPU_SHARE

    asked = [TokensPrompt(prompt_token_ids=[10 + i] * work.tokens) for i in range(work.prompts)]
    with tempfile.TemporaryDirectory() as folder:
        Olmo3Config(**cost.KNOWN["olmo3-7b"], architectures=["Olmo3ForCausalLM"]).save_pretrained(folder)
        engine = LLM(
            folder, load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", max_model_len=work.tokens + work.new,
            gpu_memory_utilization=GPU_SHARE, enable_prefix_caching=False,
        )  # fmt: skip
    how = SamplingParams(
        n=work.samples, temperature=TEMPERATURE, top_p=TOP_P, max_tokens=work.new, ignore_eos=True, detokenize=False
    )
    engine.generate(asked[:4], how, use_tqdm=False)
    started = time.perf_counter()
    made = sum(len(o.token_ids) for found in engine.generate(asked, how, use_tqdm=False) for o in found.outputs)
    shares(cost.shape_of("olmo3-7b"), work, here, {"vLLM": made / (time.perf_counter() - started)}, result)


def training(here: Setting, result: Result, title: str, lora: bool) -> None:
    """Steps of TRL's SFTTrainer with the callback: the median step, the looks, and the share at one look in EVERY."""
    free = torch.cuda.mem_get_info()[0] if here.device == "cuda" else here.memory
    model = here.make()
    parameters = sum(p.numel() for p in model.parameters())
    # bf16 weights, with full training gradients and two moments in bf16 too; the rest for activations and the look.
    needed = parameters * (2 if lora else 8) + 6e9
    if needed > free:
        result.add(f"{title}: not run, {needed / 1e9:.0f} GB do not fit into {free / 1e9:.0f} GB.")
        return
    with tempfile.TemporaryDirectory() as folder:
        steps, looks = _trained(here, model, lora, Path(folder))
    step, look = statistics.median(steps[1:]), looks[-1]["seconds"]["total"]
    share = look / (look + EVERY * step)
    held = " and ".join(f"{record['seconds']['total']:.1f} s" for record in looks)
    result.add(
        f"{title}: a step of {here.row * here.rows:,} tokens takes {step:.2f} s (of {len(steps) - 1} steps), the looks before "
        f"and after {held}: with a look every {EVERY} steps {share:.1%} of the time.",
        "",
    )
    if here.device == "cuda":
        result.bound(f"{title}: at most {PROMISE:.0%}", share <= PROMISE)


def _trained(here: Setting, model: Any, lora: bool, folder: Path) -> tuple[list[float], list[dict[str, Any]]]:
    """(seconds of each step without its look, the records of the looks)."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    import divwatch
    from divwatch.store.run_directory import RunDirectory

    steps: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = _now(here.device)

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            steps.append(_now(here.device) - self.started)

    draw, vocabulary, count = random.Random(0), model.config.vocab_size, 3
    rows = [{"input_ids": draw.choices(range(10, vocabulary), k=here.row)} for _ in range(count * here.rows)]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder), max_steps=count, per_device_train_batch_size=1, gradient_accumulation_steps=here.rows,
            max_length=here.row, bf16=here.device == "cuda", use_cpu=here.device == "cpu", gradient_checkpointing=True,
            learning_rate=1e-5, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=_words(vocabulary),
        peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None,
    )  # fmt: skip
    model.register_forward_hook(_ends_at(here.look), with_kwargs=True)
    trainer.add_callback(Clock())  # before divwatch's, so that a step ends before its look begins
    divwatch.watch(
        trainer, every=count, panel=str(_panel(folder, here.look)), prompts=here.look.prompts, samples=here.look.samples,
        max_new_tokens=here.look.new, form="plain", encoder="minilm", max_overhead=0, on_error="raise",
    )  # fmt: skip
    trainer.train()
    return steps, RunDirectory.of(folder).looks()


def _ends_at(work: Work) -> Callable[..., Any]:
    """A hook that ends each completion of a look with its last token: full length, and finished, so that it is scored."""

    def stop_now(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        if not module.training:
            at = kwargs["position_ids"][..., -output.logits.shape[1] :] - (work.tokens - 1)
            output.logits[..., STOP] += 1e4 * (at >= work.new - 1).to(output.logits.dtype)
        return output

    return stop_now


def _words(vocabulary: int) -> Any:
    """A tokenizer in which every id is a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w4"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=f"w{STOP}", pad_token="w5", unk_token="w4")


def _panel(folder: Path, work: Work) -> Path:
    """Prompts of exactly the work's length."""
    draw, file = random.Random(1), folder / "prompts.jsonl"
    with file.open("w") as out:
        for i in range(work.prompts):
            words = " ".join(f"w{draw.randrange(10, 4000)}" for _ in range(work.tokens))
            out.write(json.dumps({"id": str(i), "prompt": words}) + "\n")
    return file


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# The most important first.
PARTS: dict[str, Callable[[Setting, Result, str], None]] = {
    "the default look": lambda here, result, title: sampling(here, result, title, here.look),
    "LoRA, rank 16": lambda here, result, title: training(here, result, title, True),
    "full training in bf16": lambda here, result, title: training(here, result, title, False),
    "vLLM at the default look": lambda here, result, title: vllm(here, result, title, replace(here.look, calls=None)),
    "short prompts": lambda here, result, title: sampling(here, result, title, here.short),
    "heavy-tailed lengths": lambda here, result, title: sampling(here, result, title, here.heavy),
}


def run(title: str, flags: list[str], seconds: float) -> dict[str, Any]:
    """What a part says of itself, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        command = [sys.executable, __file__, "--part", title, "--json", str(file), *flags]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"lines": [f"{title}: not done in the nine minutes."], "ratios": {}, "failed": []}
        if file.is_file():
            return json.loads(file.read_text())
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        return {"lines": [f"{title}: failed ({said})."], "ratios": {}, "failed": [f"{title}: {said}"]}


def main() -> int:
    chosen = options(
        __doc__,
        lambda parser: parser.add_argument("--rehearse", action="store_true", help="on a CPU, at toy size"),
        lambda parser: parser.add_argument("--only", choices=PARTS, help="one part"),
        lambda parser: parser.add_argument("--part", choices=PARTS, help="the same, in this process"),
        lambda parser: parser.add_argument("--write", type=Path, help="the page whose section `gpu` is replaced"),
    )
    result = Result()
    if chosen.part:
        PARTS[chosen.part](rehearsal() if chosen.rehearse else real(), result, chosen.part)
        return publish(result, chosen.json)
    if not chosen.rehearse:
        real()  # says in a line what is missing, before any part begins
    began = time.monotonic()
    said = "rehearsal on a CPU, figures of no meaning" if chosen.rehearse else torch.cuda.get_device_name()
    result.add(f"{said}; {machine()}; {versions()}.", "")
    for title in [chosen.only] if chosen.only else PARTS:
        left = LIMIT - (time.monotonic() - began)
        print(f"{title} ...", file=sys.stderr, flush=True)
        found = run(title, ["--rehearse"] if chosen.rehearse else [], left) if left > 30 else {}
        result.add(*found.get("lines", [f"{title}: not begun in the nine minutes."]), "")
        result.failed += found.get("failed", [])
        if chosen.write:  # what is found is kept, whatever happens to the rest
            place(chosen.write, "gpu", result.lines)
    return publish(result, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
