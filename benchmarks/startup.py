"""Start-up: time to import divwatch, print its help, attach to a trainer and take the first look.

    python benchmarks/startup.py           less than a minute

Each import runs in its own process, several in turn. Times include the interpreter's start.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from measuring import ROOT, Result, in_turn, options, publish, spread, table

BOUND = 0.4  # seconds of `import divwatch` and of `divwatch --help`
ROUNDS = 5
IMPORT, HELP, TORCH = "`import divwatch`", "`divwatch --help`", "`import torch`, for comparison"
BIN = Path(sys.executable).parent

# Printed by a process of its own: seconds of each thing a user waits for.
ATTACH = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.training import SETTINGS, sft_trainer
trainer = sft_trainer(Path(sys.argv[2]), steps=2)
started = time.perf_counter()
import divwatch
watching = divwatch.watch(trainer, every=1, **SETTINGS)
attached = time.perf_counter()
trainer.train()
from divwatch.store.run_directory import RunDirectory
looks = RunDirectory.of(Path(sys.argv[2])).looks()
print(json.dumps({"attach": attached - started, "first": looks[0]["seconds"]["total"], "next": looks[1]["seconds"]["total"]}))
"""


def run(*command: str | Path) -> str:
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


def measure() -> Result:
    result = Result()
    found, _ = in_turn(
        {
            "an empty interpreter": lambda: run(sys.executable, "-c", ""),
            IMPORT: lambda: run(sys.executable, "-c", "import divwatch"),
            HELP: lambda: run(BIN / "divwatch", "--help"),
            TORCH: lambda: run(sys.executable, "-c", "import torch"),
        },
        ROUNDS,
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        watched = json.loads(run(sys.executable, "-c", ATTACH, ROOT, folder).splitlines()[-1])
        whole = time.perf_counter() - started
    rows = [[name, spread(spent)] for name, spent in found.items()]
    rows += [
        ["attaching to a trainer (panel, encoder and verifiers made ready)", f"{watched['attach']:.2f}"],
        ["the first look (12 prompts x 4, 40 tokens, scored at once)", f"{watched['first']:.2f}"],
        ["the next look", f"{watched['next']:.2f}"],
        ["the whole of that process: imports, trainer, two steps, looks", f"{whole:.1f}"],
    ]
    result.add(*table(["what", f"seconds; of {ROUNDS} the median [least, most]"], rows))
    for name in (IMPORT, HELP):
        result.bound(f"{name} under {BOUND} s", median(found[name]) < BOUND)
    loaded = run(sys.executable, "-c", "import sys, divwatch, divwatch.cli; print('torch' in sys.modules)").strip()
    result.bound("neither imports torch", loaded == "False")
    result.ratios["start-up: import torch / divwatch --help"] = median(found[TORCH]) / median(found[HELP])
    return result


if __name__ == "__main__":
    sys.exit(publish(measure(), options(__doc__).json))
