"""Child processes answer requests, in time or not at all, and never outlive the process that started them."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from divwatch.errors import DivwatchError
from divwatch.processes import ChildError, ChildProcess

START = 60


@pytest.fixture
def start():
    """`start(server, *arguments)`: a child that is closed after the test."""
    children = []

    def make(server="tests.servers:serve", *arguments, **options):
        children.append(ChildProcess(server, *arguments, **options))
        return children[-1]

    yield make
    for child in children:
        child.close()


@pytest.fixture
def child(start):
    child = start()
    assert child.receive(START) is None
    return child


def gone(pid, seconds=15):
    until = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_replies_come_in_order_and_sending_does_not_wait_for_them(start):
    child = start("tests.servers:serve", "a", {"b": [1.5, None]})
    for i in range(100):
        child.send(["echo", i])
    assert child.receive(START) is None
    assert [child.receive(START) for _ in range(100)] == [["a", {"b": [1.5, None]}, i] for i in range(100)]
    text = "line\nand ü " * 100_000
    assert child.ask(["echo", text], 60)[-1] == text


def test_what_is_printed_is_no_reply(child):
    assert child.ask(["print", 100_000], 30) == [100_000]


def test_a_handler_that_raises_continues_and_wrong_input_keeps_its_message(child):
    with pytest.raises(ChildError, match=r"^ZeroDivisionError: as asked$"):
        child.ask(["raise", "broken"], 30)
    with pytest.raises(DivwatchError, match=r"^as asked$"):
        child.ask(["raise", "wrong"], 30)
    with pytest.raises(ChildError, match="not JSON serializable"):
        child.ask(["set", 1], 30)
    with pytest.raises(TypeError):
        child.send({1, 2})
    assert child.ask(["echo", 1], 30) == [1]


def test_a_server_that_cannot_start_says_why(start):
    with pytest.raises(DivwatchError, match=r"^no such model: choose another$"):
        start("tests.servers:refuse").receive(START)
    with pytest.raises(ChildError, match="planted"):
        start("tests.servers:fail").receive(START)
    with pytest.raises(ChildError, match="ModuleNotFoundError: No module named 'no_such_module'"):
        start("no_such_module:serve").receive(START)


def test_a_child_that_ends_explains_it_every_time_it_is_asked(start):
    child = start(name="test process")
    child.receive(START)
    child.send(["echo", 1])
    child.send(["exit", 3])
    assert child.receive(30) == [1]  # the replies before the end are not lost
    for _ in range(2):
        with pytest.raises(ChildError, match=r"^the test process ended with status 3 \(last words\)$"):
            child.receive(30)
    assert not child.alive


def test_a_request_has_a_time_limit_and_closing_is_bounded(child):
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not reply within 0\.2 s"):
        child.ask(["sleep", 1000], 0.2)
    assert child.alive
    child.send(["echo", "x" * 10_000_000])  # more than a pipe holds, and nobody reads it
    child.close()
    child.close()
    assert not child.alive
    assert time.monotonic() - started < 10
    assert gone(child.pid)


def test_what_the_child_forked_ends_with_it(child):
    child.ask(["fork", 0], 30)
    (forked,) = psutil.Process(child.pid).children()
    child.close()
    assert gone(forked.pid)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("subprocess.Popen", BlockingIOError(11, "Resource temporarily unavailable")),
        ("threading.Thread.start", RuntimeError("can't start new thread")),
        ("tempfile.TemporaryFile", OSError(24, "Too many open files")),
    ],
)
def test_a_process_that_cannot_be_started_behaves_like_one_that_ended(start, monkeypatch, what, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(what, fail)
    child = start(name="test process")
    child.send(["echo", 1])
    with pytest.raises(ChildError, match=rf"test process could not be started .*{error.args[-1]}"):
        child.receive(30)
    assert (child.alive, child.pid) == (False, None)


def test_the_environment_is_the_parents_without_its_launch_and_its_gpus(start, monkeypatch):
    launch = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "ACCELERATE_USE_FSDP", "TORCHELASTIC_RUN_ID", "FSDP_X"]
    for name in [*launch, "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "MINE"]:
        monkeypatch.setenv(name, "7")
    child = start(threads=3, variables={"TOO": "8"})
    child.receive(START)
    others = ["CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "MINE", "TOO", "OMP_NUM_THREADS"]
    found = child.ask(["environment", launch + others], 30)
    assert [found[name] for name in launch] == [None] * len(launch)
    assert [found[name] for name in others] == ["", "7", "7", "8", "3"]
    state = child.ask(["state", None], 30)
    assert state["nice"] == 19
    assert state["session"] == child.pid  # Ctrl-C at the terminal is not for it
    assert state["main"].endswith("processes.py")  # not this program


@pytest.mark.parametrize("server", ["tests.servers:serve", "tests.servers:hold_the_interpreter"])
def test_a_child_ends_with_its_parent_whatever_it_does(server):
    code = f"""
import sys, time
from divwatch.processes import ChildProcess
child = ChildProcess({server!r})
child.receive({START})
child.send(["sleep", 1000])
time.sleep(0.5)
print(child.pid, flush=True)
time.sleep(1000)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.communicate()
    assert gone(pid)


def test_a_fork_of_the_parent_does_not_end_the_child(child):
    fork = os.fork()
    if fork == 0:
        child.close()
        os._exit(0)
    os.waitpid(fork, 0)
    assert child.ask(["echo", 1], 30) == [1]


def test_a_child_ends_with_its_owner():
    child = ChildProcess("tests.servers:serve")
    pid = child.pid
    del child
    assert gone(pid)
