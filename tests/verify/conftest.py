"""What the verifiers' tests share: the shared data, and the sandbox or the reason that there is none."""

import json
import os
from pathlib import Path

import pytest

from divwatch.verify.sandbox.bubblewrap import unavailable

# Where bubblewrap is part of the set-up (.ci/run), a missing sandbox fails instead of skipping.
_MUST_RUN = os.environ.get("DIVWATCH_REQUIRE_SANDBOX") == "1"


@pytest.fixture(scope="session")
def sandbox():
    problem = unavailable()
    if problem is not None and not _MUST_RUN:
        pytest.skip(f"no sandbox here: {problem}")
    assert problem is None, problem


@pytest.fixture(scope="session")
def shared():
    """Rows of a shared JSONL file by its path: `shared("tasks/humaneval.jsonl")`."""
    folder = os.environ.get("DIVWATCH_TEST_DATA")

    def rows(path):
        if not folder or not (Path(folder) / path).is_file():
            pytest.skip(f"{path} is not there: set DIVWATCH_TEST_DATA to the shared data")
        return [json.loads(line) for line in (Path(folder) / path).open(encoding="utf-8")]

    return rows
