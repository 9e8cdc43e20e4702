"""Time and memory of sampling a look in process, beside other ways to sample a model in training, on the same prompts.

    python benchmarks/sampling.py                   this CPU, a random Olmo 3 of 13 M parameters, one thread, minutes

benchmarks/gpu.py measures the same on a GPU. The ways: divwatch's default backend; `generate(num_return_sequences=K)`;
one completion per call; one of each of eight prompts per call, as TRL's callbacks do by default; two per call, as the paper's
code does; divwatch's `continuous` backend, which is transformers' continuous batching. Each way samples the whole look
with temperature 0.6 and top-p 0.95. Three workloads: long prompts and short prompts, where every completion has its
full length, and completions with heavy-tailed lengths, half of which are done after 24 tokens.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from time import process_time
from typing import Any

import torch
from measuring import Result, in_turn, options, peak_mib, publish, spread, table
from transformers import GenerationConfig, Olmo3Config, Olmo3ForCausalLM

from divwatch.config import WatchConfig
from divwatch.records import Prompt
from divwatch.sampling import continuous, in_process, untouched
from divwatch.sampling.memory import row_tokens
from divwatch.sampling.plan import Row
from divwatch.sampling.request import Request, make_request

STOP = 3  # an id that a random model hardly ever draws by itself
TEMPERATURE, TOP_P = 0.6, 0.95
HALF_DONE = 24  # of the heavy tail: tokens after which half of the completions have stopped
OURS, CONTINUOUS = "divwatch", "continuous batching (`watch_backend: continuous`)"
ONE, EIGHT, TWO = (
    "one completion per call",
    "one completion of up to 8 prompts per call (TRL's callbacks)",
    "two completions per call (the paper's code)",
)
ONCE = (ONE, EIGHT, TWO, CONTINUOUS)  # slow ways


@dataclass(frozen=True)
class Work:
    """A look: prompts of `tokens` tokens, K samples each, up to `new` tokens. calls: how many calls are timed of ways that
    call `generate` repeatedly (the rate is theirs); None: all."""

    prompts: int
    tokens: int
    samples: int
    new: int
    heavy: bool = False
    calls: int | None = None

    def __str__(self) -> str:
        lengths = "heavy-tailed, at most" if self.heavy else "all"
        return f"{self.prompts} prompts of {self.tokens} tokens, K = {self.samples}, {lengths} {self.new} new tokens"


CPU_WORK = {
    "long prompts": Work(3, 300, 16, 32),
    "short prompts": Work(4, 30, 16, 32),
    "heavy-tailed lengths": Work(3, 100, 16, 96, heavy=True),
}

REFILL_WORK = {
    "more rows than fit, heavy-tailed": Work(8, 100, 16, 768, heavy=True),
}
REFILLED, NOT_REFILLED = "refilled (the default)", "each batch to its end"


class Words:
    """A minimal tokenizer: prompts are already ids."""

    chat_template = None
    eos_token_id = STOP

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


def small_model(**changes: Any) -> Any:
    shape: dict[str, Any] = {
        "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8,
        "num_key_value_heads": 8, "vocab_size": 16384, "max_position_embeddings": 1024, "sliding_window": 512,
        "eos_token_id": None,
    }  # fmt: skip
    return endless(Olmo3ForCausalLM(Olmo3Config(**shape | changes, pad_token_id=STOP)).eval())


def endless(model: Any) -> Any:
    """The model, without a stop token and without settings that `generate` would apply."""
    model.generation_config = GenerationConfig(pad_token_id=STOP)
    return model


def request_of(model: Any, work: Work) -> Request:
    """Random prompts, the same for every way. The seed is that of the sampling."""
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(10, model.config.vocab_size, (work.prompts, work.tokens), generator=draw).tolist()
    prompts = [Prompt(str(i), "bench", " ".join(map(str, row))) for i, row in enumerate(rows)]
    config = WatchConfig(samples=work.samples, max_new_tokens=work.new, form="plain")
    return make_request(model, Words(), prompts, config, 0, model.device)


@contextmanager
def lengths_of(model: Any, work: Work) -> Iterator[None]:
    """Within this context, completions of heavy-tailed work stop with probability 1 / (HALF_DONE + t) at token t.

    This is Lomax's distribution. It is built into the model's logits, so it applies to all ways equally.
    """

    def stop_now(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        logits, kept = output.logits, kwargs.get("logits_to_keep")
        kept = kept if torch.is_tensor(kept) else slice(-logits.shape[1], None)
        at = kwargs["position_ids"][..., kept] - (work.tokens - 1)  # new tokens so far
        chance = TOP_P / (HALF_DONE + at.clamp(min=0).float())  # the nucleus raises it again
        rest = torch.logsumexp(logits.float() / TEMPERATURE, -1)
        logits[..., STOP] = (TEMPERATURE * (rest + torch.log(chance / (1 - chance)))).to(logits.dtype)
        return output

    hook = model.register_forward_hook(stop_now, with_kwargs=True) if work.heavy else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


# the ways: each returns the tokens that it made


def by_backend(backend: Any, model: Any, request: Request, work: Work, seeds: Iterator[int]) -> int:
    """Calls a module of divwatch.sampling as a look does; each round samples anew, as `generate` does."""
    rows = [Row(i, k) for i in range(work.prompts) for k in range(work.samples)]
    asked = replace(request, seed=next(seeds))
    with untouched(model, model.device), torch.no_grad():
        return sum(map(len, backend.generate(model, asked, rows, lambda done: None)))


def by_generate(model: Any, request: Request, work: Work, at_a_time: int, prompts: int) -> int:
    """Calls `generate` with the given number of prompts and of samples per prompt."""
    how = GenerationConfig(**_drawing(work), num_return_sequences=at_a_time)
    made, calls = 0, 0
    for start in range(0, work.prompts, prompts):
        ids = torch.tensor(request.encoded[start : start + prompts], device=model.device)
        for _ in range(work.samples // at_a_time):
            if work.calls is not None and calls == work.calls:
                return made
            out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)
            made += _tokens(out[:, ids.shape[1] :])
            calls += 1
    return made


def _drawing(work: Work) -> dict[str, Any]:
    drawn = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P, "top_k": 0}
    return drawn | {"max_new_tokens": work.new, "pad_token_id": STOP, "eos_token_id": STOP}


def _tokens(new: Any) -> int:
    """Tokens up to and including the first stop token of each row; the rest is padding."""
    stopped = (new == STOP).int().cumsum(-1)
    return int(((stopped == 0) | ((stopped == 1) & (new == STOP))).sum())


def ways(model: Any, work: Work) -> dict[str, Callable[[], int]]:
    """All ways by name. `generate(num_return_sequences=K)` gets as many prompts per call as divwatch fits into memory."""
    request, seeds = request_of(model, work), count()
    room = in_process.tokens_that_fit(model, request) // (work.tokens + work.new + row_tokens(model))
    at_once = min(work.prompts, max(1, room // work.samples))
    return {
        OURS: partial(by_backend, in_process, model, request, work, seeds),
        f"`generate(num_return_sequences={work.samples})`": partial(
            by_generate, model, request, work, work.samples, at_once
        ),
        TWO: partial(by_generate, model, request, work, 2, 1),
        EIGHT: partial(by_generate, model, request, work, 1, min(8, work.prompts)),
        ONE: partial(by_generate, model, request, work, 1, 1),
        CONTINUOUS: partial(by_backend, continuous, model, request, work, seeds),
    }


# a workload


def compare(model: Any, work: Work, rounds: int, result: Result, title: str) -> dict[str, float]:
    """Adds one table and its ratios; returns tokens/s of each way. Rates are compared because lengths can differ slightly."""
    device = model.device.type
    made: dict[str, list[int]] = {}

    def counted(name: str, way: Callable[[], int]) -> None:
        made.setdefault(name, []).append(way())
        if device == "cuda":
            torch.cuda.synchronize()

    with lengths_of(model, work):
        for way in ways(model, replace(work, new=2, calls=1)).values():
            way()
        torch.manual_seed(0)
        tried = {name: partial(counted, name, way) for name, way in ways(model, work).items()}
        found, peaks = in_turn(tried, rounds, ONCE, device)
    rates = {name: [n / s for n, s in zip(made[name], found[name], strict=True)] for name in tried}
    mine = statistics.median(rates[OURS])
    rows = []
    for name, rate in rates.items():
        ratio = mine / statistics.median(rate)
        whole = work.calls is None or name in (OURS, CONTINUOUS)
        rows.append([
            name, spread(found[name]) if whole else f"rate of {work.calls} calls", spread(rate, 0),
            "1" if name == OURS else f"{ratio:.1f}x", f"{peaks[name]:.0f}",
        ])  # fmt: skip
        if name != OURS:
            result.ratios[f"sampling, {title}: ours / {name}"] = ratio
    result.add(f"{title[0].upper()}{title[1:]}: {work}.", "")
    result.add(*table(["way", "seconds per look", "tokens/s", "divwatch is faster by", "peak memory, MiB"], rows))
    return {name: statistics.median(rate) for name, rate in rates.items()}


def refilled_and_not(model: Any, work: Work, rounds: int, result: Result, title: str) -> None:
    """Adds a table of a look with and without refilling, by CPU time, in turn; both draw the same random numbers."""
    request, made, seconds = request_of(model, work), {}, {}
    rows = [Row(i, k) for i in range(work.prompts) for k in range(work.samples)]
    forwards: dict[str, list[int]] = {}
    peaks: dict[str, float] = {}

    def look(name: str, refill: bool) -> None:
        sizes: list[int] = []
        counting = model.register_forward_pre_hook(
            lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        started = process_time()
        with counting, untouched(model, model.device), torch.no_grad():
            made[name] = in_process.generate(model, request, rows, lambda done: None, refill)
        seconds.setdefault(name, []).append(process_time() - started)
        forwards[name] = sizes

    with lengths_of(model, work):
        for _ in range(rounds):
            for name, refill in ((NOT_REFILLED, False), (REFILLED, True)):
                peaks[name] = peak_mib(partial(look, name, refill), model.device.type)
    ratio = statistics.median(a / b for a, b in zip(seconds[NOT_REFILLED], seconds[REFILLED], strict=True))
    same = sum(a == b for a, b in zip(made[NOT_REFILLED], made[REFILLED], strict=True))
    lengths = sorted(map(len, made[REFILLED]))
    cells = [
        [
            name,
            spread(seconds[name]),
            len(forwards[name]),
            f"{statistics.mean(forwards[name]):.0f}",
            f"{peaks[name]:.0f}",
        ]
        for name in seconds
    ]
    result.ratios[f"sampling, {title}: refilled / not"] = ratio
    result.add(
        f"{title[0].upper()}{title[1:]}: {work}; median {statistics.median(lengths):.0f}, mean {statistics.mean(lengths):.0f}.",
        "",
    )
    result.add(*table(["way", "CPU seconds per look", "forwards", "rows per forward", "peak memory, MiB"], cells))
    result.add(
        f"Refilling takes {ratio:.2f} times less CPU time. {same} of {len(rows)} completions have the same tokens.", ""
    )


def measure() -> Result:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, result = small_model(), Result()
    for title, work in CPU_WORK.items():
        compare(model, work, 3, result, title)
    for title, work in REFILL_WORK.items():
        refilled_and_not(model, work, 3, result, title)
    result.add(
        "Seconds are what training would wait for. Slow ways ran once, the others three times in turn; median [least, most]. "
        "Memory is what a way adds to the process; for continuous batching it is mostly the preallocated cache. vLLM was not "
        "run: it needs a GPU."
    )
    return result


if __name__ == "__main__":
    sys.exit(publish(measure(), options(__doc__).json))
