"""`divwatch ablate PLAN`: train every arm of a plan with every seed."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from divwatch.cli.options import AsJson, write_json
from divwatch.errors import DivwatchError
from divwatch.words import counted


def ablate(
    plan: Annotated[Path, typer.Argument(help="A plan in YAML (docs/ablations.md).")],
    arm: Annotated[Optional[str], typer.Option(help="This arm alone.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="This seed alone.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the launches and run nothing.")] = False,
    as_json: AsJson = None,
) -> None:
    """Train every arm of a plan with every seed; call it again to continue where it stopped.

    Example: divwatch ablate configs/ablations/tiny_sources.yaml
    """
    from divwatch.ablation.check import check_plan
    from divwatch.ablation.launch import check_kept, launch_all, write_record
    from divwatch.ablation.plan import read_plan

    ablation = read_plan(plan)
    _known("arm", arm, [a.name for a in ablation.arms])
    _known("seed", seed, list(ablation.seeds))
    check_plan(ablation)
    runs = [r for r in ablation.runs() if arm in (None, r.arm.name) and seed in (None, r.seed)]
    if dry_run:
        commands = [ablation.command_line(run) for run in runs]
        if not write_json(as_json, commands):
            print("\n".join(commands))
        return
    check_kept(ablation, runs)
    write_record(ablation)
    outcomes = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the current run ends too
    try:
        for outcome in launch_all(ablation, runs, _progress):
            outcomes.append(outcome)
            if outcome.status != "kept":
                _progress(f"  {outcome}")
    except KeyboardInterrupt:
        _progress(f"stopped after {len(outcomes)} of {counted(len(runs), 'run')}: the same command continues")
        sys.exit(130)
    failed = [o for o in outcomes if o.status == "failed"]
    if not write_json(as_json, [o.as_dict() for o in outcomes]):
        skipped = sum(o.status == "kept" for o in outcomes)
        done = len(outcomes) - skipped - len(failed)
        print(f"{counted(len(outcomes), 'run')}: {done} done, {skipped} kept, {len(failed)} failed")
        if len(failed) < len(outcomes):
            print(f"now: {shlex.join(['divwatch', 'compare', str(ablation.output_dir)])}")
    if outcomes and len(failed) == len(outcomes):
        raise DivwatchError(f"every run failed, the first one with: {failed[0].reason}")
    if failed:
        sys.exit(1)


def _known(what: str, value: object, known: list) -> None:
    if value is not None and value not in known:
        raise DivwatchError(f"the plan has no {what} {value!r}: choose from {', '.join(map(str, known))}")


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
