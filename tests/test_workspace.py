"""`divwatch wandb setup`: the workspace is whole without a server, its names are those that are logged, in reading order."""

import json

import pytest

from tests.test_cli import run

pytest.importorskip("wandb_workspaces")


def plots(spec):
    return [
        (section["name"], panel["config"])
        for section in spec["section"]["panelBankConfig"]["sections"]
        for panel in section["panels"]
        if "metrics" in panel["config"]
    ]


def test_the_workspace_shows_what_is_logged_in_reading_order(monkeypatch, capsys):
    from divwatch.outputs.workspace import sections, workspace
    from divwatch.tiny.panel import panel

    tasks = sorted({prompt.task for prompt in panel()})
    spec = workspace("me", "mine", tasks)._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    names = [section["name"] for section in spec["section"]["panelBankConfig"]["sections"]]
    assert names[0].startswith("1 Does diversity fall")
    assert [n for n in names if n[0].isdigit()] == list(sections(tasks))
    shown = {name: config for _, config in plots(spec) for name in config["metrics"]}
    assert {f"diversity/{task}/sbert" for task in (*tasks, "all")} <= set(shown)
    assert {config["xAxis"] for config in shown.values()} == {"train/global_step", "divwatch/pipeline_step"}
    assert "watch/completions" in json.dumps(spec)


def test_every_name_of_the_workspace_is_one_that_a_run_logs():
    from divwatch.outputs.names import AXIS, PIPELINE_AXIS, assessment_scalars, look_scalars
    from divwatch.outputs.workspace import sections
    from divwatch.records import Change, RunAssessment

    parts = {p: 0.1 for p in ("quality_control", "genuine_narrowing", "cross_narrowing", "error_narrowing")}
    keys = [f"{group}/sbert" for group in ("diversity", "correct_diversity")]
    changes = tuple(Change("all", key, -0.1, (-0.2, 0.0), alarm_step=4, onset_step=3) for key in keys)
    logged = set(assessment_scalars(RunAssessment("sbert", 0, {}, changes, {"all": parts})))
    keys = [f"quality/{q}" for q in ("accuracy", "majority_at_k", "pass_at_k", "finished", "usable")]
    keys += ["diversity/sbert", "correct_diversity/sbert"]
    tasks = {task: {key: {"mean": 0.5} for key in keys} for task in ("all", "gsm8k")}
    logged |= set(look_scalars(tasks)) | {"watch/seconds", "watch/overhead"}
    for plot in (plot for plots in sections(["all", "gsm8k"]).values() for plot in plots):
        assert set(plot.names) <= logged, plot.title
        assert plot.axis in (AXIS, PIPELINE_AXIS)


def test_without_a_server_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", "/nowhere")
    assert run(["wandb", "setup"], monkeypatch) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "the W&B server rejected the workspace" in line
    assert "--json prints the workspace" in line


def test_json_prints_the_workspace_and_sends_nothing(monkeypatch, capsys):
    assert run(["wandb", "setup", "--project", "mine", "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["project"] == "mine"
