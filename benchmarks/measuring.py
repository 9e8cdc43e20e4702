"""Shared by the benchmarks: timing several ways in turn, peak memory, a description of the machine, results for the page."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = "torch transformers trl accelerate peft numpy vendi-score diversity river ruptures vllm".split()


@dataclass
class Result:
    """The result of a benchmark. lines: Markdown for the page. ratios: by name, larger is better, compared with the
    baseline. failed: the bounds that were missed."""

    lines: list[str] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def add(self, *lines: str) -> None:
        self.lines += lines

    def bound(self, said: str, holds: bool) -> None:
        """Adds a line to the page, and a failure if the bound is missed."""
        if not holds:
            self.failed.append(said)
        self.lines.append(f"- {said}: {'yes' if holds else '**no**'}")


def options(text: str | None, *more: Callable[[argparse.ArgumentParser], Any]) -> argparse.Namespace:
    """The command line shared by all benchmarks: --json FILE saves the result for the page."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write lines and ratios to this file, for bench.py")
    for add in more:
        add(parser)
    return parser.parse_args()


def publish(result: Result, file: Path | None) -> int:
    """Prints and saves the result. Returns the exit status: 1 if a bound was missed."""
    print("\n".join(result.lines))
    for missed in result.failed:
        print(f"missed: {missed}", file=sys.stderr)
    if file:
        file.write_text(json.dumps({"lines": result.lines, "ratios": result.ratios, "failed": result.failed}, indent=1))
    return int(bool(result.failed))


def place(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replaces the part of a page between `<!-- name: begin -->` and `<!-- name: end -->` by `lines`."""
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        sys.exit(f"{page} has no marks {begin} and {end}: add them where the results belong")
    before, after = text.split(begin)[0], text.split(end)[1]
    page.write_text("\n".join([before + begin, "", *lines, "", end]) + after, encoding="utf-8")


# timing


def in_turn(
    ways: Mapping[str, Callable[[], Any]], rounds: int, once: Sequence[str] = (), device: str = "cpu"
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """(seconds of each way by round, MiB of each in its first round). Ways run in turn, so that load on the machine affects
    all of them; those named in `once` run in the first round only."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, float] = {}
    for turn in range(rounds):
        for name, way in ways.items():
            if turn and name in once:
                continue
            peak = peak_mib(lambda way=way, name=name: found[name].append(seconds(way)), device)
            peaks.setdefault(name, peak)
            said = f"{name}: {found[name][-1]:.2f} s" + (f", round {turn + 1} of {rounds}" if rounds > 1 else "")
            print(said, file=sys.stderr, flush=True)
    return found, peaks


def seconds(way: Callable[[], Any]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median [least, most]; a single value without brackets.

    >>> spread([1.0, 2.0, 4.0]), spread([3.0])
    ('2.00 [1.00, 4.00]', '3.00')
    """
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def peak_mib(way: Callable[[], Any], device: str = "cpu") -> float:
    """Increase of peak memory while `way` runs, in MiB: of this process, or on a GPU of torch's allocator.

    NaN if the system does not report it (read from Linux's /proc).
    """
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status = Path("/proc/self/status")
    if not status.is_file():
        way()
        return float("nan")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what an earlier way has freed must not hide what this one takes
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls back to what is resident now
    before = _kilobytes(status, "VmRSS")
    way()
    return (_kilobytes(status, "VmHWM") - before) / 1024


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{name}:"))


# words


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table.

    >>> table(["a", "b"], [[1, 2]])
    ['| a | b |', '|---|---|', '| 1 | 2 |', '']
    """
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in [head, *rows]]
    return [lines[0], "|---" * len(head) + "|", *lines[1:], ""]


def machine() -> str:
    """One line: cores, processor, memory and system."""
    import psutil

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = named[0] if named else model
    memory = psutil.virtual_memory().total / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores of {model}, {memory:.0f} GiB, {platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    )


def versions() -> str:
    """Versions of Python and of the compared packages that are installed."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
