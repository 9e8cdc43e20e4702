"""`divwatch plan`: what looks will cost, before the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from divwatch.cli.options import AsJson
from divwatch.errors import DivwatchError

if TYPE_CHECKING:
    from divwatch.plan.cost import Cost
    from divwatch.plan.of_config import Planned


def plan(
    config: Annotated[
        Optional[Path], typer.Argument(help="A recipe's config: the options left out below are taken from it.")
    ] = None,
    model: Annotated[
        Optional[str], typer.Option(help="olmo3-7b, olmo3-32b, a directory, or a hub name: its config is enough.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Devices of the run.")] = 8,
    device: Annotated[str, typer.Option(help="a100, h100, h200, b200, or here: this CPU, measured.")] = "h100",
    strategy: Annotated[str, typer.Option(help="ddp, zero1, zero2, zero3 or fsdp2.")] = "zero3",
    every: Annotated[Optional[int], typer.Option(min=1, help="Optimizer steps between looks. Default: 100.")] = None,
    prompts: Annotated[Optional[int], typer.Option(min=1, help="Prompts of a look. Default: 64.")] = None,
    samples: Annotated[Optional[int], typer.Option(min=2, help="Completions a prompt. Default: 16.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 300,
    new_tokens: Annotated[Optional[int], typer.Option(min=1, help="Tokens of a completion. Default: 256.")] = None,
    mean_tokens: Annotated[
        Optional[float], typer.Option(help="Mean tokens of a completion. Default: all have --new-tokens.")
    ] = None,
    step_tokens: Annotated[
        Optional[int], typer.Option(min=1, help="Tokens of an optimizer step, all devices. Default: 1,048,576.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What looks will cost: seconds, memory and share of the training time, before the run (docs/cost.md).

    Example: divwatch plan configs/olmo3/instruct/sft.yaml --gpus 32 --every 100
    """
    from divwatch.plan.cost import DEVICES, Look, cost_of, shape_of, this_machine
    from divwatch.plan.of_config import planned

    if device != "here" and device not in DEVICES:
        raise DivwatchError(f"unknown device {device!r}: choose from {', '.join(DEVICES)}, here")
    options = {
        "model": model, "every": every, "prompts": prompts, "samples": samples, "new_tokens": new_tokens,
        "step_tokens": step_tokens,
    }  # fmt: skip
    run = planned(config, gpus, prompt_tokens, {name: value for name, value in options.items() if value is not None})
    shape = shape_of(run.model, "float32" if device == "here" else "bfloat16", run.lora_r)
    reached = this_machine() if device == "here" else DEVICES[device]
    look = Look(run.prompts, run.samples, prompt_tokens, run.new_tokens, run.every, mean_tokens)
    cost = cost_of(shape, reached, gpus, look, strategy, run.step_tokens)
    if as_json:
        settings = vars(run) | {"parameters": shape.parameters, "device": reached.name, "mean_tokens": mean_tokens}
        print(json.dumps(cost.as_dict() | settings, indent=1))
        return
    print(f"{run.model}: {shape.parameters / 1e9:.2f} B parameters on {gpus} x {reached.name}, {strategy}")
    print("\n".join(_lines(cost, run, mean_tokens)))


def _lines(cost: Cost, run: Planned, mean_tokens: float | None) -> list[str]:
    """Training, a look and its share of the time, a line each."""
    weights = "gathered on every device" if cost.gathered else "as they are"
    lines = [
        f"training  {cost.train_bytes / 1e9:.1f} GB a device before activations, {cost.step_seconds:.1f} s a step",
        f"a look    {cost.seconds:.1f} s: gather {cost.gather:.1f}, prefill {cost.prefill:.1f}, decode {cost.decode:.1f}; "
        f"{cost.batches} batches of {cost.rows} rows a device, {cost.look_bytes / 1e9:.1f} GB more, weights {weights}",
        f"overhead  {cost.overhead:.1%} with a look every {run.every} steps of {run.step_tokens:,} tokens",
    ]
    length = (
        f"completions are {mean_tokens:g} tokens long on average"
        if mean_tokens
        else (f"all completions are {run.new_tokens:,} tokens long")
    )
    if run.max_overhead and cost.overhead > run.max_overhead:
        lines.append(
            f"limit     watch_max_overhead {run.max_overhead:g}: expect a look about every "
            f"{cost.steps_within(run.max_overhead):,} steps if {length}; use "
            "fewer prompts, samples or tokens for more frequent looks"
        )
    return lines
