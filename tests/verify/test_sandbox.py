"""The sandbox holds: nothing gets out, nothing passes that is wrong, everything ends in time, nothing is left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from divwatch.errors import DivwatchError
from divwatch.verify.sandbox import Job, Limits, Outcome, run_programs
from divwatch.verify.sandbox.container import interpreter_files
from tests.verify import hostile

SHORT = Limits(cpu_seconds=1, wall_seconds=5)
SQUARE = ["assert f(2) == 4", "assert f(3) == 9"]


def job(source, tests=SQUARE, names=("f",)):
    return Job([source], list(tests), list(names))


def living():
    """Command lines of sandboxes, and of what runs inside them, that belong to this test process or to nobody any more.

    [(pid, command line)]. Those of other processes, such as a test running beside this one, are theirs.
    """
    return [
        (process.pid, " ".join(process.info["cmdline"]))
        for process in psutil.process_iter(["cmdline"])
        if _is_sandbox(process) and _owner(process) in (None, os.getpid())
    ]


def _is_sandbox(process):
    return any("/runner.py" in word for word in process.info["cmdline"] or ())


def _owner(process):
    """The test process above a sandbox; None if only sandboxes and the system's own process are above it."""
    try:
        above = [parent for parent in process.parents() if parent.pid != 1]
        others = [parent.pid for parent in above if not any("/runner.py" in word for word in parent.cmdline())]
    except psutil.Error:  # it has just ended
        return -1
    return os.getpid() if os.getpid() in others else next(iter(others), None)


def assert_nothing_left(before):
    """Once the sandboxes' ends have been seen through, a moment later."""
    until = time.monotonic() + 5
    while left := [p for p in living() if p not in before]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


@pytest.mark.usefixtures("sandbox")
class TestHonestPrograms:
    def test_right_ones_pass_and_wrong_ones_do_not(self):
        right, wrong, broken = run_programs(
            [job("def f(x):\n    return x * x"), job("def f(x):\n    return 2 * x"), job("def f(x:")]
        )
        assert right == Outcome(True, "")
        assert wrong.passed is False
        assert "AssertionError" in wrong.reason
        assert broken.passed is False
        assert "SyntaxError" in broken.reason

    @pytest.mark.parametrize(
        "value",
        [
            "None", "True", "-3", "10 ** 400", "0.1", "float('inf')", "1 + 2j", "'ü\\n\\x00'", "b'\\xff'", "range(1, 9, 2)",
            "[1, (2, {3}), {'a': frozenset({4})}]", "{(1, 2): [3], None: {}}", "__import__('collections').Counter('aab')",
            "__import__('collections').OrderedDict(b=1, a=2)", "__import__('enum').IntEnum('E', 'A B').B",
        ],
    )  # fmt: skip
    def test_results_of_every_plain_kind_arrive_as_they_are(self, value):
        tests = [f"expected = {value}", "assert f() == expected", "assert g(expected)"]
        source = f"def f():\n    return {value}\ndef g(given):\n    return given == {value}"
        assert run_programs([job(source, tests, ["f", "g"])]) == [Outcome(True, "")]

    def test_iterators_arrive_as_iterators(self):
        source = "def f(x):\n    yield from range(x)\ndef g(xs):\n    return map(str, xs)"
        tests = ["assert list(f(3)) == [0, 1, 2]", "assert next(g([7])) == '7'", "assert f(3) != [0, 1, 2]"]
        assert run_programs([job(source, tests)])[0].passed

    def test_objects_of_the_program_can_be_built_and_handed_back(self):
        """As in MBPP's trees, where the tests build what the program defines."""
        source = """
            class Node:
                def __init__(self, value):
                    self.value, self.left = value, None
            def depth(node):
                return 0 if node is None else 1 + depth(node.left)
        """
        tests = ["root = Node(1)\nroot.left = Node(2)", "assert depth(root) == 2", "assert root.left.value == 2"]
        assert run_programs([job(textwrap.dedent(source), tests, ["Node", "depth"])])[0] == Outcome(True, "")

    def test_exceptions_of_the_program_reach_the_tests(self):
        source = "def f(x):\n    raise ValueError('odd')"
        tests = ["try:\n    f(1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'odd'"]
        assert run_programs([job(source, tests)])[0].passed

    def test_it_may_write_to_its_scratch_and_use_asyncio(self):
        source = """
            import asyncio
            def f(x):
                open("/tmp/a", "w").write(str(x))
                async def read():
                    return int(open("/tmp/a").read())
                return asyncio.run(read()) ** 2
        """
        assert run_programs([job(textwrap.dedent(source))])[0] == Outcome(True, "")

    def test_the_tests_keep_their_own_meaning_of_names(self):
        source = "import math\nmath.isclose = lambda *a: True\ndef set(x):\n    return 1\ndef f(x):\n    return 7"
        for test in ("assert set([f(1)]) == set([1])", "assert math.isclose(f(1), 8)"):
            assert run_programs([job(source, [test])])[0].passed is False

    def test_tests_at_fault_say_nothing_of_the_program(self):
        good = "def f(x):\n    return x * x"
        for tests in (["assert f("], ["assert f(object()) == 1"]):
            verdict = run_programs([job(good, tests)])[0]
            assert verdict.passed is None
            assert "tests" in verdict.reason

    def test_many_at_once_keep_their_order(self):
        jobs = [job(f"def f(x):\n    return x * x + {i % 3}") for i in range(30)]
        assert [v.passed for v in run_programs(jobs)] == [i % 3 == 0 for i in range(30)]


@pytest.mark.usefixtures("sandbox")
class TestHostilePrograms:
    @pytest.mark.parametrize("name", hostile.FAKES)
    def test_none_fakes_a_pass(self, name):
        verdict = run_programs([job(hostile.FAKES[name])], SHORT)[0]
        assert verdict.passed is False, verdict

    @pytest.mark.parametrize("name", hostile.ESCAPES)
    def test_none_escapes(self, name):
        before = living()
        with socket.create_server(("127.0.0.1", 0)) as server:
            constants = f"HERE = {__file__!r}\nPORT = {server.getsockname()[1]}\nTESTER = {os.getpid()}\n"
            worked = job(
                constants + hostile.ESCAPES[name], ["got = f()\nassert got, 'held'\nraise KeyError(repr(got))"]
            )
            verdict = run_programs([worked], SHORT)[0]
        assert "KeyError" not in verdict.reason, verdict
        assert verdict.passed is False, verdict
        assert_nothing_left(before)

    @pytest.mark.parametrize("name", hostile.HARMLESS)
    @pytest.mark.usefixtures("no_sandbox")
    def test_the_attempts_do_work_where_there_is_no_sandbox(self, name):
        with socket.create_server(("127.0.0.1", 0)) as server:
            constants = (
                f"HERE = {__file__!r}\nPORT = {server.getsockname()[1]}\nimport os\nos.environ['A_SECRET'] = '1'\n"
            )
            worked = job(
                constants + hostile.ESCAPES[name], ["got = f()\nassert got, 'held'\nraise KeyError(repr(got))"]
            )
            verdict = run_programs([worked], SHORT, unsafe_code=True)[0]
        assert "KeyError" in verdict.reason, verdict

    @pytest.mark.parametrize("name", hostile.GREEDY)
    def test_each_ends_within_its_limits(self, name):
        before, started = living(), time.monotonic()
        assert run_programs([job("def f(x):\n    return x * x")])[0].passed
        honest, started = time.monotonic() - started, time.monotonic()
        verdict = run_programs([job(hostile.GREEDY[name])], SHORT)[0]
        assert verdict.passed is False, verdict
        # Starting and ending the sandboxes takes 0.2 s on a quiet machine; a busy one is allowed what it needs just now.
        assert time.monotonic() - started < SHORT.wall_seconds + 2 + 5 * honest
        assert_nothing_left(before)

    def test_none_harms_the_others_that_run_beside_it(self):
        good = "def f(x):\n    return x * x"
        harmful = [
            hostile.ESCAPES["signal the parent"] + "\nf()",
            hostile.GREEDY["memory bomb"],
            hostile.ESCAPES["fork bomb"],
        ]
        constants = f"TESTER = {os.getpid()}\n"
        jobs = [job(constants + source) for bad in harmful for source in (good, bad, good)]
        assert [v.passed for v in run_programs(jobs, SHORT, workers=6)] == [True, False, True] * 3


@pytest.mark.usefixtures("sandbox")
def test_sandboxes_end_with_the_process_that_started_them():
    before = living()
    code = (
        "from divwatch.verify.sandbox import Job, Limits, run_programs\n"
        "jobs = [Job(['import time\\nprint(1)\\ntime.sleep(100)'], ['f()'], ['f'])] * 2\n"
        "run_programs(jobs, Limits(wall_seconds=100))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 20
    while len([p for p in living() if p not in before]) < 4:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_nothing_left(before)


@pytest.mark.usefixtures("sandbox")
def test_only_the_interpreters_files_are_in_sight():
    source = "import os\ndef f():\n    return sorted(os.listdir('/')), sorted(os.listdir('/dev')), os.listdir('/tmp')"
    verdict = run_programs([job(source, ["raise KeyError(str(f()))"])])[0]
    seen = re.findall(r"'([\w.]+)'", verdict.reason)
    top = {Path(place).parts[1] for place in (*interpreter_files(), "/dev", "/tmp", "/runner.pyc")}
    assert set(seen) == top | {"null", "urandom"}


@pytest.mark.usefixtures("no_sandbox")
def test_without_a_sandbox_code_is_refused_with_the_fix():
    with pytest.raises(DivwatchError, match=r"apt-get install bubblewrap.*watch_unsafe_code: true") as error:
        run_programs([job("def f(x):\n    return x * x")])
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("no_sandbox")
def test_unsafe_code_runs_without_one_within_the_limits_of_a_process():
    jobs = [job("def f(x):\n    return x * x"), job("def f(x):\n    return 1"), job(hostile.GREEDY["endless loop"])]
    assert [v.passed for v in run_programs(jobs, SHORT, unsafe_code=True)] == [True, False, False]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="priorities of threads are Linux's")
def test_the_callers_own_priority_stays():
    before = os.getpriority(os.PRIO_PROCESS, 0)
    run_programs([job("def f(x):\n    return x * x")], unsafe_code=True)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
