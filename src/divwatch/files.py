"""Reading and writing small files safely: JSON lines with line numbers, JSON, YAML, and writes that are all or nothing."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from divwatch.errors import DivwatchError, one_line


class BadLine(DivwatchError):
    """A line that holds no JSON object. `problem`: what is wrong with it, without its place."""

    def __init__(self, path: Path, number: int, problem: str, fix: str) -> None:
        super().__init__(f"{path} line {number} {problem}: {fix}")
        self.problem = problem


def read_jsonl(path: Path, advance: Callable[[int], object] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not blank.

    advance: gets the number of bytes read, line by line. Raises BadLine at the first line that holds no JSON object.
    """
    for number, row in try_jsonl(path, advance):
        if isinstance(row, BadLine):
            raise row
        yield number, row


def try_jsonl(
    path: Path, advance: Callable[[int], object] | None = None
) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """As `read_jsonl`, but gives the error in place of a line that cannot be read and continues behind it."""
    with path.open("rb") as lines:  # split at \n alone: a JSON string may hold U+2028
        for number, line in enumerate(lines, 1):
            if advance is not None:
                advance(len(line))
            if line.strip():
                yield number, _parse_object(line, path, number)


# What the first bytes of other files are.
_SIGNATURES = {
    b"\x1f\x8b": ("is not JSON but a gzip file", "unpack it"),
    b"BZh": ("is not JSON but a bzip2 file", "unpack it"),
    b"\xfd7zXZ": ("is not JSON but an xz file", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("is not JSON but a zstd file", "unpack it"),
    b"PK\x03\x04": ("is not JSON but a zip file", "unpack it"),
    b"PAR1": (
        "is not JSON but a parquet file",
        "write it as JSON with datasets.Dataset.from_parquet(...).to_json(...)",
    ),
    b"ARROW1": ("is not JSON but an Arrow file", "write it as JSON with datasets.Dataset.from_file(...).to_json(...)"),
    b"\xff\xfe": ("is not UTF-8 but UTF-16", "save the file as UTF-8"),
    b"\xfe\xff": ("is not UTF-8 but UTF-16", "save the file as UTF-8"),
}
_ONE_A_LINE = "write one JSON object per line"


def _parse_object(line: bytes, path: Path, number: int) -> dict[str, Any] | BadLine:
    if number == 1:
        for signature, (problem, fix) in _SIGNATURES.items():
            if line.startswith(signature):
                return BadLine(path, number, problem, fix)
    if b"\0" in line[:4]:
        return BadLine(path, number, "is not UTF-8 but UTF-16 or UTF-32", "save the file as UTF-8")
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        return BadLine(path, number, f"is not UTF-8 ({error.reason})", "save the file as UTF-8")
    except (ValueError, RecursionError) as error:
        if number == 1 and line.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            return BadLine(path, number, "is not JSON by itself but begins an array", f"{_ONE_A_LINE}, without [ and ]")
        return BadLine(path, number, f"is not JSON ({one_line(error, kind=False)})", _ONE_A_LINE)
    if isinstance(row, list):
        return BadLine(path, number, "is not an object but an array", f"{_ONE_A_LINE}, without [ and ]")
    if not isinstance(row, dict):
        return BadLine(path, number, "is not an object", f"{_ONE_A_LINE}: {{...}}")
    return row


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DivwatchError if the file holds none, FileNotFoundError if it is missing."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DivwatchError(f"{path} is damaged ({one_line(error, kind=False)}): restore or remove it") from None
    if not isinstance(value, dict):
        raise DivwatchError(f"{path} is damaged (it holds no object): restore or remove it")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises DivwatchError if the file is missing or holds none."""
    content = read_any_yaml(path)
    if not isinstance(content, dict):
        raise DivwatchError(f"{path} holds no settings: write 'name: value' lines")
    return content


def read_any_yaml(path: Path) -> Any:
    """The content of a YAML file, whatever it is. Raises DivwatchError if the file is missing or not YAML."""
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DivwatchError(f"{path} is not there: give a YAML file") from None
    except UnicodeDecodeError as error:
        raise DivwatchError(f"{path} is not UTF-8 ({error.reason}): save the file as UTF-8") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DivwatchError(f"{path} is not YAML ({one_line(error, kind=False)}): fix it") from None


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes the whole file or leaves the old one: a crash or a full disk leaves no half-written file."""
    # The name has the process id, so that several processes may write the same file. A crash leaves a `.tmp` file.
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Appends a line of JSON, completely or not at all. Removes a half-written last line that a crash left."""
    rest = memoryview(json_line(row))
    with path.open("a+b", buffering=0) as file:
        end = _end_of_lines(file)
        file.truncate(end)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def json_line(row: dict[str, Any]) -> bytes:
    """A row as strict JSON: NaN and infinities are null."""
    return json.dumps(without_nan(row), allow_nan=False).encode() + b"\n"


def without_nan(value: Any) -> Any:
    """The same lists, dicts and numbers with None for NaN and infinities, which JSON cannot express."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _end_of_lines(file: BinaryIO) -> int:
    """Bytes up to the end of the last complete line."""
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            return file.read().rfind(b"\n") + 1
    return size
