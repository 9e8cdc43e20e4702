"""The `divwatch` command: thin, and heavy imports wait until a command needs them.

Exit status: 0 done, 2 wrong input (one line says what and how to mend it), 130 interrupted, 1 a defect of divwatch's own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from divwatch.cli.ablate import ablate, compare
from divwatch.cli.mix import app as mix_app
from divwatch.cli.panel import panel_app
from divwatch.errors import DivwatchError
from divwatch.outputs.workspace import wandb_app

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Watch output diversity in post-training.")
app.add_typer(mix_app, name="mix")
app.add_typer(panel_app, name="panel")
app.add_typer(wandb_app, name="wandb")
app.command()(ablate)
app.command()(compare)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(asked: bool) -> None:
    if asked:
        from divwatch import __version__

        print(f"divwatch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Output directories of watched runs, or a folder of them.")],
    out: Annotated[
        Optional[Path], typer.Option(help="The page to write. Default: report.html in the first folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of one or more runs: an HTML page, PNG figures and CSV tables, and a table of stages here.

    Example: divwatch report runs/demo
    """
    from divwatch.outputs.report import write_report
    from divwatch.outputs.terminal import print_records, print_reference, print_report_json, print_stages

    page = write_report(runs, out)
    if as_json:
        print_report_json(page)
        return
    print_stages(page)
    print_reference(page)
    print_records(page, runs)


@app.command()
def top(
    runs: Annotated[list[Path], typer.Argument(help="Output directories of watched runs, or a folder of them.")],
    every: Annotated[float, typer.Option(help="Seconds between looks at the directories.")] = 2.0,
    once: Annotated[bool, typer.Option(help="Show what is there now, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a line each time something changed.")] = False,
) -> None:
    """Follow runs while they train: where they are, diversity and its change, what falls and since when.

    Reads their directories and asks nothing of the training; ends when all runs have ended, or with Ctrl-C.

    Example: divwatch top runs/demo
    """
    from divwatch.outputs.top import follow

    follow(runs, every, once, as_json)


@app.command()
def score(
    file: Annotated[
        Path, typer.Argument(help='JSONL; a line: {"id", "prompt", "outputs": [...]} and task, reference, is_correct.')
    ],
    metrics: Annotated[Optional[str], typer.Option(help="Metrics, separated by commas.")] = None,
    preset: Annotated[
        str, typer.Option(help="paper: each metric exactly as the paper's code computes it; or default.")
    ] = "default",
    encoder: Annotated[Optional[str], typer.Option(help="Sentence encoder: hub name, directory, or minilm.")] = None,
    encoder_max_tokens: Annotated[Optional[int], typer.Option(help="Tokens the encoder reads of an output.")] = None,
    vocab_size: Annotated[int, typer.Option(help="Vocabulary size in EAD.")] = 50257,
    nli_model: Annotated[Optional[str], typer.Option(help="NLI classifier: hub name or directory.")] = None,
    nli_sentences: Annotated[int, typer.Option(help="Aligned sentences a pair for NLI, 0 = all.")] = 3,
    verifier: Annotated[
        Optional[str],
        typer.Option(help="Judge outputs against the reference: gsm8k, math, humaneval, ... (docs/verifiers.md)"),
    ] = None,
    unsafe_code: Annotated[bool, typer.Option(help="Run outputs that are programs without a sandbox.")] = False,
    json_out: Annotated[Optional[Path], typer.Option("--json", help="Write the full result to this file.")] = None,
) -> None:
    """Score the outputs in a file: diversity, correct-answer diversity and quality, with intervals.

    Example: divwatch score samples.jsonl --metrics ead,sbert --encoder minilm --json scores.json
    """
    from divwatch.cli.score import score_file, show
    from divwatch.metrics.encoder import DEFAULT_ENCODER

    result = score_file(
        file,
        metrics=None if metrics is None else [m.strip() for m in metrics.split(",") if m.strip()],
        preset=preset,
        encoder=encoder or DEFAULT_ENCODER,
        encoder_max_tokens=encoder_max_tokens,
        vocab_size=vocab_size,
        nli_model=nli_model,
        nli_sentences=nli_sentences,
        verifier=verifier,
        unsafe_code=unsafe_code,
        json_out=json_out,
    )
    show(result)


@app.command()
def measure(
    models: Annotated[
        list[str], typer.Argument(help="Model directories or hub names, in the order of their training.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the runs.")],
    like: Annotated[Optional[Path], typer.Option(help="Take panel and settings from this watched run.")] = None,
    panel: Annotated[Optional[str], typer.Option(help="A panel's name (tiny) or a JSONL file.")] = None,
    prompts: Annotated[Optional[int], typer.Option(help="Prompts of the panel.")] = None,
    samples: Annotated[Optional[int], typer.Option(help="Completions a prompt.")] = None,
    temperature: Annotated[Optional[float], typer.Option(help="Sampling temperature.")] = None,
    top_p: Annotated[Optional[float], typer.Option(help="Nucleus mass.")] = None,
    max_new_tokens: Annotated[Optional[int], typer.Option(help="Tokens after which a completion is cut.")] = None,
    encoder: Annotated[Optional[str], typer.Option(help="Sentence encoder: hub name, directory, or minilm.")] = None,
    lineage: Annotated[Optional[str], typer.Option(help="Name of the lineage.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of prompts and sampling.")] = None,
    device: Annotated[Optional[str], typer.Option(help="Where to sample. Default: cuda if there is one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at checkpoints that were never watched in training; each becomes a stage that `report` reads.

    Example: divwatch measure BASE SFT DPO --panel tiny --encoder minilm --out runs/measured
    """
    from divwatch.config import WatchConfig
    from divwatch.monitor.measure import measure as run_measure
    from divwatch.monitor.measure import settings_like
    from divwatch.store.run_directory import RunDirectory

    options = {
        "panel": panel, "prompts": prompts, "samples": samples, "temperature": temperature, "top_p": top_p,
        "max_new_tokens": max_new_tokens, "encoder": encoder, "lineage": lineage, "seed": seed,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    run = RunDirectory.of(like) if like else None
    config = settings_like(run, given) if run else WatchConfig.from_settings(**given)
    done = run_measure(models, out, config, run, device)
    if as_json:
        import json

        print(json.dumps({"runs": [str(measured.path) for measured in done]}))
        return
    for measured in done:
        print(f"measured: {measured.path}")
    print(f"now: divwatch report {out}")


@app.command()
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
    told = planned(config, gpus, prompt_tokens, {name: value for name, value in options.items() if value is not None})
    shape = shape_of(told.model, "float32" if device == "here" else "bfloat16", told.lora_r)
    reached = this_machine() if device == "here" else DEVICES[device]
    look = Look(told.prompts, told.samples, prompt_tokens, told.new_tokens, told.every)
    cost = cost_of(shape, reached, gpus, look, strategy, told.step_tokens)
    if as_json:
        import json

        told_too = vars(told) | {"parameters": shape.parameters, "device": reached.name}
        print(json.dumps(cost.as_dict() | told_too, indent=1))
        return
    where = "gathered on every device" if cost.gathered else "as they are"
    print(f"{told.model}: {shape.parameters / 1e9:.2f} B parameters on {gpus} x {reached.name}, {strategy}")
    print(f"training  {cost.train_bytes / 1e9:.1f} GB a device before activations, {cost.step_seconds:.1f} s a step")
    print(
        f"a look    {cost.seconds:.1f} s: gather {cost.gather:.1f}, prefill {cost.prefill:.1f}, decode {cost.decode:.1f}; "
        f"{cost.batches} batches of {cost.rows} rows a device, {cost.look_bytes / 1e9:.1f} GB more, weights {where}"
    )
    print(f"overhead  {cost.overhead:.1%} with a look every {told.every} steps of {told.step_tokens:,} tokens")
    if told.max_overhead and cost.overhead > told.max_overhead:
        print(
            f"promise   watch_max_overhead {told.max_overhead:g} puts looks off to about every "
            f"{cost.steps_within(told.max_overhead):,} steps, were all completions {look.new_tokens:,} tokens long; fewer "
            "prompts, samples or tokens make them more frequent"
        )


def main() -> None:
    """The entry point. A user's mistake is one line."""
    try:
        status = app(standalone_mode=False)
    except DivwatchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error of the option parser
            raise
        print(f"error: {error.format_message()}: see divwatch --help", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)  # typer's: 130 after Ctrl-C


if __name__ == "__main__":
    main()
