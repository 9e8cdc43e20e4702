"""The recipes as a user starts them: the bare command trains with a monitor, wrong input is one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from divwatch.store.run_directory import RunDirectory

ROOT = Path(__file__).parent.parent
ACCELERATE = Path(sys.executable).parent / "accelerate"
LAUNCH = [ACCELERATE, "launch", "--quiet", "--num_processes", "1", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no"]
SMALL = ["--max_steps", "2", "--mix_rows", "100", "--watch_prompts", "12", "--watch_samples", "4"]


def launch(recipe, *arguments, cwd=ROOT):
    command = [*LAUNCH, str(ROOT / "recipes" / recipe), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_bare_command_runs_the_embedded_stage_and_the_next_stage_finds_it(tmp_path):
    sft = launch("sft.py", *SMALL, "--output_dir", tmp_path / "sft", "--watch_lineage", "mine", "--report_to", "none")
    assert sft.returncode == 0, sft.stderr[-2000:]
    assert "running the embedded stage of configs/tiny/instruct/sft.yaml" in sft.stdout
    assert [look["status"] for look in RunDirectory.of(tmp_path / "sft").looks()] == ["ok", "ok"]
    dpo = launch(
        "dpo.py",
        *SMALL,
        "--output_dir",
        tmp_path / "dpo",
        "--model_name_or_path",
        tmp_path / "sft",
        "--report_to",
        "none",
    )
    assert dpo.returncode == 0, dpo.stderr[-2000:]
    info = RunDirectory.of(tmp_path / "dpo").info()
    assert (info["lineage"], info["stage"], info["mix"]["name"]) == ("mine", "dpo", "tiny/instruct_dpo")
    assert Path(info["parent"]) == tmp_path / "sft" / "divwatch"


def unwritable():
    return "/proc/nowhere/out"  # not even root can write there


@pytest.mark.parametrize(
    ("recipe", "arguments", "says"),
    [
        ("sft.py", ["--lerning_rate", "1"], "did you mean learning_rate?"),
        ("dpo.py", ["--model_name_or_path", "runs/nowhere/sft"], "'runs/nowhere/sft' is not there"),
        ("dpo.py", ["--model_name_or_path", "tests"], "'tests' holds no config.json"),
        ("sft.py", ["--output_dir", unwritable()], "cannot be written"),
        ("sft.py", ["--watch_every", "0"], "watch_every is 0"),
        ("sft.py", ["--watch_panel", "EMPTY"], "has no prompts"),
        ("sft.py", ["--mix", "tiny/nothing"], "unknown mix 'tiny/nothing'"),
        ("sft.py", ["--config", "configs/none.yaml"], "config 'configs/none.yaml' is not there"),
        ("sft.py", ["--max_steps", "many"], "invalid int value"),
    ],
)
def test_wrong_input_is_one_line_with_the_fix(recipe, arguments, says, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    given = [str(empty) if a == "EMPTY" else a for a in arguments]
    if "--output_dir" not in given:
        given += ["--output_dir", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, f"recipes/{recipe}", *given, "--report_to", "none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "Traceback" not in done.stderr


def test_an_unknown_key_in_a_config_is_named(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text((ROOT / "configs/tiny/instruct/sft.yaml").read_text() + "watch_evry: 3\n")
    command = [sys.executable, "recipes/sft.py", "--config", str(config), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "watch_evry" in done.stderr
    assert "watch_every" in done.stderr
    assert "Traceback" not in done.stderr


def test_import_and_help_load_nothing_heavy():
    heavy = ("torch", "transformers", "wandb", "trl", "numpy")
    code = f"import sys, divwatch, divwatch.cli; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
