"""The cost of running programs in the sandbox: CPU time per program, beside the bare interpreter's start, wall time, memory.

    python benchmarks/sandbox.py [PROGRAMS]

Both processes of a program are counted: the one that runs it and the one that runs its tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import time

from divwatch.verify.sandbox import Job, run_programs
from divwatch.verify.sandbox.container import interpreter

PR_SET_CHILD_SUBREAPER = 36


def children_cpu() -> float:
    """CPU seconds of all ended children, including processes inside the sandboxes, which bubblewrap leaves to this process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    run_programs([])  # fails where there is no sandbox
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = children_cpu()
    for _ in range(50):
        subprocess.run([*interpreter(), "-c", "pass"], check=True, env={})
    bare = (children_cpu() - before) / 50

    jobs = [
        Job(
            sources=[f"def f(xs):\n    return sorted(xs)[: {i % 7}]\n"],
            tests=[f"assert f([3, 1, 2, 5, 4, 9, 8]) == [1, 2, 3, 4, 5, 8, 9][: {i % 7}]"],
            names=["f"],
        )
        for i in range(n)
    ]
    before, own, started = children_cpu(), own_cpu(), time.monotonic()
    outcomes = run_programs(jobs)
    wall = time.monotonic() - started
    time.sleep(0.5)  # the last sandboxes end
    children, ours = children_cpu() - before, own_cpu() - own
    assert all(o.passed for o in outcomes), [o for o in outcomes if not o.passed][:3]
    each = 1000 * (children + ours) / n
    print(f"{n} programs, all correct: {wall:.1f} s wall")
    print(f"CPU a program: {each:.1f} ms ({1000 * ours / n:.1f} of them in the caller)")
    print(f"a bare interpreter's start: {1000 * bare:.1f} ms; over it: {each - 1000 * bare:.1f} ms a program")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak memory: largest process {peak:.0f} MiB, the caller {own_peak():.0f} MiB")


def own_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
