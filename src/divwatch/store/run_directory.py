"""The run directory: what a run was and what every look saw. Written whole or not at all, readable after a crash.

run.json                          settings, model, stage, lineage, parent, panel, versions
looks.jsonl                       a line a look
completions/step-00000100.parquet a row a completion
scores/step-00000100.parquet      a row a prompt
events.jsonl                      alarms
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.files import BadLine, append_line, json_line, read_json_object, try_jsonl, write_atomically
from divwatch.records import Completion, PromptSamples, PromptScores

FORMAT = 1
NAME = "divwatch"
SCORED = ("ok", "not_comparable")
# Rows of a Parquet file, and bytes once decoded: far above any look, far below what a hostile file may claim.
MOST_ROWS, LARGEST = 10_000_000, 2 << 30


class RunDirectory:
    """Reads and writes one `<output_dir>/divwatch/`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock: Any = None

    @classmethod
    def of(cls, output_dir: str | Path) -> RunDirectory:
        """The run directory inside an output directory; `output_dir` may also be the run directory itself."""
        path = Path(output_dir)
        return cls(path if (path / "run.json").is_file() else path / NAME)

    @property
    def exists(self) -> bool:
        return (self.path / "run.json").is_file()

    # writing

    def create(self, info: dict[str, Any]) -> None:
        """Starts a new record. One that is already there is moved aside, never overwritten."""
        try:
            if self.exists:
                self.claim()
                number = next(n for n in range(1, 10_000) if not self.path.with_name(f"{NAME}-{n}").exists())
                self.path.rename(self.path.with_name(f"{NAME}-{number}"))
            for part in ("completions", "scores"):
                (self.path / part).mkdir(parents=True, exist_ok=True)
            self.claim()
            self.write_info(info)
        except OSError as error:
            raise DivwatchError(
                f"cannot write {self.path} ({error.strerror}): choose an output_dir that can be written"
            ) from None

    def claim(self) -> None:
        """No other process may write here until this one lets go or ends. Raises DivwatchError where another does.

        A file system without locks gives no protection.
        """
        try:
            import fcntl
        except ImportError:
            return
        lock = (self.path / ".lock").open("ab")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise DivwatchError(
                    f"another run is writing {self.path}: choose another output_dir, or wait until it has ended"
                ) from None
        self._lock = lock

    def let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def write_info(self, info: dict[str, Any]) -> None:
        write_atomically(self.path / "run.json", json.dumps({"format": FORMAT, **info}, indent=1, default=str).encode())

    def write_completions(self, step: int, completions: Sequence[Completion]) -> None:
        """Before anything is scored, so that a crash loses no sample."""
        self._write_rows("completions", step, [asdict(c) for c in completions])

    def write_judged(self, step: int, completions: Sequence[Completion], samples: Sequence[PromptSamples]) -> None:
        """The same rows again with what verification said of them."""
        by_id = {s.id: s for s in samples}
        rows = []
        for c in completions:
            s = by_id[c.prompt_id]
            judged = {"answer_text": s.outputs[c.sample], "usable": s.usable[c.sample]}
            judged["correct"] = None if s.correct is None else s.correct[c.sample]
            judged["answer"] = None if s.answers is None else s.answers[c.sample]
            rows.append(asdict(c) | judged)
        self._write_rows("completions", step, rows)

    def write_scores(self, step: int, scores: PromptScores) -> None:
        columns = {key: [float(v) for v in values] for key, values in scores.values.items()}
        _write_parquet(self._file("scores", step), {"id": scores.ids, "task": scores.tasks, **columns})

    def write_embeddings(self, step: int, keys: Sequence[bytes], rows: Any) -> None:
        """Embeddings that the training devices computed, for the scoring to come."""
        import io

        import numpy as np

        buffer = io.BytesIO()
        np.savez(buffer, keys=np.frombuffer(b"".join(keys), dtype="V16"), rows=rows)
        write_atomically(self._embeddings(step), buffer.getvalue())

    def take_embeddings(self, step: int) -> tuple[list[bytes], Any] | None:
        """(keys, rows) of `write_embeddings`, which are then removed; None where there are none."""
        import numpy as np

        path = self._embeddings(step)
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            keys, rows = [bytes(key) for key in stored["keys"]], stored["rows"]
        path.unlink()
        return keys, rows

    def append_look(self, look: dict[str, Any]) -> None:
        append_line(self.path / "looks.jsonl", look)

    def append_event(self, event: dict[str, Any]) -> None:
        append_line(self.path / "events.jsonl", event)

    def resume_at(self, step: int) -> None:
        """Makes the record one that goes on from a checkpoint at `step`: what was seen beyond is dropped, and so is what a
        crash left half written; a look whose scores cannot be read, or could not be computed, counts as unscored."""
        looks = [self._to_score_again(look) for look in self.looks() if look["step"] <= step]
        events = [event for event in self.events() if event["step"] <= step]
        for name, lines in (("looks.jsonl", looks), ("events.jsonl", events)):
            write_atomically(self.path / name, b"".join(json_line(line) for line in lines))
        for part in ("completions", "scores"):
            for beyond in [s for s in self._steps(part) if s > step]:
                self._file(part, beyond).unlink()
                self._embeddings(beyond).unlink(missing_ok=True)
        for torn in self.path.rglob("*.tmp"):
            torn.unlink()

    def _to_score_again(self, look: dict[str, Any]) -> dict[str, Any]:
        reason = look.get("reason")
        if look["status"] in SCORED:
            try:
                self.scores(look["step"])
                return look
            except DivwatchError as error:
                reason = str(error)
        elif not self._file("completions", look["step"]).is_file():
            return look  # it failed before anything was sampled
        kept = {key: value for key, value in look.items() if key in ("step", "time", "seconds")}
        return kept | {"status": "unscored", "reason": reason}

    # reading

    def info(self) -> dict[str, Any]:
        try:
            info = read_json_object(self.path / "run.json")
        except FileNotFoundError:
            raise DivwatchError(f"{self.path} is no run directory: give one that holds run.json") from None
        if info.get("format") != FORMAT:
            raise DivwatchError(f"{self.path} has format {info.get('format')}: this divwatch reads format {FORMAT}")
        return info

    def looks(self) -> list[dict[str, Any]]:
        """Looks by step; of one step the last line counts."""
        by_step = {look["step"]: look for look in _read_lines(self.path / "looks.jsonl")}
        return [by_step[step] for step in sorted(by_step)]

    def events(self) -> list[dict[str, Any]]:
        return _read_lines(self.path / "events.jsonl")

    def scores(self, step: int) -> PromptScores:
        """Raises DivwatchError where they cannot be read."""
        import numpy as np

        path = self._file("scores", step)
        columns = read_parquet(path).to_pydict()
        try:
            ids, tasks = columns.pop("id"), columns.pop("task")
            return PromptScores(ids, tasks, {key: np.asarray(values, dtype=float) for key, values in columns.items()})
        except (KeyError, TypeError, ValueError) as error:
            raise DivwatchError(f"{path} is damaged ({error}): remove it and resume, and it is made again") from None

    def completions(self, step: int) -> list[dict[str, Any]]:
        """Raises DivwatchError where they cannot be read."""
        return read_parquet(self._file("completions", step)).to_pylist()

    def read_completions(self, step: int) -> list[Completion]:
        """The completions of a look as they were sampled."""
        names = [f.name for f in fields(Completion)]
        return [Completion(**{name: row[name] for name in names if name in row}) for row in self.completions(step)]

    def unscored(self) -> list[int]:
        """Steps whose completions are stored and were never scored: a crash or the end of training came between."""
        known = {look["step"] for look in self.looks() if look["status"] != "unscored"}
        return [step for step in self._steps("completions") if step not in known]

    def _steps(self, part: str) -> list[int]:
        return steps_of(self.path / part)

    def _embeddings(self, step: int) -> Path:
        return self.path / "scores" / f"embeddings-{step:08d}.npz"

    def _file(self, part: str, step: int) -> Path:
        return self.path / part / f"step-{step:08d}.parquet"

    def _write_rows(self, part: str, step: int, rows: list[dict[str, Any]]) -> None:
        _write_parquet(self._file(part, step), {name: [row[name] for row in rows] for name in rows[0]})


def find_parent(model_path: str | Path | None) -> RunDirectory | None:
    """The run that made the checkpoint at `model_path`, which lies in its output directory or in a checkpoint-N of it."""
    if not model_path or not Path(model_path).is_dir():
        return None
    for folder in (Path(model_path), Path(model_path).resolve().parent):
        run = RunDirectory(folder / NAME)
        if run.exists:
            return run
    return None


def lineage_of(run: RunDirectory) -> list[RunDirectory]:
    """The chain of runs that ends with `run`, oldest first; it stops where a parent is no longer there."""
    chain, seen = [run], {run.path.resolve()}
    while (parent := chain[0].info().get("parent")) and (found := RunDirectory(Path(parent))).exists:
        if found.path.resolve() in seen:
            raise DivwatchError(f"{run.path} is its own ancestor: mend 'parent' in run.json")
        seen.add(found.path.resolve())
        chain.insert(0, found)
    return chain


def steps_of(folder: Path) -> list[int]:
    """Steps that have a file in `completions` or `scores`."""
    names = [path.stem.removeprefix("step-") for path in folder.glob("step-*.parquet")]
    return sorted(int(name) for name in names if name.isdecimal() and len(name) <= 12)


def read_parquet(path: Path) -> Any:
    """A pyarrow table. Raises DivwatchError for a file that is missing, damaged, or too large once decoded (a few kB can
    claim to be a billion rows)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts, size = [], 0
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > MOST_ROWS:
                raise DivwatchError(f"{path} has more than {MOST_ROWS:,} rows: it is no file of divwatch's")
            for part in file.iter_batches(batch_size=1024):
                size += part.nbytes
                if size > LARGEST:
                    raise DivwatchError(f"{path} holds more than {LARGEST >> 30} GiB: it is no file of divwatch's")
                parts.append(part)
            return pa.Table.from_batches(parts, schema=file.schema_arrow)
    except FileNotFoundError:
        raise DivwatchError(f"{path} is not there: restore it, or remove the look's line from looks.jsonl") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DivwatchError):
            raise
        raise DivwatchError(f"{path} is damaged ({one_line(error, kind=False)}): remove it") from None


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Run directories under `paths`: each an output_dir, its divwatch/ folder, or a folder that holds several runs.

    Raises DivwatchError with the path that does not exist or holds no run.
    """
    found: dict[Path, None] = {}
    for path in paths:
        path = Path(path)
        if not path.exists():
            raise DivwatchError(f"no such directory: {path} (give an output_dir that divwatch has watched)")
        here = [path] if (path / "run.json").is_file() else sorted(p.parent for p in _walk(path))
        if not here:
            raise DivwatchError(f"no run in {path}: no divwatch/run.json below it (train with divwatch attached first)")
        found.update(dict.fromkeys(p.resolve() for p in here))
    return list(found)


def _walk(root: Path) -> Iterable[Path]:
    # Checkpoints hold thousands of files and never a run of their own.
    for folder, folders, files in os.walk(root):
        if "run.json" in files and Path(folder).name == "divwatch":
            yield Path(folder) / "run.json"
            folders.clear()
        folders[:] = [f for f in folders if not f.startswith((".", "checkpoint-"))]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file. A last line torn by a crash was never reported done and is passed over."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    damaged: list[int] = []
    number = 0
    for number, row in try_jsonl(path):
        if isinstance(row, BadLine) or not isinstance(row.get("step"), int):
            damaged.append(number)
        else:
            rows.append(row)
    if damaged and damaged[0] != number:
        raise DivwatchError(f"{path} line {damaged[0]} is damaged: remove that line")
    return rows


def _write_parquet(path: Path, columns: dict[str, list]) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())
