"""What became of every declared fault, for the table of docs/reliability.md.

A test says which fault it injects with `@pytest.mark.fault("what is injected")`, its module's FAMILY says of what kind, the
first sentence of its docstring is what must hold, and what it tells the fixture `saw` is what was seen. `pytest --faults
FILE` writes all that as JSON.
"""

import json
import re
from pathlib import Path

import pytest

_found: dict[str, dict] = {}


def pytest_addoption(parser):
    parser.addoption("--faults", metavar="FILE", help="write what became of every declared fault to FILE")


def cell(injected, *values, slow=False):
    """A parameter set that is a fault of its own."""
    name = re.sub(r"\W+", "-", injected.lower()).strip("-")
    marks = [pytest.mark.fault(injected), *([pytest.mark.slow] if slow else [])]
    return pytest.param(*values, id=name[:60], marks=marks)


def pytest_runtest_setup(item):
    mark = item.get_closest_marker("fault")
    if mark is not None:
        promise = " ".join((item.function.__doc__ or "").split()).split(". ")[0].rstrip(".")
        told = {"family": mark.kwargs.get("family") or item.module.FAMILY, "injected": mark.args[0], "promise": promise}
        item.user_properties.append(("fault", told | {"slow": item.get_closest_marker("slow") is not None}))


def pytest_runtest_logreport(report):
    told = dict(report.user_properties)
    if "fault" not in told:
        return
    row = _found.setdefault(report.nodeid, told["fault"] | {"outcome": "held", "seconds": 0.0, "saw": ""})
    row["seconds"] += report.duration
    row["saw"] = told.get("saw", row["saw"])
    if report.skipped:
        row["outcome"] = f"not run: {report.longrepr[2].removeprefix('Skipped: ')}"
    elif report.failed:
        row["outcome"] = "did not hold"


def pytest_sessionfinish(session):
    path = session.config.getoption("--faults")
    if path and not hasattr(session.config, "workerinput"):
        Path(path).write_text(json.dumps(_found, indent=1))


@pytest.fixture
def saw(record_property, tmp_path):
    """`saw(text)`: what the test saw, in a few words, for the table; its own folder is `OUT` there."""
    return lambda text: record_property("saw", str(text).replace(str(tmp_path), "OUT"))
