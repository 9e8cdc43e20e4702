"""A plan's YAML: the runs it stands for, their commands, and one line for what is wrong with it."""

import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from divwatch.ablation.plan import read_plan
from divwatch.cli import app
from divwatch.errors import DivwatchError
from divwatch.files import read_yaml

ROOT = Path(__file__).parents[2]
PLAN = Path("configs/ablations/olmo3_instruct_sft.yaml")
SWEEP = Path("configs/sweeps/olmo3_instruct_sft.yaml")
PLANS = sorted((ROOT / "configs/ablations").glob("*.yaml"))

GOOD = {
    "recipe": "sft",
    "config": "configs/tiny/instruct/sft.yaml",
    "output_dir": "runs/mine",
    "settings": {"mix": "tiny/ablation_sft", "max_steps": 2},
    "leave_one_out": "all",
    "seeds": [0, 1],
}


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def plan_of(tmp_path, **changes):
    plan = {k: v for k, v in (GOOD | changes).items() if v is not None}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    return read_plan(path)


def options_of(words):
    """A command line's options as a dict."""
    options, name = {}, None
    for word in words:
        if word.startswith("--"):
            name = word[2:]
            options[name] = []
        elif name:
            options[name].append(word)
    return options


def test_leave_one_out_has_every_source_once_and_every_seed(tmp_path):
    plan = plan_of(tmp_path)
    assert [a.name for a in plan.arms] == ["full", "without-forum", "without-manual", "without-quiz", "without-script"]
    assert [a.left_out for a in plan.arms] == [None, "forum", "manual", "quiz", "script"]
    runs = list(plan.runs())
    assert [(r.seed, r.arm.name) for r in runs[:6]] == [*[(0, a.name) for a in plan.arms], (1, "full")]
    assert len(runs) == 10
    assert len({r.output_dir for r in runs}) == 10


def test_a_run_is_the_config_with_the_plans_settings_its_mix_and_its_seed(tmp_path):
    plan = plan_of(tmp_path, launch={"config_file": "configs/accelerate/cpu.yaml", "quiet": True, "multi_gpu": False})
    run = list(plan.runs())[6]
    words = shlex.split(plan.command_line(run))
    assert words[:6] == [
        "accelerate",
        "launch",
        "--config_file",
        "configs/accelerate/cpu.yaml",
        "--quiet",
        "recipes/sft.py",
    ]
    options = options_of(words[6:])
    assert options == {
        "config": ["configs/tiny/instruct/sft.yaml"], "watch_max_overhead": ["0"], "mix": ["tiny/ablation_sft"],
        "max_steps": ["2"], "mix_drop": ["forum"], "seed": ["1"], "data_seed": ["1"],
        "output_dir": ["runs/mine/without-forum/seed-1"],
    }  # fmt: skip
    assert plan.command(run)[3:] == words[2:]


def test_what_is_left_out_anyway_stays_left_out(tmp_path):
    plan = plan_of(tmp_path, settings={"mix": "tiny/ablation_sft", "mix_drop": ["quiz"]})
    assert [a.left_out for a in plan.arms] == [None, "forum", "manual", "script"]
    assert plan.arms[1].changes == {"mix_drop": ["quiz", "forum"]}


def test_a_grid_has_every_combination(tmp_path):
    grid = {"mix_weight": [["script=0.5"], ["script=2", "quiz=0"]], "mix_rows": [100, 200]}
    plan = plan_of(tmp_path, leave_one_out=None, grid=grid)
    assert [dict(a.changes) for a in plan.arms] == [
        {},
        {"mix_weight": ["script=0.5"], "mix_rows": 100},
        {"mix_weight": ["script=0.5"], "mix_rows": 200},
        {"mix_weight": ["script=2", "quiz=0"], "mix_rows": 100},
        {"mix_weight": ["script=2", "quiz=0"], "mix_rows": 200},
    ]
    assert plan.arms[3].name == "weight-script=2+quiz=0_rows-100"
    options = options_of(plan.command(list(plan.runs())[3]))
    assert (options["mix_weight"], options["mix_rows"]) == (["script=2", "quiz=0"], ["100"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"recipe": "ppo"}, "recipe 'ppo' is not there: give sft, dpo or grpo"),
        ({"config": "configs/none.yaml"}, "configs/none.yaml is not there"),
        ({"config": None}, "no 'config'"),
        ({"output_dir": 3}, "no 'output_dir'"),
        ({"settings": ["mix"]}, "'settings' as ['mix']"),
        ({"settings": {"seed": 3}}, "sets 'seed' for every run"),
        ({"settings": {"mix": "tiny/none"}}, "unknown mix 'tiny/none'"),
        ({"settings": {"mix": "mine.jsonl"}}, "list them under 'leave_one_out'"),
        ({"leave_one_out": "some"}, "leave_one_out 'some': give all, or a list of sources"),
        ({"leave_one_out": ["quiz", "Quiz"]}, "two arms of the name 'without-quiz'"),
        ({"leave_one_out": None}, "either 'leave_one_out'"),
        ({"grid": {"mix_rows": [1]}}, "either 'leave_one_out'"),
        ({"leave_one_out": None, "grid": {"learning_rate": [1]}}, "'learning_rate' in its grid: the mix settings are"),
        ({"leave_one_out": None, "grid": {"mix_rows": 100}}, "100 for 'mix_rows' in its grid: give a list"),
        ({"leave_one_out": None, "grid": {}}, "give lists of values"),
        ({"seeds": []}, "seeds []"),
        ({"seeds": [0, 0]}, "each once"),
        ({"seeds": ["one"]}, "whole numbers"),
        ({"arms": {}}, "unknown key 'arms': the keys are recipe"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_one_line(tmp_path, changes, says):
    with pytest.raises(DivwatchError) as error:
        plan_of(tmp_path, **changes)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_shipped_plans_are_whole(path):
    plan = read_plan(path)
    assert plan.settings["watch_max_overhead"] == 0
    assert str(plan.output_dir) == f"runs/ablations/{path.stem}"
    assert Path(plan.launch["config_file"]).is_file()


def test_every_source_of_instruct_sft_has_an_arm():
    from divwatch.mixes.show import described

    plan = read_plan(ROOT / "configs/ablations/olmo3_instruct_sft.yaml")
    assert [a.left_out for a in plan.arms[1:]] == [s["name"] for s in described("instruct_sft")["sources"]]


def test_dry_run_prints_the_commands_and_runs_nothing(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(GOOD | {"output_dir": str(tmp_path / "out")}))
    done = CliRunner().invoke(app, ["ablate", str(path), "--dry-run", "--seed", "1"])
    assert done.exit_code == 0
    assert [line.split("--seed ")[1].split()[0] for line in done.stdout.splitlines()] == ["1"] * 5
    assert not (tmp_path / "out").exists()
    for option, says in (
        ("--seed=7", "no seed 7: choose from 0, 1"),
        ("--arm=half", "no arm 'half': choose from full"),
    ):
        wrong = CliRunner().invoke(app, ["ablate", str(path), "--dry-run", option])
        assert isinstance(wrong.exception, DivwatchError)
        assert says in str(wrong.exception)


def test_the_shipped_sweep_has_the_arms_and_seeds_of_its_plan():
    plan, sweep = read_plan(PLAN), yaml.safe_load(SWEEP.read_text())
    assert {name: values["values"] for name, values in sweep["parameters"].items()} == {
        "arm": [arm.name for arm in plan.arms],
        "seed": list(plan.seeds),
    }
    assert sweep["command"][3] == str(PLAN)
    assert Path(sweep["program"]) == plan.recipe
    assert read_yaml(plan.config)["report_to"] == "wandb"


def test_what_a_wandb_agent_starts_is_a_run_of_the_plan():
    """The agent's code in W&B makes the command line from the sweep; `divwatch ablate` takes it."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load(SWEEP.read_text())
    chosen = {name: {"value": values["values"][-1]} for name, values in sweep["parameters"].items()}
    macros = {"${env}": [], "${args}": create_sweep_command_args({"args": chosen})["args"]}
    words = [w for word in sweep["command"] for w in macros.get(word, [word])]
    assert words[0] == "divwatch"
    done = CliRunner().invoke(app, [*words[1:], "--dry-run"])
    assert done.stdout.count("\n") == 1
    assert "--mix_drop Hardcoded --seed 2 " in done.stdout


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"settings": {"mix": "tiny/ablation_sft", "learning_rat": 1}}, "did you mean learning_rate"),
        ({"settings": {"mix": "tiny/ablation_sft", "watch_prompt": 8}}, "did you mean watch_prompts"),
        ({"settings": {"mix": "tiny/ablation_sft", "watch_prompts": "many"}}, "watch_prompts is 'many'"),
        ({"leave_one_out": ["forum", "nobody"]}, "unknown source 'nobody': the sources are forum, manual"),
        ({"settings": {"mix": "tiny/ablation_sft", "mix_weight": "nobody=2"}}, "unknown source 'nobody'"),
        ({"settings": {"mix": "own.jsonl"}, "leave_one_out": ["a", "c"]}, "unknown source 'c': the sources are a, b"),
        ({"settings": {"mix": "null.jsonl"}, "leave_one_out": ["3", "unknown", "c"]}, "the sources are unknown, 3"),
        ({"settings": {"mix": "instruct_sft"}, "leave_one_out": ["nobody"]}, "unknown source 'nobody'"),
    ],
)
def test_what_no_run_could_use_is_said_before_the_first_training(tmp_path, monkeypatch, changes, says):
    """From any directory: the shipped files are found in the checkout, own ones beside the plan."""
    plan = {
        "recipe": "sft", "config": "configs/tiny/instruct/sft.yaml", "output_dir": "out", "leave_one_out": ["forum"],
        "settings": {"mix": "tiny/ablation_sft"}, "launch": {"config_file": "configs/accelerate/cpu.yaml"},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan | changes))
    (tmp_path / "own.jsonl").write_text('{"prompt": "?", "completion": "!", "source": "a"}\n{"source": "b"}\n')
    (tmp_path / "null.jsonl").write_text('{"prompt": "?", "completion": "!", "source": null}\n{"source": 3}\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = CliRunner().invoke(app, ["ablate", "../plan.yaml"])
    assert result.exit_code == 2 or isinstance(result.exception, DivwatchError)
    assert says in (result.output + str(result.exception))
    assert not Path("out").exists()


def test_a_plan_runs_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["ablate", str(ROOT / "configs/ablations/tiny_sources.yaml"), "--dry-run"])
    assert result.exit_code == 0, result.exception
    words = result.output.splitlines()[0].split()
    for option in ("--config", "--config_file", "--model_name_or_path"):
        assert Path(words[words.index(option) + 1]).exists(), option
