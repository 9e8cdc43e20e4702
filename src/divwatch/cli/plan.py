"""`divwatch plan`: what looks will cost, before the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from divwatch.cli.options import AsJson, write_json
from divwatch.errors import DivwatchError
from divwatch.words import counted

if TYPE_CHECKING:
    from divwatch.plan.cost import Cost
    from divwatch.plan.like import Like
    from divwatch.plan.of_config import Planned
    from divwatch.plan.propose import Proposal
    from divwatch.plan.sees import Sees


def plan(
    config: Annotated[
        Optional[Path], typer.Argument(help="A recipe's config: the options left out below are taken from it.")
    ] = None,
    model: Annotated[
        Optional[str], typer.Option(help="olmo3-7b, olmo3-32b, a directory, or a hub name: its config is enough.")
    ] = None,
    gpus: Annotated[Optional[int], typer.Option(min=1, help="Devices of the run. Default: 8.")] = None,
    device: Annotated[str, typer.Option(help="a100, h100, h200, b200, or here: this CPU, measured.")] = "h100",
    strategy: Annotated[str, typer.Option(help="ddp, zero1, zero2, zero3 or fsdp2.")] = "zero3",
    every: Annotated[
        Optional[str],
        typer.Option(help="auto, optimizer steps between looks, or a fraction of the run. Default: auto."),
    ] = None,
    steps: Annotated[Optional[int], typer.Option(min=1, help="Optimizer steps of the run. Default: 2,000.")] = None,
    max_overhead: Annotated[
        Optional[float], typer.Option(min=0, max=0.99, help="Share of the run that looks may take. Default: 0.03.")
    ] = None,
    prompts: Annotated[Optional[int], typer.Option(min=1, help="Prompts of a look. Default: 64.")] = None,
    samples: Annotated[Optional[int], typer.Option(min=2, help="Completions a prompt. Default: 16.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 300,
    new_tokens: Annotated[Optional[int], typer.Option(min=1, help="Tokens of a completion. Default: 256.")] = None,
    mean_tokens: Annotated[
        Optional[float], typer.Option(help="Mean tokens of a completion. Default: all have the limit of their task.")
    ] = None,
    step_tokens: Annotated[
        Optional[int], typer.Option(min=1, help="Tokens of an optimizer step, all devices. Default: 1,048,576.")
    ] = None,
    like: Annotated[
        Optional[Path],
        typer.Option(help="A watched run: its seconds and lengths count, its settings where no config is given."),
    ] = None,
    blame: Annotated[
        bool,
        typer.Option(
            "--blame", help="Also the cost of `divwatch blame` at one checkpoint, for the config's sources or ten."
        ),
    ] = False,
    proposed: Annotated[
        bool,
        typer.Option(
            "--propose", help="Propose the smallest panel that sees a fall of 10 % within 2 looks, in the budget."
        ),
    ] = False,
    as_json: AsJson = None,
) -> None:
    """What looks will cost and when they come: seconds, memory, steps and share of the run, before it (docs/cost.md).

    Example: divwatch plan configs/olmo3/instruct/sft.yaml --gpus 32
    """
    from divwatch.config import WatchConfig, number_in
    from divwatch.plan.blame import SOURCES, blame_cost, with_blame
    from divwatch.plan.cost import Look, cost_of
    from divwatch.plan.device import DEVICES
    from divwatch.plan.here import this_machine
    from divwatch.plan.like import calibrated, read_like
    from divwatch.plan.of_config import planned, released
    from divwatch.plan.propose import propose
    from divwatch.plan.sees import Watch, what_looks_see
    from divwatch.plan.shape import shape_of
    from divwatch.schedule import count_looks, overhead, plan_looks

    if device != "here" and device not in DEVICES:
        raise DivwatchError(f"unknown device {device!r}: choose from {', '.join(DEVICES)}, here")
    options = {
        "model": model, "every": WatchConfig(every=number_in(every)).every if every else None, "max_steps": steps,
        "max_overhead": max_overhead, "prompts": prompts, "samples": samples, "new_tokens": new_tokens,
        "mean_tokens": mean_tokens, "step_tokens": step_tokens,
    }  # fmt: skip
    options = {name: value for name, value in options.items() if value is not None}
    before = read_like(like) if like else None
    gpus = gpus or (before.processes if before else 8)
    run = planned(config, gpus, prompt_tokens, options, before)
    dtype = "float32" if device == "here" else "bfloat16"
    shape = shape_of(run.model, dtype, run.lora_r)
    reached = this_machine() if device == "here" else DEVICES[device]
    look = Look(run.prompts, run.samples, prompt_tokens, run.new_tokens, run.mean_tokens, run.varied)
    reference: Cost | None = None
    if before is not None:  # what the model of the cost makes of that run, beside its clock
        then = planned(config, before.processes, prompt_tokens, options, before).step_tokens
        same = "model" in options or released(before.model) == run.model
        its = shape if same else shape_of(released(before.model), dtype)
        reference = cost_of(its, reached, before.processes, before.look(prompt_tokens), strategy, then)

    def looks_at(cost: Cost) -> list[int]:
        return plan_looks(run.every, run.max_steps, run.max_overhead, cost.seconds, cost.step_seconds, run.looks)

    def cost_at(look: Look) -> Cost:
        found = cost_of(shape, reached, gpus, look, strategy, run.step_tokens)
        found = found if before is None or reference is None else calibrated(found, reference, before)
        if run.blame_rows is None:
            return found
        return with_blame(found, shape, reached, gpus, look, run.tasks, run.blame_rows, run.blame_sources or SOURCES)

    cost = cost_at(look)
    looks = looks_at(cost)
    blamed = blame_cost(shape, reached, gpus, look, cost, run.blame_sources or SOURCES) if blame else None
    share = overhead(len(looks), run.max_steps, cost.seconds, cost.step_seconds)
    most = count_looks(run.every, run.max_steps, run.looks)
    watch = Watch(
        run.prompts,
        run.samples,
        run.tasks,
        most,
        run.coupled,
        run.alpha,
        run.min_drop,
        run.mean_tokens or run.new_tokens,
    )
    sees = what_looks_see(watch, len(looks))
    proposal = propose(look, watch, cost_at, lambda cost: len(looks_at(cost))) if proposed else None
    if as_json is not None:
        settings = vars(run) | {"parameters": shape.parameters, "device": reached.name}
        learned: dict[str, Any] = {} if before is None else {"like": before.measured}
        learned |= {} if blamed is None else {"blame": blamed.as_dict()}
        learned |= {"proposal": proposal.as_dict() if proposal else None} if proposed else {}
        looks_of_run = {"looks": looks, "overhead": share, "sees": [s.as_dict() for s in sees]}
        if write_json(as_json, cost.as_dict() | settings | looks_of_run | learned):
            return
    print(f"{run.model}: {_parameters(shape.parameters)} parameters on {gpus} x {reached.name}, {strategy}")
    if before is not None:
        print(_like_line(before))
    memory = "stay sharded" if strategy in ("zero3", "fsdp2") and gpus > 1 else "fit as they are"
    step = "" if config is None and before else f" of {run.step_tokens:,} tokens"
    print(
        "\n".join([*_lines(cost, run, looks, share, step, memory), *_sees_lines(sees, watch.counts_on_common_numbers)])
    )
    if device != "here":
        several = "links between devices, " if gpus > 1 else ""
        print(
            f"          not measured on a GPU: {several}any GPU but one H200, whose shares of the peak speeds are used"
        )
    if proposed:
        print(_proposal_line(proposal))
    if blamed is not None:
        print(
            f"blame     {blamed.seconds / 60:.1f} min a checkpoint: {blamed.sources} sources x {blamed.rows} rows, "
            f"{blamed.tasks} tasks; {blamed.backward / 1e6:.1f} M tokens forward and backward, "
            f"{blamed.forward / 1e6:.1f} M forward"
        )


def _parameters(count: float) -> str:
    """
    >>> _parameters(7.3e9), _parameters(1.25e6)
    ('7.30 B', '1.25 M')
    """
    return f"{count / 1e9:.2f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"


def _proposal_line(proposal: Proposal | None) -> str:
    """The panel that is proposed, and what it sees."""
    from divwatch.plan.propose import FALL, LOOKS, SHARE, WITHIN

    if proposal is None:
        return f"propose   no panel has {LOOKS} looks within the budget: raise --max-overhead, or lower --new-tokens"
    short = "" if proposal.share >= SHARE else f"; no panel within the budget reaches {SHARE:.0%}"
    return (
        f"propose   --prompts {proposal.prompts} --samples {proposal.samples} --new-tokens {proposal.new_tokens}: "
        f"{counted(proposal.looks, 'look')} of {proposal.seconds:.1f} s; with independent samples a fall of {FALL:.0%} at the "
        f"start is flagged within {WITHIN} looks in {int(100 * proposal.share)}% of runs{short}"
    )


def _like_line(like: Like) -> str:
    """What the run before measured."""
    step = "" if like.step_seconds is None else f" and a step {like.step_seconds:.2g} s"
    tasks = ", ".join(f"{task} {tokens:.0f}" for task, tokens in like.tokens.items())
    return (
        f"measured  a look took {like.look_seconds:.2g} s{step} on {counted(like.processes, 'device')}; completions of "
        f"{like.mean_tokens:.0f} tokens on average ({tasks}), {like.longest:,} at most"
    )


def _lines(cost: Cost, run: Planned, looks: list[int], share: float, step: str, memory: str) -> list[str]:
    """Training, a look, and all looks of the run, a line each; one more where they take more than they may.

    step: what is known of a step's size. memory: how weights lie that are not gathered.
    """
    from divwatch.outputs.numbers import steps_of
    from divwatch.schedule import AUTO, EARLY, budget, count_looks

    weights = "gathered on every device" if cost.gathered else memory
    lines = [
        f"training  {cost.train_bytes / 1e9:.1f} GB a device before activations, {cost.step_seconds:.1f} s a step, "
        f"{counted(run.max_steps, 'step')}{step}",
        f"a look    {cost.seconds:.1f} s: gather {cost.gather:.1f}, prefill {cost.prefill:.1f}, decode {cost.decode:.1f}"
        + (f", blame {cost.blame_seconds:.1f}" if cost.blame_seconds else "")
        + "; "
        f"{counted(cost.batches, 'batch')} of {counted(cost.rows, 'row')} a device, "
        f"{cost.look_bytes / 1e9:.1f} GB more, weights {weights}",
        f"looks     {len(looks)}, at steps {steps_of(looks)}: {share:.1%} of the run, "
        f"{len(looks) * cost.seconds / 60:.1f} min in all",
    ]
    fits = budget(run.max_overhead, run.max_steps * cost.step_seconds) / (2 + len(EARLY))
    due = count_looks(run.every, run.max_steps, run.looks)
    if run.max_overhead and run.every == AUTO and cost.seconds > fits:
        lines.append(
            f"limit     watch_max_overhead {run.max_overhead:g} leaves no room for looks of this size early in the run: "
            f"those of {fits:.1f} s would fit; use fewer prompts, samples or tokens"
        )
    elif run.every != AUTO and len(looks) < due:
        lines.append(
            f"limit     watch_max_overhead {run.max_overhead:g} skips {due - len(looks)} of {due} looks; use fewer prompts, "
            "samples or tokens, or watch_every auto"
        )
    return lines


def _sees_lines(sees: list[Sees], coupled: bool) -> list[str]:
    """Which falls the looks flag: a line for each size, with what is assumed before the first."""
    by_fall: dict[float, list[Sees]] = {}
    for one in sees:
        by_fall.setdefault(one.fall, []).append(one)
    lines = []
    for fall, each in by_fall.items():
        within = " / ".join(str(one.within_looks) for one in each)
        shares = [
            " / ".join(f"{int(100 * getattr(one, name))}%" for one in each)
            for name in ("share", "independent", "middle")
        ]
        alone = f" ({shares[1]} with independent samples)" if coupled else ""
        lines.append(
            f"sees      a fall of {fall:.0%} in all, within {within} looks: {shares[0]} of runs at the start{alone}, "
            f"{shares[2]} in the middle"
        )
    how = "simulated" if coupled else "simulated with independent samples"
    return [
        *lines,
        f"          {how}; a fall in the middle must last four looks before it is flagged (docs/detection.md)",
    ]
