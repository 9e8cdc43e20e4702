"""What the verifiers' tests share: the shared data, and the sandbox or the reason that there is none."""

import json
import os
from pathlib import Path

import pytest

from divwatch.errors import DivwatchError
from divwatch.verify.sandbox import run_programs

# Where bubblewrap is part of the set-up (.ci/run), a missing sandbox fails instead of skipping.
_MUST_RUN = os.environ.get("DIVWATCH_REQUIRE_SANDBOX") == "1"


@pytest.fixture(scope="session")
def sandbox():
    try:
        run_programs([])
    except DivwatchError as error:
        if _MUST_RUN:
            raise
        pytest.skip(f"no sandbox here: {error}")


@pytest.fixture
def no_sandbox(monkeypatch):
    """As on a machine without bubblewrap."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture(scope="session")
def shared():
    """Rows of a shared JSONL file by its path: `shared("tasks/humaneval.jsonl")`."""
    folder = os.environ.get("DIVWATCH_TEST_DATA")

    def rows(path):
        if not folder or not (Path(folder) / path).is_file():
            pytest.skip(f"{path} is not there: set DIVWATCH_TEST_DATA to the shared data")
        return [json.loads(line) for line in (Path(folder) / path).open(encoding="utf-8")]

    return rows
