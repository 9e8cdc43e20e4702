"""Sends the looks of a finished run directory to W&B, as a watched run would have sent them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.outputs.names import assessment_scalars, look_scalars, summary_values
from divwatch.outputs.tracking import WandbLog, table_rows
from divwatch.records import ScoredLook
from divwatch.store.lineage import steps_before
from divwatch.store.run_directory import RunDirectory

LIMIT = 600.0  # seconds to wait for W&B


def upload(run: RunDirectory, looks: Sequence[ScoredLook]) -> None:
    """Opens a W&B run (project `divwatch`, unless the environment names another) and sends curves, tables and verdict.

    Raises DivwatchError if W&B cannot be used.
    """
    try:
        import wandb

        info = run.info()
        tracked = wandb.init(
            project=os.getenv("WANDB_PROJECT", "divwatch"),
            name=info["stage"],
            group=os.getenv("WANDB_RUN_GROUP", info["lineage"]),
            job_type=os.getenv("WANDB_JOB_TYPE", "import"),
        )
    except Exception as error:
        raise DivwatchError(f"W&B cannot be used ({one_line(error)}): log in, or set WANDB_MODE=offline") from None
    log = WandbLog(pending=3 * len(looks) + 8)
    log.open(tracked, info["settings"])
    offset = steps_before(run)
    texts = {prompt["id"]: prompt["text"] for prompt in info["panel"]["prompts"]}
    for look in looks:
        scalars = look_scalars(look.tasks) | assessment_scalars(look.assessment)
        log.log_look(look.step, offset + look.step, scalars, partial(_table, run, texts, look.step))
    if looks:
        log.summarise(summary_values(looks[-1].assessment))
    log.upload(run.path)
    log.close(LIMIT)
    tracked.finish()


def _table(run: RunDirectory, texts: Mapping[str, str], step: int) -> list[list[Any]]:
    return table_rows(step, texts, run.completions(step))
