"""Signals: a training that is ended leaves its record, and no process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from divwatch.store.run_directory import RunDirectory
from tests.faults.test_scoring import hostile_panel  # noqa: F401 -- a fixture
from tests.faults.test_storage import child_environment
from tests.faults.undisturbed import cell

PROGRAM = str(Path(__file__).with_name("program.py"))
# Two programs that never end, in sandboxes, each look.
ENDLESS = """from divwatch.verify.sandbox import Job, Limits, run_programs
job = Job(["def f(x):\\n    while True: pass"], ["f(1)"], ["f"])
run_programs([job, job], Limits(cpu_seconds=1000, wall_seconds=1000))"""


def start(out, panel, *options, env=None):
    command = [sys.executable, PROGRAM, str(out), panel, *options]
    environment = (
        child_environment() | {"PYTHONPATH": os.pathsep.join([str(Path(panel).parent), *sys.path])} | (env or {})
    )
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def wait_for(what, seconds=60):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return found


def sandboxes(process):
    """All that descends from the training, once programs run in sandboxes."""
    assert process.poll() is None, process.stdout.read()[-2000:]
    found = psutil.Process(process.pid).children(recursive=True)
    names = []
    for child in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(child.name())
    return found if "bwrap" in names and len(found) >= 4 else None


SIGNALS = [
    cell("SIGTERM while code is judged in sandboxes", signal.SIGTERM, []),
    cell("SIGINT while code is judged in sandboxes", signal.SIGINT, [], slow=True),
    cell("SIGHUP while code is judged in sandboxes", signal.SIGHUP, [], slow=True),
    cell("SIGKILL while code is judged in sandboxes", signal.SIGKILL, [], slow=True),
    cell("SIGTERM with a grace period of 10 s, after which SIGKILL", signal.SIGTERM, ["grace"], slow=True),
]


@pytest.mark.limit(240)
@pytest.mark.parametrize(("which", "options"), SIGNALS)
def test_a_training_that_is_ended(tmp_path, hostile_panel, which, options):  # noqa: F811
    """It ends at once, its scoring process and sandboxes are gone, what was sampled is stored and scored on resume."""
    from divwatch.errors import DivwatchError
    from divwatch.verify.sandbox import run_programs

    try:
        run_programs([])
    except DivwatchError as error:
        pytest.skip(f"no sandbox: {error}")
    panel = hostile_panel(ENDLESS)
    out = tmp_path / "out"
    process = start(out, panel, "long", *options)
    family = wait_for(lambda: sandboxes(process), 120)
    sent = time.monotonic()
    process.send_signal(which)
    if options:
        wait_for(lambda: list(out.glob("checkpoint-*/trainer_state.json")))
        time.sleep(max(0.0, sent + 10 - time.monotonic()))
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, f"left behind: {[p.cmdline() for p in alive]}"
    store = RunDirectory.of(out)
    assert len(store.completions(0)) == 24
    assert not list(out.rglob("*.tmp"))
    hostile_panel("return [1.0] * len(completions)")
    again = start(out, panel)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said[-2000:]
    assert store.looks()[0]["status"] == "ok"


@pytest.mark.slow
def test_no_wandb(tmp_path, hostile_panel):  # noqa: F811
    """The run directory alone holds the record."""
    process = start(tmp_path / "out", hostile_panel("return [1.0] * len(completions)"), "no_wandb")
    said, _ = process.communicate(timeout=110)
    assert process.returncode == 0, said[-2000:]
    looks = [(look["step"], look["status"]) for look in RunDirectory.of(tmp_path / "out").looks()]
    assert looks == [(step, "ok") for step in range(4)]


def test_secrets(tmp_path, hostile_panel):  # noqa: F811
    """No key is in the run directory, in what is printed, or in a sandbox's environment."""
    names = ["WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "DIVWATCH_JUDGE_KEY"]
    keys = {name: f"canary-{name.lower()}-0123456789abcdef0123456789" for name in names}
    body = (
        "from divwatch.verify.sandbox import Job, run_programs\n"
        "leak = 'import os\\ndef f():\\n    return sorted(os.environ)'\n"
        'test = \'assert not [n for n in f() if n not in ("LC_CTYPE", "PWD")], f()\'\n'
        "return [float(v.passed is True) for v in run_programs([Job([leak], [test], ['f'])] * len(completions))]"
    )
    process = start(tmp_path / "out", hostile_panel(body), env=keys)
    said, _ = process.communicate(timeout=110)
    assert process.returncode == 0, said[-2000:]
    store = RunDirectory.of(tmp_path / "out")
    assert all(row["correct"] for row in store.completions(1) if row["usable"]), (
        "a sandbox saw its parent's environment"
    )
    from typer.testing import CliRunner

    from divwatch.cli import app

    page = CliRunner().invoke(app, ["report", str(tmp_path / "out")])
    assert page.exit_code == 0, page.output
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".py"]
    for key in keys.values():
        assert key.encode() not in said
        assert key not in page.output
        assert not [path for path in files if key.encode() in path.read_bytes()]
