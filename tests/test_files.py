"""Small files: JSON lines are read with their line numbers, writes are all or nothing."""

import bz2
import gzip
import json
import lzma
import os

import pytest

from divwatch.errors import DivwatchError
from divwatch.files import BadLine, append_line, read_json_object, read_jsonl, try_jsonl, write_atomically


def test_lines_come_with_their_numbers_and_blank_ones_are_skipped(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('\ufeff{"a": "x\u2028y"}\r\n\n{"a": 2}', encoding="utf-8")
    sizes = []
    assert list(read_jsonl(file, sizes.append)) == [(1, {"a": "x\u2028y"}), (3, {"a": 2})]
    assert sum(sizes) == file.stat().st_size


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{oops", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "is not an object"),
        (b'{"a": "\xff"}', "is not UTF-8"),
    ],
)
def test_a_bad_line_is_named_in_one_line_or_passed_on(tmp_path, line, problem):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    with pytest.raises(DivwatchError, match=f"rows.jsonl line 2 {problem}") as error:
        list(read_jsonl(file))
    assert "\n" not in str(error.value)
    rows = dict(try_jsonl(file))
    assert isinstance(rows.pop(2), BadLine)
    assert rows == {1: {"a": 1}, 3: {"a": 3}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'[{"a": 1},\n{"a": 2}]', "line 1 is not JSON by itself but begins an array: write one JSON object per line"),
        (b'\xef\xbb\xbf[\n{"a": 1}]', "line 1 is not JSON by itself but begins an array"),
        (b'[{"a": 1}]', "line 1 is not an object but an array: write one JSON object per line"),
        (b'{\n"a": 1\n}', r"line 1 is not JSON \(.*\): write one JSON object per line"),
        (b"{'a': 1}", r"line 1 is not JSON \(.*\): write one JSON object per line"),
        (b"id,prompt\n1,Why?", "write one JSON object per line"),
        (b'"text"', "line 1 is not an object: write one JSON object per line"),
        ('{"a": 1}'.encode("utf-16"), "line 1 is not UTF-8 but UTF-16: save the file as UTF-8"),
        ('{"a": 1}'.encode("utf-16-be"), "line 1 is not UTF-8 but UTF-16 or UTF-32: save the file as UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "line 1 is not UTF-8 but UTF-16 or UTF-32: save the file as UTF-8"),
        ('{"a": 1}'.encode("utf-32"), "save the file as UTF-8"),
        ('{"a": "é"}'.encode("latin-1"), "line 1 is not UTF-8"),
        (gzip.compress(b'{"a": 1}', mtime=0), "line 1 is not JSON but a gzip file: unpack it"),
        (bz2.compress(b'{"a": 1}'), "line 1 is not JSON but a bzip2 file: unpack it"),
        (lzma.compress(b'{"a": 1}'), "line 1 is not JSON but an xz file: unpack it"),
        (b"PK\x03\x04", "line 1 is not JSON but a zip file: unpack it"),
        (b"PAR1\x15\x04", "line 1 is not JSON but a parquet file: write it as JSON with datasets"),
    ],
)
def test_a_file_of_another_kind_is_named_with_its_remedy(tmp_path, content, says):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(DivwatchError, match=f"rows.jsonl {says}|{says}") as error:
        list(read_jsonl(file))
    assert "\n" not in str(error.value)


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    write_atomically(file, '{"a": 1}')
    with pytest.raises(OSError, match="No such file"):
        write_atomically(tmp_path / "missing" / "a.json", b"{}")
    (tmp_path / f"a.json.{os.getpid()}.tmp").mkdir()  # the draft cannot be opened
    with pytest.raises(OSError, match="directory"):
        write_atomically(file, b"{}")
    assert read_json_object(file) == {"a": 1}


def test_an_appended_line_replaces_a_half_written_one(tmp_path):
    file = tmp_path / "rows.jsonl"
    append_line(file, {"a": float("nan")})
    with file.open("ab") as torn:
        torn.write(b'{"a": ')
    append_line(file, {"a": 2})
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"a": None}, {"a": 2}]


@pytest.mark.parametrize("content", ["", "[1]", '{"a": '])
def test_a_json_file_without_an_object_is_one_line(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(DivwatchError, match="is damaged") as error:
        read_json_object(file)
    assert "\n" not in str(error.value)
