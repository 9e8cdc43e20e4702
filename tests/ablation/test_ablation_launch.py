"""Running a plan: failures are reported and the rest continues, finished runs are kept, interrupted ones resume.

The launches are real ones by accelerate; most train nothing but a script that writes down how it was called.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from divwatch.ablation.launch import FINISHED, LOG, RECORD, last_checkpoint
from divwatch.store.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
WHOLE, CUT = '{"global_step": 9}\n', '{"global_st'

SCRIPT = """
import sys, time
from pathlib import Path
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = Path(options["--output_dir"])
with (out / "calls").open("a") as calls:
    calls.write(options.get("--resume_from_checkpoint", "anew") + "\\n")
if options.get("--mix_drop") == "b" and not Path(sys.argv[0]).with_name("fixed").exists():
    print("error: source 'b' is broken: fix it", file=sys.stderr)
    sys.exit(2)
if options.get("--mix_drop") == "slow":
    Path(sys.argv[0]).with_name("started").touch()
    time.sleep(300)
"""


def write_plan(folder, **changes):
    (folder / "train.py").write_text(textwrap.dedent(SCRIPT))
    (folder / "base.yaml").write_text("mix: mine.jsonl\n")
    plan = {
        "recipe": str(folder / "train.py"), "config": str(folder / "base.yaml"), "output_dir": str(folder / "out"),
        "leave_one_out": ["b"], "seeds": [0], "launch": {"config_file": str(ROOT / "configs/accelerate/cpu.yaml")},
    }  # fmt: skip
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan | changes))
    return folder / "plan.yaml"


def command(*words):
    return [sys.executable, "-m", "divwatch.cli", *map(str, words)]


def divwatch(*words):
    return subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, timeout=300)


def calls(folder, arm):
    return (folder / "out" / arm / "seed-0" / "calls").read_text().split()


def test_failures_are_reported_and_a_second_call_does_only_what_is_left(tmp_path):
    plan = write_plan(tmp_path, leave_one_out=["b", "c"])
    first = divwatch("ablate", plan, "--json")
    assert first.returncode == 1
    result = {o["arm"]: (o["status"], o["reason"]) for o in json.loads(first.stdout)}
    assert result == {
        "full": ("done", None), "without-b": ("failed", "source 'b' is broken: fix it"), "without-c": ("done", None),
    }  # fmt: skip
    assert "[3/3] without-c seed 0" in first.stderr
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert [a["left_out"] for a in record["arms"]] == [None, "b", "c"]

    (tmp_path / "fixed").touch()
    half = tmp_path / "out/without-b/seed-0"
    for step, whole in ((5, True), (10, True), (15, False)):  # the last one was being written when the run ended
        (half / f"checkpoint-{step}").mkdir()
        if whole:
            (half / f"checkpoint-{step}/trainer_state.json").write_text(WHOLE)
    second = divwatch("ablate", plan)
    assert second.returncode == 0, second.stderr
    assert "3 runs: 1 done, 2 kept, 0 failed" in second.stdout
    assert calls(tmp_path, "full") == ["anew"]
    assert calls(tmp_path, "without-b") == ["anew", str(half / "checkpoint-10")]

    write_plan(tmp_path, leave_one_out=["b", "c"], settings={"max_steps": 7})
    third = divwatch("ablate", plan)
    assert third.returncode == 2
    assert third.stderr.startswith("error: ")
    assert "other settings" in third.stderr


def test_an_interrupt_ends_the_current_run_and_says_how_to_resume(tmp_path):
    plan = write_plan(tmp_path, leave_one_out=["slow"])
    process = subprocess.Popen(command("ablate", plan), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 240
    while not (tmp_path / "started").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "the run did not start"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "stopped after 1 of 2 runs: the same command continues" in stderr
    assert "Traceback" not in stderr
    assert (tmp_path / "out/full/seed-0" / FINISHED).is_file()
    assert not (tmp_path / "out/without-slow/seed-0" / FINISHED).exists()
    assert not _alive(str(tmp_path / "train.py"))


def _alive(script):
    processes = [p for p in Path("/proc").glob("[0-9]*/cmdline") if script.encode() in _read(p)]
    return [p for p in processes if p.parent.name != str(os.getpid())]


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("states", "last"),
    [
        ({}, None),
        ({"checkpoint-9": WHOLE, "checkpoint-10": WHOLE, "checkpoint-x": WHOLE}, "checkpoint-10"),
        ({"checkpoint-9": WHOLE, "checkpoint-10": None}, "checkpoint-9"),
        ({"checkpoint-9": WHOLE, "checkpoint-10": CUT, "checkpoint-11": ""}, "checkpoint-9"),
    ],
)
def test_the_last_checkpoint_is_the_newest_that_is_complete(tmp_path, states, last):
    """A run killed while it saves leaves a checkpoint without a trainer state, or with a part of one."""
    for name, state in states.items():
        (tmp_path / name).mkdir()
        if state is not None:
            (tmp_path / name / "trainer_state.json").write_text(state)
    checkpoint = last_checkpoint(tmp_path)
    assert (checkpoint.name if checkpoint else None) == last


@pytest.mark.slow
def test_two_real_arms_are_trained_and_compared(tmp_path):
    plan = {
        "recipe": "sft", "config": "configs/tiny/instruct/sft.yaml", "output_dir": str(tmp_path / "out"),
        "settings": {
            "mix": "tiny/ablation_sft", "mix_rows": 100, "max_steps": 2, "per_device_train_batch_size": 4, "report_to": "none",
            "watch_every": 2, "watch_prompts": 36, "watch_samples": 4, "watch_max_new_tokens": 24,
        },
        "leave_one_out": ["script"], "launch": {"config_file": "configs/accelerate/cpu.yaml"},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    done = divwatch("ablate", tmp_path / "plan.yaml")
    assert done.returncode == 0, (tmp_path / "out/full/seed-0" / LOG).read_text()[-2000:]
    taken = {}
    for arm in ("full", "without-script"):
        record = RunDirectory.of(tmp_path / "out" / arm / "seed-0")
        assert [(look["step"], look["status"]) for look in record.looks()] == [(0, "ok"), (2, "ok")]
        taken[arm] = {name: s["taken"] for name, s in record.info()["mix"]["sources"].items() if s["taken"]}
    assert taken["full"].keys() - taken["without-script"].keys() == {"script"}
    assert {sum(sources.values()) for sources in taken.values()} == {100}

    compared = divwatch("compare", tmp_path / "out", "--json")
    assert compared.returncode == 0, compared.stderr
    result = json.loads(compared.stdout)
    assert (result["arms"], result["reference"]) == (["full", "without-script"], "full")
    assert {e["name"] for e in result["effects"]} == {"script"}
    assert [m.split(":")[0] for m in result["findings"]] == [
        "diversity (sbert)", "correct-answer diversity (sbert)", "accuracy",
    ]  # fmt: skip
    assert (tmp_path / "out/comparison.png").stat().st_size > 10_000
    assert (tmp_path / "out/comparison.csv").read_text().count("\n") == 1 + len(result["effects"])
