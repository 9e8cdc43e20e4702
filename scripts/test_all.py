"""`make test-all` and `make faults`: run tests and write a dated summary into docs.

python scripts/test_all.py             lint, types, every test: writes docs/test-all.md and docs/reliability.md
python scripts/test_all.py --faults    only tests/faults: writes docs/reliability.md
"""

import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PACKAGES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "datasets", "wandb", "pytest")
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


class Case(NamedTuple):
    """One test: the folder it is in, its module (the family of a fault), and how it ended."""

    folder: str
    module: str
    name: str
    outcome: str
    seconds: float


def main(only_faults):
    results = Path(tempfile.mkdtemp()) / "tests.xml"
    pytest = [sys.executable, "-m", "pytest", "-q", *"-n 2 --dist loadscope --no-loadscope-reorder".split()]
    pytest += ["-m", "slow or not slow", f"--junitxml={results}"]
    if only_faults:
        steps = {"pytest": [*pytest, "tests/faults"]}
    else:
        checks = {
            "ruff check": ["ruff", "check", "."],
            "ruff format": ["ruff", "format", "--check", "."],
            "mypy": ["mypy"],
            "import contracts": ["lint-imports"],
        }
        steps = {name: [BIN / tool, *options] for name, (tool, *options) in checks.items()} | {"pytest": pytest}
    done = {name: timed(command) for name, command in steps.items()}
    cases = read(results)
    faults = [case for case in cases if case.folder == "tests/faults"]
    if not only_faults:
        (ROOT / "docs" / "test-all.md").write_text(page(done, cases), encoding="utf-8")
    if faults:
        place(ROOT / "docs" / "reliability.md", summary(faults))
    return int(any(status for status, _ in done.values()))


def timed(command):
    """(exit status, seconds)."""
    started = time.monotonic()
    return subprocess.run(command, cwd=ROOT, check=False).returncode, time.monotonic() - started


def read(file):
    """Every test of a JUnit file; none if pytest wrote no file."""
    if not file.is_file():
        return []
    cases = []
    for case in ElementTree.parse(file).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        module = case.get("classname", "").split(".")
        folder = "/".join(module[:2] if len(module) > 2 or module[0] != "tests" else module[:1])
        name = f"{case.get('classname')}.{case.get('name')}"
        cases.append(Case(folder, module[-1], name, outcome, float(case.get("time", 0))))
    return cases


def page(done, cases):
    """docs/test-all.md."""
    return "\n".join([
        "# All tests",
        "",
        "After this page you know when the whole project was last checked, and with what result. `make test-all` runs lint,",
        "type checks and every test, including the slow matrices that `make test` leaves out, and writes this page.",
        "",
        f"{when()}; {versions()}; {platform.system()} {'.'.join(platform.release().split('.')[:2])}, {platform.machine()}.",
        "",
        "| step | result | seconds |",
        "|---|---|---|",
        *(f"| {name} | {'passed' if status == 0 else 'FAILED'} | {s:.0f} |" for name, (status, s) in done.items()),
        "",
        f"{tally(cases)}.",
        *failures(cases),
        "",
    ])  # fmt: skip


def summary(faults):
    """The generated part of docs/reliability.md."""
    family = {case: case.module.removeprefix("test_") for case in faults}
    return [f"{when()}; {versions()}.", "", *counts("family", faults, family.get), *failures(faults)]


def tally(cases):
    """'3 passed, 0 failed, 1 skipped'."""
    count = Counter(case.outcome for case in cases)
    return ", ".join(f"{count[outcome]:,} {outcome}" for outcome in ("passed", "failed", "skipped"))


def counts(head, cases, group):
    """A table of outcomes by group, and of all."""
    lines = [f"| {head} | passed | failed | skipped | seconds |", "|---|---|---|---|---|"]
    for name in [*sorted({group(case) for case in cases}), "all"]:
        mine = [case for case in cases if name in (group(case), "all")]
        count = Counter(case.outcome for case in mine)
        seconds = sum(case.seconds for case in mine)
        lines.append(f"| {name} | {count['passed']} | {count['failed']} | {count['skipped']} | {seconds:.0f} |")
    return lines


def failures(cases):
    failed = [case.name for case in cases if case.outcome == "failed"]
    return ["", "Failed:", "", *(f"- `{name}`" for name in failed)] if failed else []


def when():
    """Date and commit; a plus sign marks uncommitted changes."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True)
    return f"{datetime.now(UTC):%Y-%m-%d}, commit {commit.stdout.strip() or 'unknown'}"


def versions():
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)])


def place(file, lines):
    """Replaces the part of a page between the two marks."""
    before, rest = file.read_text(encoding="utf-8").split(BEGIN)
    text = "\n".join([BEGIN, "", *lines, "", END])
    file.write_text(before + text + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main("--faults" in sys.argv[1:]))
