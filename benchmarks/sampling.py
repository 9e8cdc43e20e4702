"""Sampling in process against the ways that callbacks and the paper's code sample, on the same model and prompts.

    python benchmarks/sampling.py                 # this CPU: a random model of 13 M parameters, minutes
    python benchmarks/sampling.py --device cuda   # one GPU: the Olmo 3 7B shape in bf16, also against the decode roofline

Random weights never stop early, so every way makes the same number of tokens. Each way is timed in turn, several
rounds, and the medians are compared; then what a look holds training up, scored inline and in the background; then a
step without a look; then the cost model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Olmo3Config, Olmo3ForCausalLM

from divwatch import cost
from divwatch.config import WatchConfig
from divwatch.records import Prompt
from divwatch.sampling import untouched
from divwatch.sampling.in_process import generate
from divwatch.sampling.plan import Row
from divwatch.sampling.request import make_request

STOP = 3  # an id that a random model hardly ever draws, and that ends nothing here


class Words:
    """The least tokenizer: prompts are given as ids already."""

    chat_template = None
    eos_token_id = STOP

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


def small_model() -> Any:
    config = Olmo3Config(
        hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=8,
        vocab_size=16384, max_position_embeddings=1024, sliding_window=512, eos_token_id=STOP, pad_token_id=STOP,
    )  # fmt: skip
    return Olmo3ForCausalLM(config).eval()


def large_model(device: str) -> Any:
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = Olmo3ForCausalLM(Olmo3Config(**cost.KNOWN["olmo3-7b"], eos_token_id=STOP, pad_token_id=STOP)).eval()
        torch.set_default_dtype(torch.float32)
    return model


def prompts_of(count: int, tokens: int, vocabulary: int) -> list[Prompt]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(10, vocabulary, (count, tokens), generator=generator).tolist()
    return [Prompt(str(i), "bench", " ".join(map(str, row))) for i, row in enumerate(rows)]


def ways(model: Any, prompts: list[Prompt], samples: int, new_tokens: int) -> dict[str, Callable[[], int]]:
    """Each way of sampling, as a function that returns the tokens it made."""
    device = model.device
    config = WatchConfig(samples=samples, max_new_tokens=new_tokens, form="plain")
    request = make_request(model, Words(), prompts, config, 0, device)
    asked = {
        "do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_new_tokens": new_tokens,
        "min_new_tokens": new_tokens, "eos_token_id": None, "pad_token_id": STOP,
    }  # fmt: skip

    def ours() -> int:
        rows = [Row(i, k) for i in range(len(prompts)) for k in range(samples)]
        with untouched(model, device), torch.no_grad():
            return sum(map(len, generate(model, request, rows, lambda done: None)))

    def plain(at_a_time: int, batch: int) -> Callable[[], int]:
        def run() -> int:
            made = 0
            for start in range(0, len(prompts), batch):
                ids = torch.tensor(request.encoded[start : start + batch], device=device)
                for _ in range(samples // at_a_time):
                    how = GenerationConfig(**asked, num_return_sequences=at_a_time)
                    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)
                    made += out[:, ids.shape[1] :].numel()
            return made

        return run

    return {
        "ours": ours,
        f"generate(num_return_sequences={samples})": plain(samples, len(prompts)),
        "one completion a call (callbacks)": plain(1, 1),
        "two completions a call (the paper's code)": plain(2, 1),
    }


def compare(model: Any, count: int, tokens: int, samples: int, new: int, rounds: int) -> dict[str, dict[str, float]]:
    prompts = prompts_of(count, tokens, model.config.vocab_size)
    found: dict[str, list[float]] = {}
    made: dict[str, int] = {}
    tried = ways(model, prompts, samples, new)
    for round_ in range(rounds):
        for name, way in tried.items():
            if round_ > 1 and name not in list(tried)[:2]:
                continue  # the slow ways are timed once after a warm-up
            torch.manual_seed(0)
            started = time.perf_counter()
            made[name] = way()
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            found.setdefault(name, []).append(time.perf_counter() - started)
    table = {}
    for name, seconds in found.items():
        kept = seconds[1:] or seconds
        median = statistics.median(kept)
        table[name] = {"seconds": median, "min": min(kept), "max": max(kept), "tokens_per_s": made[name] / median}
    return table


def blocked_seconds(folder: Path) -> dict[str, float]:
    """Median seconds that a look of the embedded world holds training up, by where it is scored."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from training import SETTINGS, sft_trainer

    import divwatch
    from divwatch.store import RunDirectory

    found = {}
    for name in ("inline", "background"):
        trainer = sft_trainer(folder / name, steps=60)
        settings = SETTINGS | {"prompts": 48, "samples": 16, "background": name == "background"}
        divwatch.watch(trainer, every=12, **settings)
        trainer.train()
        looks = RunDirectory.of(folder / name).looks()[1:]  # the first one warms up
        found[name] = statistics.median(look["seconds"]["total"] for look in looks)
        found[f"{name}: sampling"] = statistics.median(look["seconds"]["sample"] for look in looks)
    return found


def step_without_look(folder: Path) -> float:
    """Microseconds of on_step_end where no look is due."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from training import SETTINGS, sft_trainer

    import divwatch

    trainer = sft_trainer(folder / "idle", steps=10_000)
    callback = divwatch.watch(trainer, every=5_000, **SETTINGS | {"background": True})
    callback._every = 5_000
    trainer.state.max_steps, trainer.state.global_step = 10_000, 1
    times = 20_000
    started = time.perf_counter()
    for _ in range(times):
        callback.on_step_end(trainer.args, trainer.state, trainer.control)
    return 1e6 * (time.perf_counter() - started) / times


def roofline(model: Any, count: int, tokens: int, samples: int, new: int, bandwidth: float) -> float:
    """Tokens/s if every decode step did nothing but read all weights and all keys and values once."""
    from divwatch.sampling.memory import token_bytes

    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    rows = count * samples
    step = (weights + rows * (tokens + new / 2) * token_bytes(model)) / bandwidth
    return rows / step


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--bandwidth", type=float, default=3.35e12, help="peak bytes/s of the GPU's memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    on_cpu = options.device == "cpu"
    model = small_model() if on_cpu else large_model(options.device)
    count, tokens, samples, new = (4, 300, 16, 64) if on_cpu else (64, 300, 16, 256)
    table = compare(model, count, tokens, samples, new, options.rounds)
    result: dict[str, Any] = {"sampling": table}
    ours = table["ours"]["seconds"]
    print(f"{count} prompts of {tokens} tokens, K = {samples}, {new} new tokens, {torch.get_num_threads()} threads")
    for name, row in table.items():
        print(
            f"{name:45s} {row['seconds']:8.2f} s [{row['min']:.2f}, {row['max']:.2f}]  {row['tokens_per_s']:9.0f} tokens/s"
            f"  {row['seconds'] / ours:5.2f} x ours"
        )
    if not on_cpu:
        limit = roofline(model, count, tokens, samples, new, options.bandwidth)
        print(f"decode roofline {limit:.0f} tokens/s; ours reaches {table['ours']['tokens_per_s'] / limit:.0%}")
        result["roofline"] = limit
    else:
        machine = cost.this_machine()
        shape = cost.Shape(
            sum(p.numel() for p in model.parameters()), 6, 2 * 6 * 256 * 4, model.config.vocab_size, weight_bytes=4
        )
        predicted = cost.cost_of(shape, machine, 1, cost.Look(count, samples, tokens, new)).seconds
        print(f"cost model: {predicted:.2f} s predicted, {ours:.2f} s measured ({predicted / ours - 1:+.0%})")
        result["predicted"] = predicted
        with tempfile.TemporaryDirectory() as folder:
            result["blocked"] = blocked_seconds(Path(folder))
            result["step_microseconds"] = step_without_look(Path(folder))
        for name, seconds in result["blocked"].items():
            print(f"a look holds training up, {name:22s} {seconds:6.2f} s")
        print(f"a step without a look {result['step_microseconds']:.1f} us")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
