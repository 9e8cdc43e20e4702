"""Is a look right on a GPU: tokens against `generate`, weights with the monitor on and off, embeddings against the CPU's."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_setting import Report, Setting, in_mode, modes, panel, random_model
from gpu_training import sft_trainer
from sampling import STOP, TEMPERATURE, TOP_P, Work, request_of
from transformers import GenerationConfig, TrainerCallback

from divwatch.sampling import in_process
from divwatch.sampling.plan import Row

# Its windows are longer than the prompts and completions: with shorter ones decoding would be eager in every mode.
SHAPE = {
    "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 8, "vocab_size": 1024, "max_position_embeddings": 2048,
}  # fmt: skip
SHARPER = 4.0  # factor of the head's weights, so that the distribution of a random model is not flat
TIE = 2**-6  # logits this close, relative to their size, are a tie in bf16
LEAST_P = 0.001


class Messages(logging.Handler):
    """What divwatch logs: a mode that falls back to another says so."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextlib.contextmanager
def no_fallback(report: Report, what: str) -> Iterator[None]:
    """Bounds that no batch was decoded in another mode than the one asked for: its results would not be about that mode."""
    messages = Messages()
    logger = logging.getLogger("divwatch")
    logger.addHandler(messages)
    logger.setLevel("INFO")
    try:
        yield
    finally:
        logger.removeHandler(messages)
    texts = [text for text in messages.texts if text.startswith(("decoding ", "attention "))]
    reasons = f" ({'; '.join(texts)})" if texts else ""
    report.bound(f"{what}: no mode fell back to another{reasons}", not texts)


def tokens(here: Setting, report: Report) -> None:
    """Tokens of a look in every mode against those of `generate`."""
    for dtype in (torch.bfloat16, torch.float32):
        model = random_model(here, SHAPE, dtype)
        with torch.no_grad():
            model.lm_head.weight.mul_(SHARPER)
        if dtype == torch.bfloat16:
            _same_law(here, report, model)
        _same_greedy(here, report, model)
        _same_streams(report, model)


def _look(model: Any, request: Any, work: Work) -> list[list[int]]:
    rows = [Row(i, k) for i in range(work.prompts) for k in range(work.samples)]
    with torch.no_grad():
        return in_process.generate(model, request, rows, lambda done: None)


def _generated(model: Any, prompt: list[int], rows: int, new: int, **how: Any) -> Any:
    """[rows, new] tokens of transformers' `generate`."""
    ids = torch.tensor([prompt], device=model.device)
    how |= {"max_new_tokens": new, "pad_token_id": STOP, "eos_token_id": None, "num_return_sequences": rows}
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=GenerationConfig(**how))
    return out[:, ids.shape[1] :].cpu().numpy()


def _same_law(here: Setting, report: Report, model: Any) -> None:
    work = Work(4, 100, here.draws, 2)
    request = request_of(model, work)
    drawn = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P, "top_k": 0}
    torch.manual_seed(1)
    theirs = [_generated(model, prompt, work.samples, 2, **drawn) for prompt in request.encoded]
    for mode in modes():
        ids = _look(model, in_mode(request, mode, work.new), work)
        ours = np.array(ids).reshape(work.prompts, work.samples, 2)
        values = [_p_value([o[:, at] for o in ours], [t[:, at] for t in theirs]) for at in (0, 1)]
        report.bound(
            f"bf16, {mode}: first and second tokens of {work.prompts} prompts, {work.samples:,} draws each, have the law of "
            f"`generate` (chi-square, p {values[0]:.2f} and {values[1]:.2f}, at least {LEAST_P})",
            min(values) >= LEAST_P,
        )


def _p_value(ours: list[Any], theirs: list[Any]) -> float:
    """Of one test over all prompts: the sum of their two-sample chi-square statistics; rare tokens are counted together."""
    from scipy.stats import chi2, chi2_contingency

    statistic, freedom = 0.0, 0
    for one, other in zip(ours, theirs, strict=True):
        width = int(max(one.max(), other.max())) + 1
        counts = np.array([np.bincount(one, minlength=width), np.bincount(other, minlength=width)])
        rare = counts.sum(0) < 20
        cells = np.column_stack([counts[:, ~rare], counts[:, rare].sum(1)])
        cells = cells[:, cells.sum(0) > 0]
        if cells.shape[1] > 1:
            found = chi2_contingency(cells, correction=False)
            statistic, freedom = statistic + found.statistic, freedom + found.dof
    return float(chi2.sf(statistic, freedom))


def _same_greedy(here: Setting, report: Report, model: Any) -> None:
    work = Work(8, 100, 2, 64)
    request, name = request_of(model, work), str(model.dtype).removeprefix("torch.")
    theirs = [_generated(model, prompt, 1, work.new, do_sample=False)[0].tolist() for prompt in request.encoded]
    for mode in modes():
        ids = _look(model, in_mode(request, mode, work.new, temperature=1e-6, top_p=0.5), work)
        first = [
            (i, row.prompt, at) for i, row in enumerate(_rows(work)) if (at := _parts_at(ids[i], theirs[row.prompt]))
        ]
        broken = [
            (prompt, at) for i, prompt, at in first
            if not _is_tie(model, request.encoded[prompt] + theirs[prompt][: at - 1], ids[i][at - 1], theirs[prompt][at - 1])
        ]  # fmt: skip
        equal = len(ids) - len(first)
        report.bound(
            f"{name}, {mode}: greedy tokens equal those of `generate` in {equal} of {len(ids)} rows of {work.new}, "
            f"the others part at a tie of two logits",
            not broken,
        )


def _rows(work: Work) -> list[Row]:
    return [Row(i, k) for i in range(work.prompts) for k in range(work.samples)]


def _parts_at(one: list[int], other: list[int]) -> int:
    """The place, counted from 1, of the first token that differs; 0: none."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=True), 1) if a != b), 0)


def _is_tie(model: Any, read: list[int], one: int, other: int) -> bool:
    with torch.no_grad():
        logits = model(torch.tensor([read], device=model.device)).logits[0, -1].float()
    gap = (logits[one] - logits[other]).abs()
    return bool(gap <= (TIE if model.dtype == torch.bfloat16 else 1e-4) * logits.abs().max())


def _same_streams(report: Report, model: Any) -> None:
    """Every mode against the eager one, with the same random numbers."""
    work, name = Work(8, 100, 8, 64), str(model.dtype).removeprefix("torch.")
    request = request_of(model, work)
    eager = _look(model, in_mode(request, "eager", work.new), work)
    for mode in modes()[1:] or ["eager"]:
        other = _look(model, in_mode(request, mode, work.new), work)
        rows = np.mean([a == b for a, b in zip(eager, other, strict=True)])
        first = np.mean([a[0] == b[0] for a, b in zip(eager, other, strict=True)])
        same = sum(_common(a, b) for a, b in zip(eager, other, strict=True)) / sum(map(len, eager))
        text = (
            f"{name}, {mode} beside eager under the same random numbers: {first:.1%} of the first tokens, {rows:.1%} of the "
            f"rows of {work.new} tokens and {same:.1%} of the tokens up to the first difference are equal"
        )
        if name == "float32":
            report.bound(f"{text} (at least 99 % of the rows)", bool(rows >= 0.99))
        else:
            report.line(f"- {text}")


def _common(one: list[int], other: list[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


# weights


class Naive(TrainerCallback):
    """What a monitor must not do: sample from the model as it is, with the training's random numbers."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        ids = torch.full((2, 8), 7, device=model.device)
        how = GenerationConfig(do_sample=True, max_new_tokens=4, pad_token_id=STOP, eos_token_id=None)
        model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)


def weights(here: Setting, report: Report) -> None:
    """Final weights with and without the monitor: bf16, gradient checkpointing, dropout, with and without LoRA."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    for lora in (True, False):
        title = "LoRA" if lora else "full"
        off, on, naive = (_final(here, report, lora, how) for how in ("off", "on", "naive"))
        report.bound(
            f"{title}, bf16, gradient checkpointing: with the monitor on, the final weights are bit-identical "
            f"(sha256 {on[:12]})", on == off,
        )  # fmt: skip
        if on != off:  # is the training itself reproducible here?
            again = _final(here, report, lora, "off")
            report.bound(f"{title}: two runs without the monitor have equal weights", again == off)
        report.bound(f"{title}: control: naive sampling changes them", naive != off)
    torch.use_deterministic_algorithms(False)


def _final(here: Setting, report: Report, lora: bool, how: str) -> str:
    import divwatch

    model = random_model(here, SHAPE, attention_dropout=0.1)
    model.generation_config.eos_token_id = list(range(3, 40))
    with tempfile.TemporaryDirectory() as folder:
        trainer = sft_trainer(
            here, model, Path(folder), steps=6, rows=2, row=128, lora=lora, optim="adamw_torch", seed=3
        )
        if how == "naive":
            trainer.add_callback(Naive())
        if how == "on":
            divwatch.watch(
                trainer, every=3, panel=str(panel(Path(folder), 8, 20, 1000)), prompts=8, samples=4, max_new_tokens=48,
                form="plain", encoder="minilm", max_overhead=0, on_error="raise", min_usable=0.0,
            )  # fmt: skip
        trainer.train()
        if how == "on":
            _embeddings(here, report, Path(folder))
        digest = hashlib.sha256()
        for name, value in sorted(trainer.model.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _embeddings(here: Setting, report: Report, folder: Path) -> None:
    """The looks' own texts, and sentences of a real panel, on the device and on the CPU."""
    from divwatch.metrics.encoder import load_encoder
    from divwatch.panel import load_panel
    from divwatch.store.run_directory import RunDirectory

    run = RunDirectory.of(folder)
    steps = [look["step"] for look in run.looks()]
    report.bound(
        f"looks at steps {steps} are scored ({', '.join(look['status'] for look in run.looks())})", steps == [0, 3, 6]
    )
    texts = [c.text for step in steps for c in run.read_completions(step) if c.text.strip()]
    texts += [prompt.text for prompt in load_panel("quick")[1]]
    one, other = (load_encoder("minilm", device=device).encode(texts) for device in (here.device, "cpu"))
    worst = float(np.abs(one - other).max())
    report.bound(f"embeddings of {len(texts)} texts on the device equal the CPU's within 1e-2 (at most {worst:.1e} apart)",
                 worst <= 1e-2)  # fmt: skip


def correct(here: Setting, report: Report) -> None:
    with no_fallback(report, "weights"):
        weights(here, report)
    with no_fallback(report, "tokens"):
        tokens(here, report)
