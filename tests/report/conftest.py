"""Worlds of run directories, and the pages made from them, shared by the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from divwatch.outputs.report import write_report
from tests.report.worlds import INSTRUCT, THINK, write_lineage


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Think and Instruct, SFT then DPO, as the paper contrasts them."""
    root = tmp_path_factory.mktemp("demo")
    for line, courses in (("think", THINK), ("instruct", INSTRUCT)):
        write_lineage(root, line, courses, tasks=("pair", "word"), prompts=6, looks=5)
    return root


@pytest.fixture(scope="session")
def page(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `demo`, with its figures and tables beside it."""
    return write_report([demo], tmp_path_factory.mktemp("out"))
