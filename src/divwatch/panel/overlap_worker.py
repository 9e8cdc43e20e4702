"""A child process that scans one share of the training rows: `python -m divwatch.panel.overlap_worker`.

Neither fork (a trainer has threads and a GPU context) nor multiprocessing's spawn (it runs the user's script anew where
that has no `if __name__` guard): the parent pickles the job into the child's input, a Dataset on disk as the names of its
files, and reads one line of JSON. Both ends are this process's own; nothing from outside is unpickled.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.panel.overlap import Decode, Found, PanelIndex, scan
from divwatch.records import Prompt


class Child:
    """One scan in a process of its own."""

    def __init__(self, job: tuple[Any, ...]) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "divwatch.panel.overlap_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )  # fmt: skip
        self._out = (b"", b"")
        self._thread = threading.Thread(target=self._talk, args=(pickle.dumps(job),), daemon=True)
        self._thread.start()

    def _talk(self, job: bytes) -> None:
        self._out = self._process.communicate(job)

    def result(self) -> Found:
        """What it found. Raises DivwatchError with the child's last line where it failed."""
        self._thread.join()
        out, complaint = self._out
        if self._process.returncode:
            lines = complaint.decode(errors="replace").strip().splitlines() or [f"exit {self._process.returncode}"]
            raise DivwatchError(f"the held-out check failed in a worker ({lines[-1]}): try watch_held_out: off")
        told = json.loads(out.splitlines()[-1])
        return Found(
            {int(i): row for i, row in told["first"].items()},
            {int(i): set(places) for i, places in told["covered"].items()},
            told["rows"],
        )


def start(prompts: Sequence[Prompt], rows: Any, decode: Decode | None, first_row: int) -> Child:
    """Starts a scan of `rows`, the first of which is training row `first_row`."""
    return Child((list(prompts), rows, decode, first_row))


def main() -> None:
    os.nice(10)  # training comes first
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    prompts, rows, decode, first_row = pickle.load(sys.stdin.buffer)
    found = scan(PanelIndex(prompts), rows, decode, first_row)
    covered = {i: sorted(places) for i, places in found.covered.items()}
    print(json.dumps({"first": found.first, "covered": covered, "rows": found.rows}))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
