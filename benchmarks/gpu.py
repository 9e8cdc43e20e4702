"""What only a GPU shows: are looks right in bf16, how fast are they at the Olmo 3 7B shape, what do they cost a training.

    python benchmarks/gpu.py --out results        one GPU of 80 GB or more, under 8 minutes, nothing is downloaded
    python benchmarks/gpu.py --only lora,full --out results      chosen parts, a second try
    python benchmarks/gpu.py --rehearse --out /tmp/rehearsal     the same code on a CPU at toy size
    python benchmarks/gpu.py --write docs/benchmarks.md --out first second       the page, from what was written

Each part is a process of its own with a time limit of its own, so that none finds memory that another has left and one
that fails takes nothing along. The most important come first. Results are appended to DIR/gpu.jsonl as they are found, a
JSON object a line, and what the parts print to DIR/gpu.log. The models have random weights in bf16, made on the device.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import machine, place, table, versions

LIMIT = 460.0  # seconds of all parts
# By name: seconds that a part may take, what it is about.
PARTS = {
    "correct": (140, "Correct"),
    "decode": (150, "Decoding at the Olmo 3 7B shape"),
    "lora": (90, "Training with LoRA"),
    "full": (75, "Training all weights"),
    "scoring": (65, "Training beside the scoring process"),
    "continuous": (75, "Continuous batching at the Olmo 3 7B shape"),  # did not end within 60 s on an H200
}
# Facts that are constants of the cost model, with a factor and unit for the page.
CONSTANTS = {
    "flops": (1e-12, "TFLOP/s in a prefill"),
    "training": (1e-12, "TFLOP/s in a training step"),
    "bandwidth": (1e-12, "TB/s, reading weights"),
    "attention": (1e-12, "TB/s, attention reading keys and values"),
    "layer_seconds_eager": (1e6, "us of a layer's small kernels and their launching, eager"),
    "layer_seconds_captured": (1e6, "us of a layer's small kernels, captured"),
    "logit_seconds": (1e12, "ps a row and token of the vocabulary"),
    "small_seconds": (1e12, "ps a row and byte of keys of a token"),
}


def part_of(name: str) -> Callable[[Any, Any], None]:
    if name == "correct":
        from gpu_correct import correct

        return correct
    if name in ("decode", "continuous"):
        import gpu_decode

        return gpu_decode.decode if name == "decode" else gpu_decode.continuous_batching
    import gpu_training

    return {
        "lora": lambda here, report: gpu_training.training(here, report, True),
        "full": lambda here, report: gpu_training.training(here, report, False),
        "scoring": gpu_training.scoring,
    }[name]


def run(name: str, out: Path, rehearse: bool, seconds: float) -> None:
    """One part in a process of its own; how it ended is written down."""
    from gpu_setting import Report

    report = Report(out / "gpu.jsonl", name)
    report.event("begin")
    print(f"== {name}, at most {seconds:.0f} s", flush=True)
    command = [sys.executable, __file__, "--part", name, "--out", str(out), *(["--rehearse"] if rehearse else [])]
    began, env = time.monotonic(), os.environ | {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    if name == "correct":  # read when the first handle is made; without it cuBLAS may add up in another order
        env["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    with (out / "gpu.log").open("a") as log:
        log.write(f"\n== {name}\n")
        log.flush()
        try:
            status = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log, timeout=seconds, env=env).returncode
            ended = "done" if status == 0 else f"failed with status {status}"
        except subprocess.TimeoutExpired:
            ended = f"not done within {seconds:.0f} s"
    if ended != "done":
        report.event("missed", text=f"{name}: {ended}")
    report.event("end", text=ended, seconds=round(time.monotonic() - began, 1))


def run_all(names: Sequence[str], out: Path, rehearse: bool, limit: float) -> int:
    from gpu_setting import Report, read_events, real

    out.mkdir(parents=True, exist_ok=True)
    if not rehearse:
        real()  # says in a line what is missing, before any part begins
    import torch

    what = "rehearsal on a CPU, figures of no meaning" if rehearse else torch.cuda.get_device_name()
    head = Report(out / "gpu.jsonl", "machine")
    head.event("begin")
    head.line(f"{what}; {machine()}; {versions()}; {time.strftime('%Y-%m-%d')}.")
    began = time.monotonic()
    for name in names:
        seconds = min(PARTS[name][0] * (5 if rehearse else 1), limit - (time.monotonic() - began))
        if seconds > 20:
            run(name, out, rehearse, seconds)
        else:
            Report(out / "gpu.jsonl", name).event("missed", text=f"{name}: not begun, no time was left")
    events = read_events([out / "gpu.jsonl"])
    print("\n".join(page(events)))
    missed = [event["text"] for event in events if event["kind"] == "missed"]
    for text in missed:
        print(f"missed: {text}", file=sys.stderr)
    return int(bool(missed))


def page(events: Sequence[dict[str, Any]]) -> list[str]:
    """The section of docs/benchmarks.md."""
    facts = {event["name"]: event["value"] for event in events if event["kind"] == "fact"}
    lines = [event["text"] for event in events if event["part"] == "machine" and event["kind"] == "line"]
    for name, (_, title) in PARTS.items():
        mine = [event for event in events if event["part"] == name]
        if not mine:
            continue
        end = next((event for event in mine if event["kind"] == "end"), {"text": "cut off"})
        took = f", {end['seconds']:.0f} s" if "seconds" in end else ""
        lines += ["", f"### {title}", "", *(event["text"] for event in mine if event["kind"] == "line")]
        lines += ["", f"`--only {name}`: {end['text']}{took}."]
    rows = [
        [name, f"{facts[name] * factor:,.3g} {unit}"] for name, (factor, unit) in CONSTANTS.items() if name in facts
    ]
    return (
        [*lines, "", "### Constants of the cost model", "", *table(["constant", "measured"], rows)] if rows else lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, nargs="+", default=[Path("gpu-results")], help="where results are written")
    parser.add_argument("--only", help="parts, with commas")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of all parts")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at toy size")
    parser.add_argument("--write", type=Path, help="the page whose section `gpu` is replaced by what --out holds")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # in this process
    chosen = parser.parse_args()
    names = chosen.only.split(",") if chosen.only else list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"unknown part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    from gpu_setting import Report, read_events, real, rehearsal

    if chosen.write:
        place(chosen.write, "gpu", page(read_events([out / "gpu.jsonl" for out in chosen.out])))
        return 0
    out = chosen.out[0]
    if chosen.part:
        part_of(chosen.part)(rehearsal() if chosen.rehearse else real(), Report(out / "gpu.jsonl", chosen.part))
        return 0
    return run_all(names, out, chosen.rehearse, chosen.limit * (5 if chosen.rehearse else 1))


if __name__ == "__main__":
    sys.exit(main())
