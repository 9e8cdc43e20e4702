"""How fast a look is at the Olmo 3 7B shape: by batch size and way of decoding, beside the roofline and beside `plan`.

The cost model's constants come from the same model: each from decode steps or forwards that this constant bounds.
"""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import torch
from gpu_setting import CLOSE, Report, Setting, beside, in_mode, modes, random_model
from measuring import peak_mib, table
from sampling import Work, by_backend, request_of

from divwatch.plan import cost
from divwatch.plan.shape import Shape, shape_of_model
from divwatch.sampling import continuous, in_process, memory
from divwatch.sampling.plan import Row

ROOF = 0.6  # share of the decode roofline that is aimed at
HEAD = [
    "rows x new tokens", "way", "seconds", "tokens/s", "of the roofline", "with shared prefixes", "peak memory, GiB", "`plan`",
]  # fmt: skip


def roofline(shape: Shape, work: Work, here: Setting, shared: bool) -> float:
    """Tokens/s that the device could make at most.

    Prefill: twice the body's parameters for every prompt token, at the peak arithmetic. Then for every new token the
    weights, read once a batch or multiplied once a row, whichever takes longer; of as few batches as the memory allows.
    And every row's keys and values: its own and the prompt's, which `shared` counts once a prompt and not once a row.
    """
    rows, token, weights = work.prompts * work.samples, shape.token_bytes, shape.multiplied * shape.weight_bytes
    prompts = work.tokens * (work.prompts if shared else rows)  # tokens of prompts that are held and read a step
    batches = math.ceil((prompts + rows * work.new) * token / (here.memory - weights))
    prefill = 2 * (shape.multiplied - shape.head) * work.prompts * work.tokens / here.flops
    reading = batches * work.new * weights / here.bandwidth
    arithmetic = 2 * shape.multiplied * rows * work.new / here.flops
    keys = (prompts + rows * work.new / 2) * work.new * token / here.bandwidth
    return rows * work.new / (prefill + max(reading, arithmetic) + keys)


def decode(here: Setting, report: Report) -> None:
    logging.basicConfig(level="INFO")  # a mode that falls back says so
    model = random_model(here, here.large)
    model.generation_config.eos_token_id = None
    shape = shape_of_model(model, 16)
    report.line(
        f"{shape.parameters / 1e9:.2f} billion parameters, {shape.token_bytes / 2**20:.2f} MiB of keys a token."
    )
    with _kept(report, "constants"):
        constants(here, report, model, shape)
    with _kept(report, "out of memory"):
        out_of_memory(here, report, model)
    with _kept(report, "table"):
        looks(here, report, model, shape)


@contextlib.contextmanager
def _kept(report: Report, name: str) -> Any:
    """What fails is recorded, and the rest is measured."""
    try:
        yield
    except Exception as error:
        logging.exception(name)
        text = str(error).strip().splitlines()
        report.bound(f"{name}: {type(error).__name__}: {text[0][:200] if text else ''}", False)


def timed(here: Setting, way: Callable[[], Any]) -> float:
    began = here.now()
    way()
    return here.now() - began


def generate(model: Any, request: Any, work: Work, progress: Callable[[int], None] = lambda done: None) -> int:
    rows = [Row(i, k) for i in range(work.prompts) for k in range(work.samples)]
    with torch.no_grad():
        return sum(map(len, in_process.generate(model, request, rows, progress)))


# constants


def constants(here: Setting, report: Report, model: Any, shape: Shape) -> None:
    rows, short, long, few, many = here.probe
    fast = modes()[-1]
    prefill = here.samples * here.prompt
    ids = torch.randint(10, shape.vocabulary, (here.samples, here.prompt), device=here.device)
    with torch.no_grad():
        forward = [timed(here, lambda: model.model(input_ids=ids, use_cache=False)) for _ in range(4)]
    report.fact("flops", 2 * (shape.multiplied - shape.head) * prefill / min(forward))

    narrow = random_model(here, here.large | {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8,
                                              "num_key_value_heads": 8, "vocab_size": 1024, "head_dim": 32})  # fmt: skip
    for mode in modes():
        least = step_seconds(here, narrow, mode, 1, short, few, many)
        report.fact(f"layer_seconds_{mode}", least / narrow.config.num_hidden_layers)
    del narrow
    report.fact("layer_seconds", report.facts[f"layer_seconds_{fast}"])

    report.fact("linear_bandwidth", linear_bandwidth(here, model))
    step = partial(step_seconds, here, model, fast, few=few, many=many)
    one, batch, longer = step(rows=1, context=short), step(rows=rows, context=short), step(rows=rows, context=long)
    for name, seconds in (("one row", one), ("batch", batch), ("long batch", longer)):
        report.fact(f"step, {name}", seconds)
    report.fact("attention", attention_bandwidth(here, model))
    report.fact("attention, by steps", (rows // 2 if fast != "eager" else rows) * (long - short) * shape.token_bytes
                / max(1e-6, longer - batch))  # fmt: skip
    # A single row: what the small kernels of its layers leave is the reading of the weights.
    small = shape.layers * report.facts["layer_seconds"]
    report.fact("bandwidth", shape.multiplied * shape.weight_bytes / max(1e-6, one - small))
    _rest(here, report, shape, one, batch)


def _rest(here: Setting, report: Report, shape: Shape, one: float, batch: float) -> None:
    """What each further row costs besides products and attention, shared between the draw and the small kernels."""
    from divwatch.sampling import noise, nucleus

    rows, short, _, few, many = here.probe
    logits = torch.randn(rows, shape.vocabulary, device=here.device, dtype=torch.bfloat16)
    seeds = torch.as_tensor(noise.token_seeds(0, [("p", k) for k in range(rows)], 1)[:, 0], device=here.device)
    draws = [timed(here, lambda: nucleus.draw(logits, seeds, 0.6, 0.95)) for _ in range(10)]
    report.fact("draw", statistics.median(draws))
    device = here.constants(report.facts | {"logit_seconds": 0.0, "small_seconds": 0.0})
    context = (short / 2 if modes()[-1] != "eager" else short) + (few + many) / 2  # two rows a prompt
    left = batch - cost.decode_step(shape, device, rows, context)
    row = max(0.0, left / rows)
    logit = min(row, report.facts["draw"] / rows)
    report.fact("logit_seconds", logit / shape.vocabulary)
    report.fact("small_seconds", (row - logit) / shape.token_bytes)


def step_seconds(here: Setting, model: Any, mode: str, rows: int, context: int, few: int, many: int) -> float:
    """Seconds of a decode step: what `many` new tokens take longer than `few`. A prompt has two rows, a single row one."""
    work = Work(max(1, rows // 2), context, 2, many)
    request = request_of(model, work)
    asked = [Row(i, k) for i in range(work.prompts) for k in range(min(rows, 2))]

    def run(new: int) -> None:
        with torch.no_grad():
            in_process.generate(model, in_mode(request, mode, new), asked, lambda done: None)

    run(few)
    repeats = 1 if mode == "eager" and here.on_gpu else 2  # an eager step is long beside what varies
    seconds = {new: [timed(here, partial(run, new)) for _ in range(repeats)] for new in (few, many)}
    return (min(seconds[many]) - min(seconds[few])) / (many - few)


def attention_bandwidth(here: Setting, model: Any) -> float:
    """Bytes/s of keys and values that one layer's attention reads, prompts shared, as a decode step calls it."""
    from types import SimpleNamespace

    from divwatch.sampling import prefix

    heads, dtype = model.config.num_key_value_heads, model.dtype
    size = model.config.hidden_size // model.config.num_attention_heads
    prompts, group, length, own = here.prompts[-1], here.samples, here.prompt, here.new
    owners = [prompt for prompt in range(prompts) for _ in range(group)]
    mask = torch.ones(prompts, length, device=here.device)
    batch = prefix.PrefixCache(SimpleNamespace(layers=[]), mask, owners, own)
    states = [torch.randn(prompts, heads, length, size, device=here.device, dtype=dtype) for _ in range(2)]
    layer = prefix.PrefixLayer(batch, *states)
    layer.own_keys.normal_()
    layer.own_values.normal_()
    query = torch.randn(prompts * group, heads, size, device=here.device, dtype=dtype)
    batch.span = layer.own_keys.shape[2]
    batch.begin(torch.full_like(batch.slot, own - 1), torch.ones(prompts * group, device=here.device))
    way = prefix.attention_by_products
    if here.on_gpu and prefix.kernels_work(torch.device("cuda", 0), size, size, dtype, 1):
        from divwatch.sampling import kernels

        way = kernels.attention
    seconds = min(timed(here, lambda: [way(query, layer, size**-0.5) for _ in range(20)]) for _ in range(3)) / 20
    return 2 * heads * size * query.element_size() * prompts * (length + group * own) / seconds


def linear_bandwidth(here: Setting, model: Any) -> float:
    """Bytes/s at which one row is multiplied with every weight, nothing else being done."""
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    rows = {m.in_features: torch.randn(1, m.in_features, device=here.device, dtype=m.weight.dtype) for m in layers}

    def run() -> None:
        with torch.no_grad():
            for layer in layers:
                layer(rows[layer.in_features])

    seconds = min(timed(here, run) for _ in range(5))
    return sum(m.weight.numel() * m.weight.element_size() for m in layers) / seconds


# looks


def looks(here: Setting, report: Report, model: Any, shape: Shape) -> None:
    """Whole looks: tokens/s, shares of the roofline, peak memory and `plan`'s prediction by way and batch size."""
    best = 0.0
    report.lines(["", *table(HEAD, [])[:2]])
    for way, prompts in _runs(here):
        new = here.new if way == modes()[-1] else here.new // 4  # without a graph, 256 steps take up to half a minute
        work = Work(prompts, here.prompt, here.samples, new)
        try:
            row = _look(here, report, model, shape, way, work)
        except Exception as error:
            logging.exception("%s", way)
            row = [
                f"{work.prompts * work.samples} x {work.new}",
                way,
                f"failed: {type(error).__name__}: {str(error)[:120]}",
            ] + [""] * 5
        else:
            best = max(best, report.facts[f"roof, {way}, {work.prompts * work.samples}"])
        report.line(f"| {' | '.join(map(str, row))} |")
    report.line()
    if here.on_gpu:
        report.bound(f"at least {ROOF:.0%} of the roofline at some batch size", best >= ROOF)
        off = [value for name, value in report.facts.items() if name.startswith("off, ")]
        report.bound(f"`plan` within {CLOSE:.0%} of all {len(off)} looks", max(map(abs, off)) <= CLOSE)


def _runs(here: Setting) -> list[tuple[str, int]]:
    """(way, prompts), the most important first."""
    small, large = here.prompts[:2], here.prompts
    fast = modes()[-1]
    runs = [(fast, n) for n in large] if fast != "eager" else []
    runs += [("shared", small[-1])] if "shared" in modes() else []
    return [*runs, ("eager", small[-1])]


def continuous_batching(here: Setting, report: Report) -> None:
    """transformers' continuous batching of the look that `decode` makes eagerly: a part of its own, as it may not end."""
    model = random_model(here, here.large)
    model.generation_config.eos_token_id = None
    work = Work(here.prompts[1], here.prompt, here.samples, here.new)
    row = _look(here, report, model, shape_of_model(model), "continuous", work)
    report.lines(table(HEAD, [row]))


def _look(here: Setting, report: Report, model: Any, shape: Shape, way: str, work: Work) -> list[Any]:
    made: list[int] = []
    seconds: list[float] = []
    request, sizes = request_of(model, work), []

    def run() -> None:
        if way == "continuous":
            made.append(by_backend(continuous, model, request, work, count()))
        else:
            made.append(generate(model, in_mode(request, way, work.new), work, sizes.append))

    if way != "continuous":
        generate(model, in_mode(request, way, 4), work)  # kernels are loaded and chosen
    peak = peak_mib(lambda: seconds.append(timed(here, run)), here.device) / 1024
    rate, rows = made[0] / seconds[0], work.prompts * work.samples
    each, shared = (roofline(shape, work, here, prefix) for prefix in (False, True))
    report.fact(f"roof, {way}, {rows}", rate / shared)
    prediction = ""
    if way == modes()[-1]:
        device = replace(here.constants(report.facts), shares_prompts=way != "eager")
        asked = cost.Look(work.prompts, work.samples, work.tokens, work.new)
        predicted = cost.cost_of(shape, device, 1, asked).seconds
        prediction = beside(predicted, seconds[0])
        report.fact(f"off, {way}, {rows}", predicted / seconds[0] - 1)
    batches = f" ({len(sizes)} batches)" if len(sizes) > 1 else ""
    return [f"{rows} x {work.new}{batches}", way, f"{seconds[0]:.2f}", f"{rate:,.0f}", f"{rate / each:.0%}",
            f"{rate / shared:.0%}", f"{peak:.1f}", prediction]  # fmt: skip


# out of memory


def out_of_memory(here: Setting, report: Report, model: Any) -> None:
    """The allocator gets half of what the keys and values of all rows take: a batch of all rows cannot fit, on any device.

    The driver reports all of its memory as free, so the look is planned as one batch and has to be halved.
    """
    work = Work(here.prompts[-1], here.prompt, here.samples, here.new // 4)
    rows = work.prompts * work.samples
    needed = (work.prompts * work.tokens + rows * work.new) * memory.token_bytes(model)  # prompts' keys are shared
    sizes: list[int] = []
    request = in_mode(request_of(model, work), "auto", work.new)
    before = 0
    if here.on_gpu:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_stats()["num_ooms"]
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.5 * needed) / total)
    try:
        made = generate(model, request, work, sizes.append)
    finally:
        if here.on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0)
    failed = torch.cuda.memory_stats()["num_ooms"] - before if here.on_gpu else 0
    whole = made == rows * work.new
    report.bound(
        f"{rows} rows in half of the memory of their keys: out of memory {failed} times, then finished in "
        f"batches of {sizes} rows, with every token",
        whole and (failed > 0 or not here.on_gpu),
    )
