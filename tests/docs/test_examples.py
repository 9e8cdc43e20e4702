"""README and docs: a page's blocks marked `run` are run in order in one folder; links and anchors exist.

```python run=train.py``` is written to that file, ```python run``` and ```bash run``` are run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|bash) run(?:=(\S+))?\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(#[^)]*)?\)")
ANCHOR = re.compile(r"\]\((?!https?:)([^)#]*)#([^)]+)\)")


def blocks(page):
    return [(language, name, code) for language, name, code in BLOCK.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_the_examples_of_a_page_run(page, tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    for language, name, code in blocks(page):
        if name:
            (tmp_path / name).write_text(code)
            continue
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_quick_start_is_whole():
    kinds = [(language, bool(name)) for language, name, _ in blocks(ROOT / "docs" / "quickstart.md")]
    assert ("python", True) in kinds
    assert kinds.count(("bash", False)) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    missing = [link for link, _ in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_anchors_name_a_heading(page):
    missing = [
        f"{file}#{anchor}"
        for file, anchor in ANCHOR.findall(page.read_text(encoding="utf-8"))
        if anchor not in anchors((page.parent / file) if file else page)
    ]
    assert missing == []


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen and page.is_file():
            seen.add(page)
            links = [link for link, _ in LINK.findall(page.read_text(encoding="utf-8")) if link.endswith(".md")]
            waiting += [(page.parent / link).resolve() for link in links]
    assert [page.name for page in PAGES if page.resolve() not in {p.resolve() for p in seen}] == []


def test_every_setting_and_command_of_the_docs_exists():
    """Names after `watch_` and commands after `divwatch` in code spans and blocks."""
    import typer

    from divwatch import cli
    from divwatch.config import WatchConfig

    known = set(WatchConfig().as_dict())
    commands = set(typer.main.get_command(cli.app).commands) | {"command"}
    elsewhere = {"compare", "ablate"}  # documented where they are made
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert {n for n in re.findall(r"\bwatch_([a-z_]+)\b(?!\()", text) if n not in known} <= {"rollouts"}, page.name
        said = set(re.findall(r"(?:^    |`)divwatch ([a-z]+)", text, re.M))
        assert said - commands <= elsewhere | {"step"}, page.name
