"""`make bench`: runs each benchmark in its own process, writes docs/benchmarks.md, and checks the ratios.

    python benchmarks/bench.py                     all of them, under 20 minutes on two free cores
    python benchmarks/bench.py --only scale        one of them; writes only its section of the page
    python benchmarks/bench.py --keep              all; their ratios become the baseline (benchmarks/baseline.json)

Seconds belong to one machine; ratios within a run carry over. If a ratio is more than a third below the baseline, its
name is printed and the exit status is 1: a change made something slower, or the machine was busy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measuring import ROOT, machine, options, place, versions

PAGE = ROOT / "docs" / "benchmarks.md"
BASELINE = Path(__file__).with_name("baseline.json")
FALL = 1 / 3
PARTS: dict[str, list[str]] = {
    "startup": ["startup.py"],
    "sampling": ["sampling.py"],
    "metrics": ["metrics.py", "--few"],
    "detection": ["detection.py", "--runs", "100", "--beside"],
    "overhead": ["overhead.py"],
    "scale": ["scale.py"],
}


def fallen(baseline: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """One line for each ratio that is now more than a third below the baseline. Names missing in `now` are ignored.

    >>> fallen({"a": 3.0, "b": 3.0, "c": 1.0}, {"a": 2.1, "b": 1.9})
    ['b: 3.00 at the baseline, now 1.90']
    """
    both = [name for name in baseline if name in now]
    return [
        f"{name}: {baseline[name]:.2f} at the baseline, now {now[name]:.2f}"
        for name in both
        if now[name] < (1 - FALL) * baseline[name]
    ]


def run(name: str) -> dict[str, Any]:
    """The result that the benchmark writes. Raises CalledProcessError if it did not finish."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        script, *flags = PARTS[name]
        command = [sys.executable, str(Path(__file__).with_name(script)), *flags, "--json", str(file)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if not file.is_file():
            raise subprocess.CalledProcessError(done.returncode, command)
        return json.loads(file.read_text()) | {"seconds": time.monotonic() - started}


def main() -> int:
    chosen = options(
        __doc__,
        lambda parser: parser.add_argument("--only", choices=PARTS, help="one of them"),
        lambda parser: parser.add_argument("--keep", action="store_true", help="make this run the baseline"),
    )
    names = [chosen.only] if chosen.only else list(PARTS)
    found = {}
    for name in names:
        print(f"== {name}", file=sys.stderr, flush=True)
        found[name] = run(name)
        command = f"`python benchmarks/{' '.join(PARTS[name])}`, {datetime.now(UTC):%Y-%m-%d}, {found[name]['seconds']:.0f} s."
        place(PAGE, name, [*found[name]["lines"], "", command])
    ratios = {key: value for result in found.values() for key, value in result["ratios"].items()}
    kept = json.loads(BASELINE.read_text()) if BASELINE.is_file() else {}
    wrong = [f"missed: {name}: {said}" for name, result in found.items() for said in result["failed"]]
    wrong += [f"fallen by more than a third: {line}" for line in fallen(kept, ratios)]
    if not chosen.only:  # a renamed ratio must fail, not pass for lack of a comparison
        wrong += [f"gone: {name} is in the baseline and was not measured" for name in kept if name not in ratios]
        minutes = sum(result["seconds"] for result in found.values()) / 60
        place(
            PAGE,
            "machine",
            [
                f"{machine()}; {versions()}. All of `make bench`: {minutes:.0f} minutes.",
                "",
                *verdict(wrong, chosen.keep),
            ],
        )
    print("\n".join(wrong), file=sys.stderr)
    if chosen.keep and not chosen.only:
        BASELINE.write_text(json.dumps({name: round(value, 3) for name, value in ratios.items()}, indent=1) + "\n")
    return int(bool(wrong))


def verdict(wrong: list[str], kept: bool) -> list[str]:
    """The page's lines about the whole run."""
    fine = "it is the baseline" if kept else "no ratio fallen by more than a third below the baseline"
    return [f"- {line}" for line in wrong] or [f"Nothing missed; {fine}."]


if __name__ == "__main__":
    sys.exit(main())
