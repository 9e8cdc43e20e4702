"""A plan as a W&B sweep: every agent takes runs of the same plan, each by `divwatch ablate PLAN --arm A --seed S`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from divwatch.ablation.plan import Plan, read_yaml
from divwatch.errors import DivwatchError


def sweep_of(plan: Plan, path: Path) -> dict[str, Any]:
    """The sweep's configuration. `path`: the plan's file, as agents will find it from where they are started."""
    return {
        "name": path.stem,
        "program": str(plan.recipe),  # asked for by W&B; what is run is `command`
        "method": "grid",
        "metric": {"name": "diversity/all/sbert", "goal": "maximize"},
        "parameters": {"arm": {"values": [arm.name for arm in plan.arms]}, "seed": {"values": list(plan.seeds)}},
        "command": ["${env}", "divwatch", "ablate", str(path), "${args}"],
    }


def write_sweep(plan: Plan, path: Path, out: Path) -> None:
    import yaml

    trackers = {**read_yaml(plan.config), **plan.settings}.get("report_to", "none")
    if not {"wandb", "all"} & set(trackers if isinstance(trackers, list) else [trackers]):
        raise DivwatchError(f"runs of {path} do not report to W&B: set 'report_to: wandb' under its settings")
    head = f"# Made by: divwatch ablate {path} --sweep {out}\n# Use: wandb sweep {out}, then wandb agent ID from this folder\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(head + yaml.safe_dump(sweep_of(plan, path), sort_keys=False))
