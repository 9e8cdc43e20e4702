"""The container of a sandboxed process, as a bubblewrap command.

It is empty but for the interpreter's own files (read-only) and a small scratch directory; it has no network, no
environment, its own user, process and IPC namespaces, no capabilities, and few system calls (`seccomp.py`). It ends when
this process dies.
"""

from __future__ import annotations

import os
import py_compile
import shutil
import sys
import sysconfig
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import IO

from divwatch.verify.sandbox import seccomp

RUNNER = Path(__file__).with_name("runner.py")
_INSIDE = "/runner.pyc"
_STDLIB = ("stdlib", "platstdlib")


def find_bubblewrap() -> tuple[str | None, str]:
    """(path of bubblewrap, ""), or (None, why it cannot work here)."""
    if not sys.platform.startswith("linux"):
        return None, f"bubblewrap needs Linux, this is {sys.platform}"
    path = shutil.which("bwrap")
    if path is None:
        return None, "bubblewrap is not installed"
    if seccomp.bpf_filter() is None:
        return None, "no list of system calls for this processor"
    return path, ""


def in_container(path: str, scratch_bytes: int, arguments: list[str], stack: ExitStack) -> tuple[list[str], list[int]]:
    """(command that starts the runner with these arguments in a container, descriptors to pass to it).

    path: of bubblewrap. The files behind the descriptors are closed when `stack` is left.
    """
    code, rules = (stack.enter_context(unnamed_file(c)) for c in (_compiled_runner(), seccomp.bpf_filter() or b""))
    runner = ["--ro-bind-data", str(code.fileno()), _INSIDE, "--remount-ro", "/", "--seccomp", str(rules.fileno())]
    command = [*_bubblewrap(path, scratch_bytes), *runner, *interpreter(), _INSIDE, *arguments]
    return command, [code.fileno(), rules.fileno()]


def unnamed_file(content: bytes) -> IO[bytes]:
    """An open file with this content and no name: nothing but its descriptor gives access to it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(content)
    file.seek(0)
    return file


@cache
def interpreter() -> tuple[str, ...]:
    """The interpreter under this environment, without the environment: no packages, no start-up files of the user."""
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return (executable, "-I", "-S", "-B", "-X", "utf8")


def interpreter_files() -> list[str]:
    """The files that the interpreter needs: itself, its standard library and shared libraries.

    Nothing of /etc but the index of libraries, no /proc, no home.
    """
    base = dict.fromkeys(("base", "platbase", "installed_base", "installed_platbase"), sys.base_prefix)
    places = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", interpreter()[0]]
    places += [os.path.join(sys.base_prefix, "lib"), *(sysconfig.get_path(name, vars=base) for name in _STDLIB)]
    places = [place for place in dict.fromkeys(places) if os.path.exists(place)]
    return [place for place in places if not any(place.startswith(f"{other}/") for other in places)]


@cache
def _compiled_runner() -> bytes:
    """runner.py, compiled once: it starts twice per program, and compiling it takes as long as bubblewrap does."""
    with tempfile.TemporaryDirectory(prefix="divwatch-") as folder:
        path = py_compile.compile(str(RUNNER), os.path.join(folder, "runner.pyc"), doraise=True)
        return Path(path or "").read_bytes()


@cache
def _bubblewrap(path: str, scratch_bytes: int) -> tuple[str, ...]:
    options = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    options += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    options += ["--size", str(scratch_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for place in interpreter_files():
        options += ["--ro-bind", place, place]
    options += ["--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"]
    return (path, *options)
