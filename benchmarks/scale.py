"""How the cost of a look grows with prompts, samples, tokens and processes, and how well `divwatch plan` predicts it.

    python benchmarks/scale.py             minutes, two free cores

One thread a process. The cost model is calibrated on this CPU with models of other shapes than those whose looks it then
predicts. Its predictions for GPUs are not checked against measurements.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import torch
from measuring import Result, in_turn, options, publish, spread, table
from sampling import Words, Work, by_backend, request_of, small_model

from divwatch.plan import cost
from divwatch.plan.device import DEVICES, Device
from divwatch.plan.here import this_machine
from divwatch.plan.shape import shape_of, shape_of_model
from divwatch.sampling import in_process

BASE = Work(8, 100, 8, 32)
WIDER = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 10}
NARROWER = {
    "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 16, "vocab_size": 2048,
    "num_attention_heads": 4, "num_key_value_heads": 4,
}  # fmt: skip
DOUBLED = {
    "as it is": BASE,
    "prompts doubled": replace(BASE, prompts=16),
    "samples doubled": replace(BASE, samples=16),
    "prompt tokens doubled": replace(BASE, tokens=200),
    "new tokens doubled": replace(BASE, new=64),
}
# Held against the cost model beside those of BASE: wider, deeper and narrower models, few rows and many.
ELSEWHERE: dict[str, tuple[dict[str, int], Work]] = {
    "wider, few rows": (WIDER, Work(4, 100, 8, 24)),
    "wider, many rows": (WIDER, Work(8, 50, 16, 16)),
    "narrower and deeper, long rows": (NARROWER, Work(8, 200, 24, 32)),
    "8 rows": ({}, Work(2, 100, 4, 64)),
}
SHARED = Work(16, 100, 8, 32)  # what 1, 2 and 4 processes share
ROUNDS = 3
NOISE = 1.15  # a factor that timings of one run may be off by
WITHIN = 0.25  # of each measurement, the cost model
SPEEDUP = 1.7  # of two ranks on two free cores


def operations(model: Any, work: Work) -> float:
    """Twice the multiply-adds: of the weights for each token read or generated, of attention for each token it attends to."""
    shape, config = shape_of_model(model), model.config
    rows = work.prompts * work.samples
    made = rows * (work.new - 1)  # the first token comes with the prompt
    read = work.prompts * work.tokens
    seen = work.prompts * work.tokens**2 / 2 + made * (work.tokens + work.new / 2)
    products = (shape.multiplied - shape.head) * (read + made) + shape.head * (work.prompts + made)
    return 2 * products + 4 * config.num_hidden_layers * config.hidden_size * seen


def growth(model: Any, result: Result) -> dict[str, list[float]]:
    """Seconds of each look of DOUBLED; adds a table of their growth."""
    found = timed({name: (model, work) for name, work in DOUBLED.items()})
    base, least = operations(model, BASE), min(found["as it is"])
    grew = {name: min(found[name]) / least for name in DOUBLED}
    worked = {name: operations(model, work) / base for name, work in DOUBLED.items()}
    rows = [[name, spread(found[name]), f"{grew[name]:.2f}x", f"{worked[name]:.2f}x"] for name in DOUBLED]
    result.add("Growth, from the fastest run of each; work is counted in operations, shapes are below:", "")
    result.add(*table(["look", "seconds, median [least, most]", "seconds grew", "work grew"], rows))
    held = all(grew[name] <= NOISE * worked[name] for name in DOUBLED)
    result.bound(f"seconds grow no faster than the work ({NOISE - 1:.0%} allowed for noise)", held)
    result.ratios |= {
        f"scale, {name}: work / seconds": worked[name] / grew[name] for name in DOUBLED if name != "as it is"
    }
    return found


def timed(looks: dict[str, tuple[Any, Work]]) -> dict[str, list[float]]:
    seeds = count()

    def way(model: Any, work: Work) -> Callable[[], int]:
        return partial(by_backend, in_process, model, request_of(model, work), work, seeds)

    ways = {name: way(*look) for name, look in looks.items()}
    next(iter(ways.values()))()
    return in_turn(ways, ROUNDS)[0]


def model_of_cost(model: Any, found: dict[str, list[float]], probe: Device, result: Result) -> None:
    """Predictions for each measured look, and for looks at models of other shapes."""
    looks = {name: (model, work) for name, work in DOUBLED.items()}
    others = {name: (small_model(**shape), work) for name, (shape, work) in ELSEWHERE.items()}
    measured = {name: statistics.median(values) for name, values in (found | timed(others)).items()}
    again = this_machine()  # it is the same machine a minute later, not always as fast
    rows, worst = [], 0.0
    for name, (asked, work) in (looks | others).items():
        shape, look = shape_of_model(asked), cost.Look(work.prompts, work.samples, work.tokens, work.new)
        predicted = statistics.mean(cost.cost_of(shape, machine, 1, look).seconds for machine in (probe, again))
        off = predicted / measured[name] - 1
        worst = max(worst, abs(off))
        rows.append(
            [
                name,
                str(work),
                f"{shape.parameters / 1e6:.0f} M",
                f"{measured[name]:.2f}",
                f"{predicted:.2f}",
                f"{off:+.0%}",
            ]
        )
    result.add("", "The cost model of `divwatch plan` with `--device here`, measured before and after:", "")
    result.add(*table(["look", "shape", "parameters", "measured, s", "predicted, s", "off by"], rows))
    result.bound(f"the cost model within {WITHIN:.0%} of each measurement (at worst {worst:.0%})", worst <= WITHIN)


# processes


def worker() -> None:
    """One process of a launch; rank 0 prints the seconds of the shared look."""
    from accelerate import Accelerator

    from divwatch.config import WatchConfig
    from divwatch.sampling import sample
    from divwatch.sampling.ranks import Ranks
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
    spent, _ = in_turn({f"{ranks.world} processes": look}, ROUNDS)
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
    """1, 2, 1, 2, 4 processes, so that one and two are timed in turn."""
    found: dict[int, list[float]] = {}
    for processes in (1, 2, 1, 2, 4):
        found.setdefault(processes, []).extend(launch(processes))
    one = statistics.median(found[1])
    rows = [[n, spread(values), f"{one / statistics.median(values):.2f}x"] for n, values in found.items()]
    cores = len(os.sched_getaffinity(0))
    result.add(
        "", f"One look ({SHARED}) shared by processes under DDP with gloo, one thread each, on {cores} cores:", ""
    )
    result.add(*table(["processes", "seconds, median [least, most]", "faster than one by"], rows))
    gain = one / statistics.median(found[2])
    result.ratios["scale: one process / two"] = gain
    if cores >= 2:
        result.bound(f"two ranks at least {SPEEDUP} times as fast as one", gain >= SPEEDUP)


# on paper

EVERY = 100  # optimizer steps between looks


def on_paper(result: Result) -> None:
    rows = []
    look = cost.Look()
    for name in ("olmo3-7b", "olmo3-32b"):
        shape = shape_of(name)
        for devices in (8, 64, 512):
            predicted = cost.cost_of(shape, DEVICES["h100"], devices, look, "zero3", 1_048_576)
            sent = predicted.gather * DEVICES["h100"].between(devices) / 1e9
            texts = look.prompts * look.samples * look.new_tokens * 5 * (devices - 1) / devices / 1e6
            gathered = f"{sent:.1f} GB, {predicted.gather:.2f} s" if predicted.gathered else "at every token"
            share = predicted.seconds / (predicted.seconds + EVERY * predicted.step_seconds)
            rows.append([
                name, devices, f"{predicted.seconds:.0f}", f"{predicted.decode:.0f}", gathered, f"{texts:.1f} MB",
                f"{predicted.step_seconds:.1f}", f"{share:.1%}",
            ])  # fmt: skip
    head = ["model", "H100s", "a look, s", "of it decoding", "weights gathered per GPU", "texts to rank 0"]
    head += ["a step of 1,048,576 tokens, s", f"share, a look every {EVERY} steps"]
    result.add(
        "",
        f"Predicted, not measured: ZeRO-3, {look.prompts} prompts x {look.samples}, {look.prompt_tokens} tokens in, "
        f"{look.new_tokens} out. All GPUs share a look, so it takes as long as its fullest rank. The weights are sent once per "
        "look (a ring: each GPU receives what it lacks), or at every token where they do not fit beside the training, plus "
        "five bytes per token to rank 0.",
        "",
        *table(head, rows),
    )


def measure() -> Result:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    result, model = Result(), small_model()
    probe = this_machine()
    found = growth(model, result)
    model_of_cost(model, found, probe, result)
    processes(result)
    on_paper(result)
    return result


if __name__ == "__main__":
    if "--worker" in sys.argv:
        worker()
    else:
        sys.exit(publish(measure(), options(__doc__).json))
