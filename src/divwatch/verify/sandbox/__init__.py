"""Runs programs that a model wrote against tests, without trusting the programs: `run_programs(jobs) -> outcomes`.

Threat model. Trusted are this process, the interpreter, bubblewrap and the kernel, and the data set's tests in what they
say about a program. The program is not trusted: it is any Python code, and training may have taught it to cheat. It may
try to read files, secrets or the tests, to reach the network or other processes, to use up CPU, memory, disk or
processes, to outlive its run, or to make a wrong result pass. All of these are prevented: program and tests run in two
separate bubblewrap containers, joined by one socket, with no network, no environment, hardly any files or system calls,
and hard limits. Not prevented are holes in the kernel or in bubblewrap, a program that recognizes arguments and has
memorized the results, and tests that are too weak. Where bubblewrap does not work nothing is run; with `unsafe_code` only
the limits and the two processes remain.

`run.py` starts and ends the two processes, `container.py` is what a container has, `seccomp.py` the system calls that it
does not have, `runner.py` what runs inside. docs/verifiers.md has the details and how each is tested.
"""

from divwatch.verify.sandbox.job import DEFAULT_LIMITS, Job, Limits, Outcome
from divwatch.verify.sandbox.run import run_programs

__all__ = ["DEFAULT_LIMITS", "Job", "Limits", "Outcome", "run_programs"]
