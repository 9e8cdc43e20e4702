"""What looks cost a training on one GPU: TRL's SFTTrainer at the Olmo 3 7B shape with LoRA or all weights, and the
training steps beside the scoring process."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_setting import CLOSE, Report, Setting, beside, panel, random_model, words
from transformers import TrainerCallback

from divwatch.plan import cost
from divwatch.plan.shape import Shape, shape_of_model

# The run that shares of wall time are extrapolated to: tokens of a step on each GPU, steps, looks (first and last included).
STEP_TOKENS, STEPS, LOOKS = 131_072, 2_000, 14
PROMISE = 0.03
RANK = 16
ENDS = 256  # one token in so many ends a completion, on average


def sft_trainer(
    here: Setting, model: Any, folder: Path, *, steps: int, rows: int, row: int, lora: bool, optim: str, seed: int = 0
) -> Any:
    """TRL's SFTTrainer on random tokens: bf16, gradient checkpointing, one row a forward."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    draw, vocabulary = random.Random(seed), model.config.vocab_size
    data = [{"input_ids": draw.choices(range(10, vocabulary), k=row)} for _ in range(steps * rows)]
    adapter = (
        LoraConfig(r=RANK, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
    )
    return SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder), max_steps=steps, per_device_train_batch_size=1, gradient_accumulation_steps=rows,
            max_length=row, bf16=here.on_gpu, use_cpu=not here.on_gpu, gradient_checkpointing=True, learning_rate=1e-5,
            optim=optim, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, seed=seed,
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=words(vocabulary),
        peft_config=adapter,
    )  # fmt: skip


class Clock(TrainerCallback):
    """Seconds of each step. Added before the monitor, so that a step ends before its look begins."""

    def __init__(self, here: Setting) -> None:
        self._here, self.steps = here, []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._began = self._here.now()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps.append(self._here.now() - self._began)


def training(here: Setting, report: Report, lora: bool) -> None:
    title = f"LoRA, rank {RANK}, AdamW" if lora else "all weights in bf16, plain SGD (AdamW's fp32 state does not fit)"
    model = random_model(here, here.large)
    shape = shape_of_model(model, RANK)
    needed = shape.parameters * (2 if lora else 4) + 12e9  # 12 GB: activations, logits and the look
    if here.on_gpu and needed > torch.cuda.get_device_properties(0).total_memory:
        report.line(f"{title}: not run, about {needed / 1e9:.0f} GB do not fit.")
        return
    draw = random.Random(5)
    model.generation_config.eos_token_id = draw.sample(range(10, shape.vocabulary), shape.vocabulary // ENDS)
    with tempfile.TemporaryDirectory() as folder:
        steps, looks, mean = _watched(here, model, lora, Path(folder))
    peak = torch.cuda.max_memory_allocated() / 2**30 if here.on_gpu else float("nan")
    step, taken = statistics.median(steps[1:]), [look["seconds"]["total"] for look in looks]
    look = statistics.median(taken[1:])
    name = "lora" if lora else "full"
    report.fact(f"{name}_step", step)
    report.fact(f"{name}_look", look)
    prompts, samples, new = here.look
    report.line(
        f"{title}: a step of {here.row * here.rows:,} tokens takes {step:.2f} s (median of {len(steps) - 1}), looks of "
        f"{prompts} prompts x {samples} x at most {new} tokens (mean {mean:.0f}) take "
        f"{', '.join(f'{s:.1f}' for s in taken)} s; peak memory {peak:.0f} GiB."
    )
    _share(report, title, step * STEP_TOKENS / (here.row * here.rows), look)
    _predict(here, report, shape, lora, step, look, mean)


def _share(report: Report, title: str, step: float, look: float) -> None:
    """Of wall time, in a run of the stated schedule."""
    share = LOOKS * look / (LOOKS * look + STEPS * step)
    report.bound(
        f"{title}: {LOOKS} such looks in a run of {STEPS:,} steps of {STEP_TOKENS:,} tokens a GPU take {share:.2%} of the wall "
        f"time, at most {PROMISE:.0%} (extrapolated from these steps and looks)",
        share <= PROMISE,
    )


def _predict(here: Setting, report: Report, shape: Shape, lora: bool, step: float, look: float, mean: float) -> None:
    """`plan` beside the measurement. What training reaches is measured by the first of the two runs and predicts the other."""
    device, tokens = here.constants(report.facts), here.row * here.rows
    prompts, samples, new = here.look
    asked = cost.Look(prompts, samples, here.prompt, new, mean_tokens=mean)
    predicted = cost.cost_of(shape, device, 1, asked, "ddp", tokens).seconds
    report.line(f"`plan` predicts {beside(predicted, look)} for the look.")
    if here.on_gpu:
        report.bound(f"prediction of the look within {CLOSE:.0%}", abs(predicted / look - 1) <= CLOSE)
    trained = shape if lora else replace(shape, trained=None, adapted=0)
    reached = cost.train_operations(trained) * tokens / step
    report.fact("lora_flops" if lora else "full_flops", reached)
    report.line(f"Training reaches {reached / 1e12:.0f} TFLOP/s, {reached / here.flops:.0%} of the peak.")
    if "training" not in report.facts:
        report.fact("training", reached)
        return
    predicted = cost.train_operations(trained) * tokens / device.training
    report.line(f"`plan` predicts {beside(predicted, step)} for the step, from what the other run reached.")
    if here.on_gpu:
        report.bound(f"prediction of the step within {CLOSE:.0%}", abs(predicted / step - 1) <= CLOSE)


def _watched(here: Setting, model: Any, lora: bool, folder: Path) -> tuple[list[float], list[dict[str, Any]], float]:
    """(seconds of each step, the looks' records, mean tokens of a completion)."""
    import divwatch
    from divwatch.store.run_directory import RunDirectory

    trainer = sft_trainer(here, model, folder, steps=here.steps, rows=here.rows, row=here.row, lora=lora,
                          optim="adamw_torch" if lora else "sgd")  # fmt: skip
    clock = Clock(here)
    trainer.add_callback(clock)
    prompts, samples, new = here.look
    file = panel(folder, prompts, here.prompt, model.config.vocab_size)
    divwatch.watch(
        trainer, every=here.steps // 2, panel=str(file), prompts=prompts, samples=samples, max_new_tokens=new, form="plain",
        encoder="minilm", max_overhead=0, on_error="raise",
    )  # fmt: skip
    trainer.train()
    run = RunDirectory.of(folder)
    lengths = [c.tokens for step in (0, here.steps) for c in run.read_completions(step)]
    return clock.steps, run.looks(), statistics.mean(lengths)


# beside the scoring process


def scoring(here: Setting, report: Report) -> None:
    """Steps of a smaller model, which last long enough to count and are short enough to feel other work, while looks are
    scored: the encoder runs on the CPU, as where no rank has embedded the completions."""
    model = random_model(here, here.middle).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    ids = torch.randint(10, model.config.vocab_size, (1, here.row), device=here.device)

    def step() -> float:
        began = here.now()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return here.now() - began

    for _ in range(3):
        step()
    before = [step() for _ in range(20 if here.on_gpu else 3)]
    with tempfile.TemporaryDirectory() as folder:
        during, seconds = _while_scoring(Path(folder), step)
    after = [step() for _ in range(20 if here.on_gpu else 3)]
    alone, beside_it = statistics.median(before + after), statistics.median(during)
    report.fact("beside", beside_it / alone)
    report.line(
        f"Steps of a model of {sum(p.numel() for p in model.parameters()) / 1e9:.1f} billion parameters, {here.row:,} tokens: "
        f"{alone * 1e3:.0f} ms alone (median of {len(before + after)}), {beside_it * 1e3:.0f} ms while the scoring process "
        f"scores and encodes looks of 1,024 completions on the CPU ({len(during)} steps in {seconds:.0f} s)."
    )
    if here.on_gpu:
        report.bound("scoring slows the steps by at most 3 %", beside_it <= 1.03 * alone)


def _while_scoring(folder: Path, step: Any) -> tuple[list[float], float]:
    """(seconds of the steps made until all looks were scored, at most 15 s; how long that was)."""
    from divwatch.config import WatchConfig
    from divwatch.monitor.background import Background
    from divwatch.records import Completion, Prompt
    from divwatch.store.run_directory import RunDirectory

    draw = random.Random(2)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]
    prompts = [Prompt(str(i), "bench", f"question {i}") for i in range(64)]
    config = WatchConfig(prompts=64, samples=16, encoder="minilm", form="plain")
    store = RunDirectory(folder / "divwatch")
    store.create({"settings": config.as_dict()})
    process = Background(config)
    try:
        process.open(store, prompts, config, 10)
        for look in range(2):
            texts = [Completion(p.id, p.task, k, " ".join(draw.choices(vocabulary, k=200)), True, 300)
                     for p in prompts for k in range(16)]  # fmt: skip
            store.write_completions(look, texts)
            process.submit(store, look, 1.0)
        began, during = time.monotonic(), []
        while process.busy and time.monotonic() - began < 15:
            during.append(step())
            for done in process.poll():
                if "error" in done:
                    raise RuntimeError(done["error"])
        return during, time.monotonic() - began
    finally:
        process.close()
