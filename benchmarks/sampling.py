"""Sampling a look in process, beside the other ways that a model in training can be sampled, on the same prompts.

    python benchmarks/sampling.py                   this CPU, a random Olmo 3 of 13 M parameters, one thread, minutes

benchmarks/gpu.py asks the same of a GPU. The ways: divwatch's default backend; `generate(num_return_sequences=K)`; one
completion a call, as TRL's callbacks ask; two a call, as the paper's code does; transformers' continuous batching; vLLM
where it is installed. Each way draws with temperature 0.6 and top-p 0.95 and makes the whole look. Three workloads:
long prompts and short ones, where every completion has its full length, and completions whose lengths have a heavy
tail (half are done after 24 tokens, one in nine runs to its end).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from measuring import Result, in_turn, options, peak_mib, publish, spread, table
from transformers import ContinuousBatchingConfig, GenerationConfig, Olmo3Config, Olmo3ForCausalLM

from divwatch.config import WatchConfig
from divwatch.records import Prompt
from divwatch.sampling import untouched
from divwatch.sampling.in_process import generate
from divwatch.sampling.plan import Row
from divwatch.sampling.request import Request, make_request

STOP = 3  # an id that a random model hardly ever draws by itself
TEMPERATURE, TOP_P = 0.6, 0.95
HALF_DONE = 24  # of the heavy tail: tokens after which half of the completions have stopped
OURS = "divwatch"


@dataclass(frozen=True)
class Work:
    """A look: prompts of so many tokens, K samples each, up to `new` tokens. calls: of the ways that call `generate`
    again and again, so many calls are timed and the rate is theirs; None: all."""

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
    "long prompts": Work(4, 300, 16, 48),
    "short prompts": Work(8, 30, 16, 48),
    "heavy-tailed lengths": Work(4, 100, 16, 192, heavy=True),
}


class Words:
    """The least tokenizer: prompts are given as ids already."""

    chat_template = None
    eos_token_id = STOP

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


def small_model(**changes: Any) -> Any:
    shape = {
        "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8,
        "num_key_value_heads": 8, "vocab_size": 16384, "max_position_embeddings": 1024, "sliding_window": 512,
    }  # fmt: skip
    return Olmo3ForCausalLM(Olmo3Config(**shape | changes, eos_token_id=STOP, pad_token_id=STOP)).eval()


def request_of(model: Any, work: Work) -> Request:
    """Random prompts, the same for every way."""
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(10, model.config.vocab_size, (work.prompts, work.tokens), generator=draw).tolist()
    prompts = [Prompt(str(i), "bench", " ".join(map(str, row))) for i, row in enumerate(rows)]
    config = WatchConfig(samples=work.samples, max_new_tokens=work.new, form="plain")
    return make_request(model, Words(), prompts, config, 0, model.device)


@contextmanager
def lengths_of(model: Any, work: Work) -> Iterator[None]:
    """Inside, completions of heavy-tailed work stop with probability 1 / (HALF_DONE + t) at token t.

    That is Lomax's law: it is planted in the logits of the model itself, so that no way can tell.
    """

    def stop_now(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        logits = output.logits
        at = kwargs["position_ids"][..., -logits.shape[1] :] - (work.tokens - 1)  # new tokens so far
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


def ours(model: Any, request: Request, work: Work) -> int:
    rows = [Row(i, k) for i in range(work.prompts) for k in range(work.samples)]
    with untouched(model, model.device), torch.no_grad():
        return sum(map(len, generate(model, request, rows, lambda done: None)))


def by_generate(model: Any, request: Request, work: Work, at_a_time: int, prompts: int) -> int:
    """`generate` with so many prompts and so many samples of each a call."""
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


def continuous(model: Any, request: Request, work: Work) -> int:
    """Its default memory is most of what the machine has; the pages that this work can need are enough."""
    attention = model.config._attn_implementation
    rows = work.prompts * work.samples
    pages = rows * -(-(work.tokens + work.new) // 256)
    settings = {} if model.device.type == "cuda" else {"num_blocks": 2 * pages, "max_batch_tokens": 4096}
    try:
        with untouched(model, model.device), torch.no_grad():
            out = model.generate_batch(
                [ids for ids in request.encoded for _ in range(work.samples)],
                generation_config=GenerationConfig(**_drawing(work)),
                continuous_batching_config=ContinuousBatchingConfig(seed=0, **settings),
                progress_bar=False,
            )
    finally:
        model.set_attn_implementation(attention)
    if len(out) != rows:
        raise RuntimeError(f"continuous batching returned {len(out)} of {rows} completions")
    return sum(len(o.generated_tokens) for o in out.values())


def vllm(model: Any, request: Request, work: Work) -> Callable[[], int]:
    """An engine of the same shape with random weights of its own, started beforehand, in the share that a look gets."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    from divwatch.sampling.vllm import GPU_SHARE

    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        engine = LLM(
            folder, load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", max_model_len=work.tokens + work.new,
            gpu_memory_utilization=GPU_SHARE,
        )  # fmt: skip
    how = SamplingParams(
        n=work.samples, temperature=TEMPERATURE, top_p=TOP_P, max_tokens=work.new, ignore_eos=True, detokenize=False
    )

    def run() -> int:
        asked = [TokensPrompt(prompt_token_ids=ids) for ids in request.encoded]
        return sum(len(o.token_ids) for found in engine.generate(asked, how, use_tqdm=False) for o in found.outputs)

    return run


def _drawing(work: Work) -> dict[str, Any]:
    ends: dict[str, Any] = {"eos_token_id": STOP} if work.heavy else {"eos_token_id": None, "min_new_tokens": work.new}
    drawn = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P, "top_k": 0}
    return drawn | {"max_new_tokens": work.new, "pad_token_id": STOP} | ends


def _tokens(new: Any) -> int:
    """Tokens up to and with the first stop token of each row: what follows is padding."""
    stopped = (new == STOP).int().cumsum(-1)
    return int(((stopped == 0) | ((stopped == 1) & (new == STOP))).sum())


def ways(model: Any, work: Work, batch: int | None = None) -> dict[str, Callable[[], int]]:
    """By name. batch: prompts that `generate(num_return_sequences=K)` takes a call, where all do not fit; None: all."""
    request = request_of(model, work)
    tried: dict[str, Callable[[], int]] = {
        OURS: partial(ours, model, request, work),
        f"`generate(num_return_sequences={work.samples})`": partial(
            by_generate, model, request, work, work.samples, batch or work.prompts
        ),
        "two completions a call (the paper's code)": partial(by_generate, model, request, work, 2, 1),
        "one completion a call (callbacks)": partial(by_generate, model, request, work, 1, 1),
        "continuous batching (transformers)": partial(continuous, model, request, work),
    }
    if find_spec("vllm") and model.device.type == "cuda" and not work.heavy:  # its logits are out of reach
        tried["vLLM"] = vllm(model, request, work)
    return tried


# a workload


def compare(
    model: Any, work: Work, rounds: int, result: Result, title: str, batch: int | None = None
) -> dict[str, float]:
    """One table and its ratios; tokens/s of each way. Rates are compared: ways may end a little apart."""
    device = model.device.type
    tried = ways(model, work, batch)
    slow = [name for name in tried if "a call" in name or "continuous" in name]
    made: dict[str, list[int]] = {name: [] for name in tried}
    peaks: dict[str, float] = {}

    def counted(name: str, way: Callable[[], int]) -> None:
        peak = peak_mib(lambda: made[name].append(way()), device)
        peaks.setdefault(name, peak)
        if device == "cuda":
            torch.cuda.synchronize()

    with lengths_of(model, work):
        for way in ways(model, replace(work, prompts=1, samples=2, new=2)).values():
            way()
        torch.manual_seed(0)
        found = in_turn({name: partial(counted, name, way) for name, way in tried.items()}, rounds, slow)
    rates = {name: [n / s for n, s in zip(made[name], found[name], strict=True)] for name in tried}
    mine = statistics.median(rates[OURS])
    rows = []
    for name, rate in rates.items():
        ratio = mine / statistics.median(rate)
        whole = work.calls is None or name == OURS or "continuous" in name
        rows.append([
            name, spread(found[name]) if whole else f"rate of {work.calls} calls", spread(rate, 0),
            "1" if name == OURS else f"{ratio:.1f}x", f"{peaks[name]:.0f}",
        ])  # fmt: skip
        if name != OURS:
            result.ratios[f"sampling, {title}: ours / {name}"] = ratio
    if find_spec("vllm") is None:
        rows.append(["vLLM", "not run: not installed", "-", "-", "-"])
    result.add(f"{title[0].upper()}{title[1:]}: {work}.", "")
    result.add(*table(["way", "seconds a look", "tokens/s", "ours is faster by", "peak memory, MiB"], rows))
    return {name: statistics.median(rate) for name, rate in rates.items()}


def measure() -> Result:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, result = small_model(), Result()
    for title, work in CPU_WORK.items():
        compare(model, work, 3, result, title)
    result.add(
        "Seconds are what training would wait for, since a look is sampled where it trains. Slow ways ran once, the others "
        "three times in turn; median [least, most]. Memory is what a way adds to the process."
    )
    return result


if __name__ == "__main__":
    sys.exit(publish(measure(), options(__doc__).json))
