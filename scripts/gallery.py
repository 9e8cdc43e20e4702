"""Makes the pictures of docs/: the report in headless Chromium, its figures, and `divwatch top`: python scripts/gallery.py RUNS

RUNS: the folder of `make demo`. Needs `chromium` on the path and Pillow; writes docs/images.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

from divwatch.outputs.report import write_report
from divwatch.outputs.snapshot import table
from divwatch.outputs.top import Follower

IMAGES = Path(__file__).parent.parent / "docs" / "images"
CHROMIUM = "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
CHROMIUM += " --disable-background-networking --disable-component-update --disable-sync"
FRAME = '<body style="margin:0"><iframe src="{page}" style="border:0;width:{width}px;height:{height}px"></iframe>'


def main() -> None:
    runs = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        page = write_report([runs], Path(folder) / "report.html")
        shoot(page, "report-1280.png", 1280, (0, 1500))
        shoot(page, "report-390.png", 390, (0, 1500))
        shoot(page, "report-dark.png", 1280, (1200, 2500), dark=True)
        for name in ("lineage", "split", "quality"):
            small(Path(folder) / "report" / f"{name}.png", IMAGES / f"{name}.png")
    console = Console(width=96, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(Follower([runs]).snapshots()))
    svg = re.sub(
        r"@font-face \{.*?\}", "", console.export_svg(title="divwatch top runs/demo"), flags=re.S
    )  # fetches no font
    (IMAGES / "top.svg").write_text(svg)


def shoot(page: Path, name: str, width: int, rows: tuple[int, int], dark: bool = False) -> None:
    """Takes a picture of some rows of the page at a width. The page is in a frame: no Chromium window is 390 px wide."""
    frame, shot = page.parent / "frame.html", page.parent / name
    top, bottom = rows
    frame.write_text(FRAME.format(page=page.name, width=width, height=bottom))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    with tempfile.TemporaryDirectory() as profile:
        command = [*CHROMIUM.split(), scheme, f"--user-data-dir={profile}"]
        command += [f"--window-size={max(width, 600)},{bottom + 100}"]
        command += [f"--screenshot={shot}", "--virtual-time-budget=5000", frame.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
    Image.open(shot).crop((0, top, width, bottom)).save(shot)
    small(shot, IMAGES / name)


def small(source: Path, target: Path) -> None:
    """Saves the picture in 256 colours and at most 1280 px wide, which takes a few dozen kB."""
    image = Image.open(source).convert("RGB")
    image.thumbnail((1280, 4000))
    image.quantize(256).save(target, optimize=True)


if __name__ == "__main__":
    main()
