"""Opens a report of 200 looks x 15 tasks in headless Chromium and measures it: python benchmarks/report.py [PAGE]

Prints size, seconds to write, milliseconds until the page is ready, width against the window at 390 and 1280 px,
console lines and requests to any network. Needs `chromium` on the path. With PAGE, that page is measured instead.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync --hide-scrollbars --window-size=1280,900 --enable-logging=stderr"
# Runs inside a copy of the page, in a frame of the width that is measured, and hovers over every chart.
PROBE = """<script>addEventListener("load", () => {
  const ready = performance.now(), tip = document.getElementById("tip");
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const charts = [...document.querySelectorAll(".hit")].filter((hit) => hit.getBoundingClientRect().width);
  const read = charts.filter((hit) => {
    const r = hit.getBoundingClientRect();
    hit.dispatchEvent(new PointerEvent("pointermove", { clientX: r.left + r.width / 2, clientY: r.top + 5 }));
    return !tip.hidden;
  });
  parent.postMessage(JSON.stringify({ window: innerWidth, page: document.documentElement.scrollWidth,
    ready_ms: Math.round(ready), first_paint_ms: paint ? Math.round(paint.startTime) : null,
    charts: charts.length, with_read_out: read.length }), "*");
})</script>"""
FRAME = """<body><iframe id="f" style="border:0;width:{width}px;height:900px"></iframe><script>
addEventListener("message", (e) => {{ document.body.textContent = "PROBE" + e.data }});
document.getElementById("f").src = "page.html";</script>"""


def chromium(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as profile:
        command = ["chromium", *QUIET.split(), f"--user-data-dir={profile}", *options, "--dump-dom", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def measure(page: Path, folder: Path, width: int) -> dict:
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    (folder / "page.html").write_text(without_policy.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    found = re.search(r"PROBE(\{.*?\})", chromium(folder / "frame.html", "--virtual-time-budget=60000").stdout)
    return json.loads(found.group(1)) if found else {"window": width, "page": "not measured"}


def requests(page: Path, folder: Path) -> tuple[list[str], list[str]]:
    """(requested addresses, console lines) of the page, without Chromium's own requests."""
    (folder / "empty.html").write_text("<!doctype html><title>empty</title>")
    asked, console = {}, {}
    for name, path in (("empty", folder / "empty.html"), ("page", page)):
        log = folder / f"{name}.json"
        done = chromium(path, f"--log-net-log={log}", "--net-log-capture-mode=Everything")
        found = re.findall(r'"url":"((?:https?|wss?)://[^"?]*)', log.read_text(encoding="utf-8", errors="replace"))
        asked[name], console[name] = set(found), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return sorted(asked["page"] - asked["empty"]), console["page"]


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if len(sys.argv) > 1:
            page = Path(sys.argv[1]).resolve()
        else:
            from divwatch.outputs.report import write_report
            from tests.report.worlds import write_long_lineage

            write_long_lineage(folder / "runs")
            started = time.perf_counter()
            page = write_report([folder / "runs"])
            print(f"written in {time.perf_counter() - started:.1f} s")
        print(f"{page.stat().st_size / 1e6:.1f} MB")
        for width in (390, 1280):
            print(measure(page, folder, width))
        urls, console = requests(page, folder)
        print(f"requests to a network: {urls or 'none'}; console lines: {console or 'none'}")


if __name__ == "__main__":
    main()
