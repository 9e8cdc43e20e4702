"""A W&B workspace with the monitor's panels in reading order, for all runs of a project.

Needs the extra `workspaces` (package wandb-workspaces).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from divwatch.errors import DivwatchError, one_line
from divwatch.outputs.names import ALARM, AXIS, KIND, OVERHEAD, PIPELINE_AXIS, SECONDS, SUMMARY, TABLE
from divwatch.records import PARTS

NAME = "divwatch"
# Pinned columns of the table of runs.
COLUMNS = [
    KIND,
    f"{SUMMARY}collapse/all/change",
    f"{SUMMARY}collapse/all/onset_step",
    f"{SUMMARY}{ALARM}",
]


class Plot(NamedTuple):
    """A line plot: its logged names over an axis; bounds of y, None if free."""

    title: str
    names: tuple[str, ...]
    axis: str = AXIS
    bounds: tuple[float | None, float | None] = (None, None)


def sections(tasks: Iterable[str], metric: str = "sbert") -> dict[str, list[Plot]]:
    """The plots by section, in reading order."""
    everything, correct = f"diversity/all/{metric}", f"correct_diversity/all/{metric}"
    tasks = [task for task in tasks if task != "all"]
    quality = [f"quality/all/{name}" for name in ("accuracy", "majority_at_k", "pass_at_k")]
    return {
        "1 Does diversity fall?": [
            Plot("Diversity", (everything,), bounds=(0, None)),
            Plot("Correct-answer diversity", (correct,), bounds=(0, None)),
            Plot("Change since the first look", ("collapse/all/change", "collapse_correct/all/change")),
            Plot("Alarm", (ALARM,), bounds=(0, 1)),
        ],
        "2 Over the lineage": [
            Plot("Diversity over the stages", (everything,), PIPELINE_AXIS, (0, None)),
            Plot("Correct-answer diversity over the stages", (correct,), PIPELINE_AXIS, (0, None)),
            Plot("Accuracy over the stages", ("quality/all/accuracy",), PIPELINE_AXIS, (0, 1)),
        ],
        "3 What kind of change": [Plot("The change, split", tuple(f"decomposition/all/{part}" for part in PARTS))],
        "4 Task by task": [
            Plot(task, (f"diversity/{task}/{metric}", f"correct_diversity/{task}/{metric}"), bounds=(0, None))
            for task in tasks
        ],
        "5 Why it matters": [
            Plot("Accuracy, majority, pass@k", tuple(quality), bounds=(0, 1)),
            Plot("Finished and usable outputs", ("quality/all/finished", "quality/all/usable"), bounds=(0, 1)),
        ],
        "6 Cost": [Plot("Seconds a look", (SECONDS,)), Plot("Share of the run's time", (OVERHEAD,))],
    }


def workspace(entity: str, project: str, tasks: Iterable[str], metric: str = "sbert") -> Any:
    """The workspace as an object of wandb-workspaces; `.save()` sends it. Raises DivwatchError without that package."""
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise DivwatchError("wandb-workspaces is not installed: pip install wandb-workspaces") from None
    layout = [
        ws.Section(
            name=name,
            panels=[
                wr.LinePlot(title=plot.title, x=plot.axis, y=list(plot.names), range_y=plot.bounds) for plot in plots
            ],
            is_open=True,
        )
        for name, plots in sections(tasks, metric).items()
        if plots
    ]
    table = wr.WeavePanelSummaryTable(table_name=TABLE)
    layout.insert(-1, ws.Section(name="What the model said", panels=[table], is_open=True))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=layout,
        settings=ws.WorkspaceSettings(x_axis=AXIS, ignore_outliers=False),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Metric("Group")], pinned_columns=[f"summary:{name}" for name in COLUMNS]
        ),
    )


def watched(run: Path) -> tuple[list[str], str]:
    """The tasks of a run's panel and the metric that carries its alarm; the first one where none does."""
    from divwatch.analysis.history import ALARM_METRICS
    from divwatch.store.run_directory import RunDirectory

    info = RunDirectory.of(run).info()
    metrics = info["settings"]["metrics"]
    tasks = list(dict.fromkeys(prompt["task"] for prompt in info["panel"]["prompts"]))
    return tasks, next((m for m in ALARM_METRICS if m in metrics), metrics[0])


def send(entity: str | None, project: str, tasks: list[str], metric: str) -> str:
    """Saves the workspace; returns its address. Raises DivwatchError if the server cannot be reached."""
    import wandb

    try:
        view = workspace(entity or str(wandb.Api(timeout=20).default_entity), project, tasks, metric)
        view.save()
        return view.url
    except DivwatchError:
        raise
    except Exception as error:
        raise DivwatchError(
            f"the W&B server rejected the workspace ({one_line(error, kind=False)}): check `wandb login`, the project and the "
            "network; --json prints the workspace without a server"
        ) from None
