"""Peak memory of `divwatch import` against the size of the dump: python benchmarks/import_memory.py [MB ...]

Writes rollout dumps of verl of each size (default 64 and 1024 MB) to a temporary folder, imports each in a process of its
own, and prints the time and the peak resident memory of that process. The dump has the same shape at every size but for the
number of prompts a step; a look scores 16 of them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, SAMPLES, CHARACTERS = 20, 8, 4000
WORDS = [f"word{i}" for i in range(2000)]


def write_dump(folder: Path, megabytes: int) -> int:
    """Writes `<step>.jsonl` with new prompts at each step, as rollouts have them; returns the characters written."""
    rng = random.Random(0)
    pieces = [" ".join(rng.choices(WORDS, k=CHARACTERS // 32)) for _ in range(4000)]
    prompts = max(1, megabytes * 1_000_000 // (STEPS * SAMPLES * CHARACTERS))
    size = 0
    for step in range(1, STEPS + 1):
        with (folder / f"{step}.jsonl").open("w") as file:
            for prompt in range(prompts):
                for _ in range(SAMPLES):
                    text, score = " ".join(rng.sample(pieces, 4)), float(rng.random() < 0.5)
                    row = {"input": f"{step} {prompt}", "output": text, "gts": "", "score": score, "step": step}
                    size += file.write(json.dumps(row) + "\n")
    return size


def import_dump(dump: Path, out: Path) -> tuple[float, float]:
    """(seconds, peak resident memory in MB) of the command."""
    options = ["--out", str(out), "--metrics", "ead", "--prompts", "16"]
    started = time.monotonic()
    child = subprocess.Popen(["divwatch", "import", str(dump), *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"divwatch import failed with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main() -> None:
    for megabytes in map(int, sys.argv[1:] or ["64", "1024"]):
        with tempfile.TemporaryDirectory() as folder:
            dump = Path(folder, "dump")
            dump.mkdir()
            size = write_dump(dump, megabytes)
            seconds, peak = import_dump(dump, Path(folder, "run"))
            print(f"{size / 1e6:7.0f} MB dump: {seconds:6.0f} s, peak {peak:6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
