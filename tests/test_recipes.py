"""The recipes as a user starts them: the bare command trains with a monitor, wrong input is one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from divwatch.store.run_directory import RunDirectory

ROOT = Path(__file__).parent.parent
ACCELERATE = Path(sys.executable).parent / "accelerate"
LAUNCH = [ACCELERATE, "launch", "--quiet", "--num_processes", "1", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no"]
SMALL = ["--max_steps", "2", "--watch_looks", "2", "--mix_rows", "100", "--watch_prompts", "12", "--watch_samples", "4"]


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


NOWHERE = "/proc/nowhere/out"  # not even root can write there
TYPO = "watch_evry: 3\n"
BASE = ["--model_name_or_path", "src/divwatch/tiny/base"]
WRONG = {  # arguments of a recipe: what its error says
    ("sft.py", "--lerning_rate", "1"): ["did you mean learning_rate?"],
    ("sft.py", "--config", "TYPO"): ["watch_evry", "watch_every"],
    ("sft.py", "--config", "configs/none.yaml"): ["config 'configs/none.yaml' is not there"],
    ("sft.py", "--max_steps", "many"): ["invalid int value"],
    ("dpo.py", "--model_name_or_path", "runs/nowhere/sft"): ["'runs/nowhere/sft' is not there"],
    ("dpo.py", "--model_name_or_path", "tests"): ["'tests' holds no config.json"],
    ("sft.py", "--output_dir", NOWHERE): ["cannot be written"],
    ("sft.py", "--watch_every", "0"): ["watch_every is 0"],
    ("sft.py", "--watch_panel", "EMPTY"): ["has no prompts"],
    ("sft.py", "--mix", "tiny/nothing"): ["unknown mix 'tiny/nothing'"],
    ("sft.py", *BASE, "--mix", "think_sft"): ["hub set allenai/Dolci-Think-SFT-7B cannot be read"],
    ("dpo.py", *BASE, "--mix", "think_dpo", "--mix_drop", "Reddit"): [
        "unknown source 'Reddit': the sources are UltraFeedback"
    ],
}
# Importing TRL takes longer than all these mistakes: one process runs each recipe as `python recipes/sft.py ...` would.
RUN_ALL = """
import contextlib, io, json, runpy, sys, traceback
ended = []
for recipe, *arguments in json.load(sys.stdin):
    sys.argv, status = [f"recipes/{recipe}", *arguments], 0
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            runpy.run_path(f"recipes/{recipe}", run_name="__main__")
        except SystemExit as exit:
            status = exit.code
        except BaseException:
            status = traceback.print_exc() or 1
    ended.append([status, errors.getvalue()])
print("\\n" + json.dumps(ended))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """{arguments: (exit status, standard error)} of every wrong command."""
    folder = tmp_path_factory.mktemp("wrong")
    files = {"EMPTY": folder / "empty.jsonl", "TYPO": folder / "mine.yaml"}
    files["EMPTY"].touch()
    files["TYPO"].write_text((ROOT / "configs/tiny/instruct/sft.yaml").read_text() + TYPO)
    commands = [[str(files.get(word, word)) for word in words] + ["--report_to", "none"] for words in WRONG]
    for number, words in enumerate(commands):
        words += [] if "--output_dir" in words else ["--output_dir", str(folder / f"out-{number}")]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(commands),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(WRONG, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_input_is_one_line_with_the_fix(words, ended):
    status, stderr = ended[words]
    assert status == 2, stderr[-2000:]
    (error,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    for expected in WRONG[words]:
        assert expected in error
    assert "Traceback" not in stderr


def test_import_and_help_load_nothing_heavy():
    heavy = ("torch", "transformers", "wandb", "trl", "numpy")
    code = f"import sys, divwatch, divwatch.cli; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
