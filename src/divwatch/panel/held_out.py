"""The held-out check: is the panel in the training data? `check_held_out` searches once, in child processes for many rows,
and caches the result. `HeldOutCheck` does so while training starts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import time
from collections.abc import Callable, Iterable, Sequence, Sized
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.files import read_json_object, write_atomically
from divwatch.panel import fingerprint
from divwatch.panel.overlap import NGRAM, RULES, Matches, PanelIndex, scan
from divwatch.panel.overlap_report import OverlapReport, TaskOverlap, make_report
from divwatch.panel.training_texts import Decode
from divwatch.processes import ChildError, ChildProcess, count_cores
from divwatch.records import Prompt
from divwatch.threads import BackgroundThread

# Rows that are searched faster here than a process starts.
FEW_ROWS = 5000


class HeldOutCheck:
    """Searches the training rows for the prompts from the moment it is made, on its own thread.

    A stream cannot be read twice and is not searched: `streamed`.
    """

    def __init__(self, prompts: Sequence[Prompt], dataset: Any, tokenizer: Any) -> None:
        self.streamed = dataset is None or not isinstance(dataset, Sized)
        self._check: Future[OverlapReport] | None = None
        if not self.streamed:
            thread = BackgroundThread("divwatch held-out check")
            self._check = thread.submit(lambda: _check_in_background(prompts, dataset, tokenizer.decode))
            thread.close(0)  # it ends after this one job

    def done(self, seconds: float) -> bool:
        """Waits at most `seconds`; returns whether the check has ended."""
        return self._check is None or bool(wait([self._check], seconds).done)

    @property
    def report(self) -> OverlapReport | None:
        """The result; None if the check has not ended, has failed or was not made."""
        return None if self._check is None or not self._check.done() or self.error else self._check.result()

    @property
    def error(self) -> BaseException | None:
        """Why the check failed."""
        return self._check.exception() if self._check is not None and self._check.done() else None


def _check_in_background(prompts: Sequence[Prompt], dataset: Any, decode: Decode) -> OverlapReport:
    workers = 0 if len(dataset) < FEW_ROWS else max(1, count_cores() // 2)
    return check_held_out(prompts, dataset, workers=workers, decode=decode)


def check_held_out(
    prompts: Sequence[Prompt],
    dataset: Iterable[dict[str, Any]],
    *,
    workers: int = 0,
    decode: Decode | None = None,
    cache: Path | None = None,
) -> OverlapReport:
    """Which of `prompts` are in the rows of `dataset`: a datasets.Dataset, or any iterable of rows in a TRL format.

    workers: child processes, each of which searches a share of a Dataset; 0 (and any other iterable): this process.
    decode: token ids to text, for a data set that its trainer has tokenised already (`tokenizer.decode`).
    cache: folder for results, by fingerprints of panel and data set. Default: `divwatch/overlap` in the user's cache.
    Raises DivwatchError if the rows have no column with text, or a child process fails.
    """
    panel, data = fingerprint(prompts), getattr(dataset, "_fingerprint", None)
    results = _Cache(cache, panel, data)
    cached = results.read()
    if cached is not None:
        return cached
    started = time.perf_counter()
    index = PanelIndex(prompts)
    if workers > 0 and hasattr(dataset, "shard") and isinstance(dataset, Sized):  # a stream has no shares to give
        matches = _scan_in_processes(prompts, dataset, min(workers, max(1, len(dataset))), decode)
    else:
        matches = scan(index, dataset, decode)
    report = make_report(index, matches, time.perf_counter() - started, panel, data)
    results.write(report)
    return report


def _scan_in_processes(prompts: Sequence[Prompt], dataset: Any, workers: int, decode: Decode | None) -> Matches:
    dataset = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset  # a transform need not pickle
    shards = [dataset.shard(workers, i, contiguous=True) for i in range(workers)]
    total = Matches()
    children = [ChildProcess(f"{__name__}:serve", name="worker process") for _ in shards]
    try:
        for i, (child, shard) in enumerate(zip(children, shards, strict=True)):
            # A Dataset on disk is pickled as the names of its files. The child unpickles what this process wrote, no more.
            job = pickle.dumps((list(prompts), shard, decode, sum(map(len, shards[:i]))))
            child.send(base64.b64encode(job).decode())
        for child in children:
            child.receive()  # it has started
            total.merge(_matches_of(child.receive()))
    except ChildError as error:
        raise DivwatchError(f"the held-out check failed in a worker ({error}): try watch_held_out: off") from None
    finally:
        for child in children:
            child.close()
    return total


def serve() -> Callable[[str], dict[str, Any]]:
    """In a child process: scans one share of the rows."""

    def scan_share(job: str) -> dict[str, Any]:
        prompts, rows, decode, first_row = pickle.loads(base64.b64decode(job))
        matches = scan(PanelIndex(prompts), rows, decode, first_row)
        covered = {i: sorted(places) for i, places in matches.covered.items()}
        return {"first": matches.first, "covered": covered, "rows": matches.rows}

    return scan_share


def _matches_of(reply: dict[str, Any]) -> Matches:
    first = {int(i): row for i, row in reply["first"].items()}
    covered = {int(i): set(places) for i, places in reply["covered"].items()}
    return Matches(first, covered, reply["rows"])


class _Cache:
    """Results by fingerprint. A data set without one is not cached, and an unreadable file is not used."""

    def __init__(self, folder: Path | None, panel: str, data: str | None) -> None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        key = hashlib.sha256(f"{RULES}/{NGRAM}/{panel}/{data}".encode()).hexdigest()[:24]
        self.file = None if data is None else (folder or root / "divwatch" / "overlap") / f"{key}.json"

    def read(self) -> OverlapReport | None:
        if self.file is None:
            return None
        try:
            values = read_json_object(self.file)
            by_task = {task: TaskOverlap(**t) for task, t in values.pop("by_task").items()}
            return OverlapReport(**{**values, "by_task": by_task, "cached": True})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, report: OverlapReport) -> None:
        if self.file is None:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps(report.as_dict()))
        except OSError:
            pass  # a cache that cannot be written costs the next run one search, no more
