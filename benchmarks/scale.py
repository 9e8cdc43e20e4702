"""How the cost of a look grows: with prompts, samples and tokens, over 1, 2 and 4 processes, and what `divwatch plan` says.

    python benchmarks/scale.py             minutes, two free cores

One thread a process throughout. The cost model gets the figures of this CPU, measured beside the looks that it is held
against; then it is asked, on paper, about GPUs that were not at hand.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Any

import torch
from measuring import Result, in_turn, options, publish, spread, table
from sampling import STOP, Words, Work, ours, request_of, small_model

from divwatch import cost
from divwatch.sampling.memory import token_bytes

BASE = Work(8, 100, 8, 32)
DOUBLED = {
    "as it is": BASE,
    "prompts doubled": replace(BASE, prompts=16),
    "samples doubled": replace(BASE, samples=16),
    "prompt tokens doubled": replace(BASE, tokens=200),
    "new tokens doubled": replace(BASE, new=64),
}
SHARED = Work(16, 100, 8, 32)  # what 1, 2 and 4 processes share
ROUNDS = 5
NOISE = 1.15  # a factor that timings of one run may be off by
WITHIN = 0.25  # of each measurement, the cost model
SPEEDUP = 1.7  # of two ranks on two free cores


def operations(model: Any, work: Work) -> float:
    """Multiply-adds, twice: of the weights for every token read or made, of attention for every token that each sees."""
    config = model.config
    weights = (
        sum(p.numel() for p in model.parameters()) - config.vocab_size * config.hidden_size
    )  # a lookup, no product
    head = config.vocab_size * config.hidden_size
    rows = work.prompts * work.samples
    made = rows * (work.new - 1)  # the first token comes with the prompt
    read = work.prompts * work.tokens
    seen = work.prompts * work.tokens**2 / 2 + made * (work.tokens + work.new / 2)
    products = 2 * ((weights - head) * (read + made) + head * (work.prompts + made))
    return products + 4 * config.num_hidden_layers * config.hidden_size * seen


def growth(model: Any, result: Result) -> dict[str, list[float]]:
    """Seconds of each look of DOUBLED, and a table of how they grew."""
    requests = {name: request_of(model, work) for name, work in DOUBLED.items()}
    ours(model, requests["as it is"], BASE)
    ways = {name: lambda name=name: ours(model, requests[name], DOUBLED[name]) for name in DOUBLED}
    found = in_turn(ways, ROUNDS)
    base, least = operations(model, BASE), min(found["as it is"])
    rows = []
    for name, work in DOUBLED.items():
        grew, worked = min(found[name]) / least, operations(model, work) / base
        result.bound(f"{name}: {grew:.2f}x the seconds for {worked:.2f}x the work", grew <= NOISE * worked)
        rows.append([name, str(work), spread(found[name]), f"{grew:.2f}x", f"{worked:.2f}x"])
        if work is not BASE:
            result.ratios[f"scale, {name}: work / seconds"] = worked / grew
    result.add("Growth, the fastest of each, operations counted:", "")
    result.add(*table(["look", "shape", "seconds, median [least, most]", "seconds grew", "work grew"], rows))
    return found


def model_of_cost(model: Any, found: dict[str, list[float]], machines: list[cost.Device], result: Result) -> None:
    """The prediction for each look that was measured; of the probes before and after, the mean."""
    config = model.config
    parameters = sum(p.numel() for p in model.parameters())
    shape = cost.Shape(parameters, config.num_hidden_layers, token_bytes(model), config.vocab_size, weight_bytes=4)
    rows = []
    for name, work in DOUBLED.items():
        look = cost.Look(work.prompts, work.samples, work.tokens, work.new)
        told = statistics.mean(cost.cost_of(shape, machine, 1, look).seconds for machine in machines)
        measured = statistics.median(found[name])
        off = told / measured - 1
        result.bound(f"cost model on {name!r} within 25 % (off by {off:+.0%})", abs(off) <= WITHIN)
        rows.append([name, f"{measured:.2f}", f"{told:.2f}", f"{off:+.0%}"])
    result.add("The cost model of `divwatch plan`, with `--device here`:", "")
    result.add(*table(["look", "measured, s", "predicted, s", "off by"], rows))


# processes


def worker() -> None:
    """One of the processes of a launch: seconds of the look that they share, from rank 0."""
    from accelerate import Accelerator

    from divwatch.config import WatchConfig
    from divwatch.ranks import Ranks
    from divwatch.sampling import sample
    from divwatch.sampling.weights import Source

    torch.manual_seed(0)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare_model(small_model())
    source, ranks = Source(model, accelerator), Ranks.of(accelerator)
    prompts = list(request_of(source.unwrapped, SHARED).prompts)
    config = WatchConfig(samples=SHARED.samples, max_new_tokens=SHARED.new, form="plain")

    def look() -> None:
        sample(source, Words(), prompts, config, 0, ranks=ranks)

    look()
    accelerator.wait_for_everyone()
    spent = in_turn({f"{ranks.world} processes": look}, ROUNDS)
    if ranks.main:
        print("spent " + json.dumps(next(iter(spent.values()))))
    accelerator.end_training()


def launch(processes: int) -> list[float]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*command, __file__, "--worker"], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{processes} processes: {done.stderr[-3000:]}")
    said = next(line for line in done.stdout.splitlines() if line.startswith("spent "))
    return json.loads(said.removeprefix("spent "))


def processes(result: Result) -> None:
    found = {count: launch(count) for count in (1, 2, 4)}
    one = min(found[1])
    rows = [[n, spread(values), f"{one / min(values):.2f}x"] for n, values in found.items()]
    result.add(f"One look ({SHARED}) shared by processes under DDP with gloo, one thread each:", "")
    result.add(*table(["processes", "seconds, median [least, most]", "faster than one by"], rows))
    cores = len(os.sched_getaffinity(0))
    gain = one / min(found[2])
    result.ratios["scale: one process / two"] = gain
    if cores >= 2:
        result.add("- " + result.bound(f"two ranks at least {SPEEDUP} times as fast as one", gain >= SPEEDUP), "")
    result.add(f"{cores} cores: four processes have no more of them than two.", "")


# on paper


def on_paper(result: Result) -> None:
    rows = []
    look = cost.Look()
    for name in ("olmo3-7b", "olmo3-32b"):
        shape = cost.shape_of(name)
        whole = shape.parameters * shape.weight_bytes
        for devices in (8, 64, 512):
            told = cost.cost_of(shape, cost.DEVICES["h100"], devices, look, "zero3", 1_048_576)
            sent = whole * (devices - 1) / devices / 1e9 if told.gathered else 0.0
            texts = look.prompts * look.samples * look.new_tokens * 5 * (devices - 1) / devices / 1e6
            rows.append([
                name, devices, f"{told.seconds:.0f}", f"{told.decode:.0f}", f"{sent:.1f} GB, {told.gather:.2f} s",
                f"{texts:.1f} MB", f"{told.step_seconds:.1f}", f"{told.overhead:.1%}",
            ])  # fmt: skip
    head = ["model", "H100s", "a look, s", "of it decoding", "weights gathered a GPU", "texts to rank 0"]
    head += ["a step of 1,048,576 tokens, s", "share, a look every 100 steps"]
    result.add(
        f"On paper, nothing of it measured: ZeRO-3, {look.prompts} prompts x {look.samples}, {look.prompt_tokens} tokens in, "
        f"{look.new_tokens} out. A look is shared by all GPUs, so it takes as long as its fullest rank; what is sent is the "
        "weights once a look (a ring, each GPU receives what it lacks) and five bytes a token to rank 0.",
        "",
        *table(head, rows),
    )


def measure() -> Result:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    result, model = Result(), small_model()
    assert model.config.eos_token_id == STOP
    before = cost.this_machine()
    found = growth(model, result)
    model_of_cost(model, found, [before, cost.this_machine()], result)
    processes(result)
    on_paper(result)
    return result


if __name__ == "__main__":
    if "--worker" in sys.argv:
        worker()
    else:
        sys.exit(publish(measure(), options(__doc__).json))
