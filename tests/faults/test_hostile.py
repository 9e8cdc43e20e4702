"""Hostile input: panels, mixes, run directories and completions from strangers. One line or a result; nothing executed."""

import json
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from divwatch.errors import DivwatchError
from divwatch.store.parquet import read_parquet
from divwatch.store.reader import RunReader
from divwatch.store.run_directory import RunDirectory
from tests.faults.test_storage import child_environment, watched
from tests.faults.undisturbed import cell

GB = 1 << 30
FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)


def command(*arguments, memory=6 * GB, seconds=100):
    """`divwatch ...` in a process whose address space is bounded; (exit status, both streams)."""
    done = subprocess.run(
        [sys.executable, "-c", "from divwatch.cli import main; main()", *map(str, arguments)],
        env=child_environment() | {"COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
    )
    return done.returncode, done.stdout.decode(errors="replace")


def deep(n=200_000):
    return "[" * n + "]" * n


def long_line(path, gigabytes=1):
    with path.open("wb") as file:
        file.write(b'{"prompt": "')
        for _ in range(gigabytes * 64):
            file.write(b"x" * (1 << 24))
        file.write(b'"}\n')


# panels: JSONL

LINES = {
    "JSON nested 200,000 deep": ('{"prompt": "Why?", "reference": ' + deep() + "}").encode(),
    "half a surrogate pair": b'{"prompt": "a\\ud800b"}',
    "bytes that are not UTF-8": b'{"prompt": "\xff\xfe"}',
    "a number of 10,000 digits": b'{"prompt": "Why?", "id": ' + b"9" * 10_000 + b"}",
    "turns that are no turns": b'{"messages": [1, null, {"role": []}]}',
    "a prompt that is a number": b'{"prompt": 5}',
    "content that is an object": b'{"messages": [{"role": "user", "content": {"a": 1}}]}',
    "a verifier that is a path": b'{"prompt": "Why?", "verifier": "../../etc/passwd:f"}',
    "a verifier that is a list": b'{"prompt": "Why?", "verifier": ["os:system"]}',
    "NUL bytes": b'{"prompt": "Why?"}\x00\x00',
}


@pytest.mark.parametrize(
    "line", [cell(f"panel with {what}", line, slow=i > 0) for i, (what, line) in enumerate(LINES.items())]
)
def test_panel_files(tmp_path, line):
    """Read, or refused in one line that names the place; no traceback."""
    path = tmp_path / "panel.jsonl"
    path.write_bytes(line + b"\n")
    status, said = command("panel", "show", path)
    assert "Traceback" not in said, said[-2000:]
    assert status in (0, 2), said


@pytest.mark.parametrize(
    "name",
    [
        cell(f"an id that is {what}", name, slow=True)
        for what, name in (
            {
                "a path out of the directory": "../../../../tmp/escaped",
                "an absolute path": "/tmp/escaped",
                "HTML": "<script>alert(1)</script>",
                "a terminal escape": "\x1b]0;owned\x07\x1b[2J",
            }.items()
        )
    ],
)
def test_ids_and_texts(tmp_path, name):
    """A whole run and its report: nothing is written elsewhere, no markup is live, no escape reaches the terminal."""
    import divwatch
    from tests.faults.undisturbed import QUICK
    from tests.training import sft_trainer

    panel = tmp_path / "panel.jsonl"
    evil = '<img src=x onerror="alert(1)"><script>alert(1)</script>\x1b[31m'
    rows = [{"id": f"{name}{i}", "task": name if i % 2 else "task", "prompt": f"Say {i}. {evil}"} for i in range(6)]
    panel.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "deep" / "down" / "out"
    trainer = sft_trainer(out, steps=1)
    divwatch.watch(trainer, **QUICK | {"panel": str(panel), "held_out": "off", "min_usable": 0.0})
    trainer.train()
    status, said = command("report", out)
    assert status == 0, said[-2000:]
    assert "\x1b]0;" not in said
    assert "\x1b[2J" not in said
    page = (out / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert not Path("/tmp/escaped0").exists()
    everything = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert all(p == panel or out in p.parents for p in everything)


# completions


def write_completions(path, text, n=2):
    path.write_text(
        "".join(json.dumps({"id": str(i), "prompt": "p", "outputs": [text, text + "!"]}) + "\n" for i in range(n))
    )


TEXTS = {
    "terminal escapes": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "markup": "<script>alert(1)</script>",
    "direction marks": "\u202eabc\u2066",
    "a zip bomb's name": "../../../../etc/cron.d/x",
    "a text of 1 MB": "word " * 200_000,
    "a million open brackets": "(" * 1_000_000,
    "Python that would touch a file": "import pathlib; pathlib.Path('/tmp/touched').touch()",
    "NUL and other controls": "\x00\x01\x7f\ufffe",
}


@pytest.mark.parametrize(
    "text", [cell(f"completions that are {what}", text, slow=i > 0) for i, (what, text) in enumerate(TEXTS.items())]
)
def test_completions(tmp_path, text):
    """Scored in bounded time, with nothing executed and no escape on the terminal."""
    path = tmp_path / "outputs.jsonl"
    write_completions(path, text)
    status, said = command("score", path, "--metrics", "ead,distinct_answers,ast", "--json", tmp_path / "out.json")
    assert status == 0, said[-2000:]
    assert "\x1b[2J" not in said
    assert "\x1b]" not in said
    assert not Path("/tmp/touched").exists()
    json.loads((tmp_path / "out.json").read_text())


# files that claim to be large


@pytest.mark.parametrize(
    ("rows", "width", "says"),
    [
        cell("a Parquet file of a billion rows in 200 kB", 1_000_000_000, 1, "10,000,000 rows", slow=True),
        cell("a Parquet file of 4 GB of text in a few kB", 400_000, 10_000, "2 GiB", slow=True),
    ],
)
def test_parquet_claims(tmp_path, rows, width, says):
    """Refused in one line before it is decoded whole; memory stays bounded."""
    path, part = tmp_path / "claim.parquet", 1_000_000 if width == 1 else 4_000
    text = pa.array([0] * part) if width == 1 else pa.array(["x" * width] * part)
    table = pa.table({"id": text})
    with pq.ParquetWriter(path, table.schema, compression="zstd") as file:
        for _ in range(rows // part):
            file.write_table(table, row_group_size=part)
    program = (
        "import sys; from pathlib import Path; from divwatch.store.parquet import read_parquet; "
        "read_parquet(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * GB, 6 * GB)),
    )
    assert says in done.stderr.strip().splitlines()[-1], done.stderr[-1000:]


@pytest.mark.slow
@pytest.mark.limit(240)
@pytest.mark.parametrize(
    "what",
    [
        cell("a panel with a line of a gigabyte", "panel"),
        cell("outputs to score with a line of a gigabyte", "score"),
        cell("training rows with a line of a gigabyte", "mix"),
    ],
)
def test_lines_of_a_gigabyte(tmp_path, what):
    """Read or refused, with memory bounded (8 GiB of address space) and no traceback."""
    path = tmp_path / "long.jsonl"
    long_line(path)
    arguments = {
        "panel": ("panel", "show", path),
        "score": ("score", path, "--metrics", "ead"),
        "mix": ("mix", "show", path),
    }
    status, said = command(*arguments[what], memory=8 * GB, seconds=200)
    path.unlink()
    assert "Traceback" not in said, said[-1500:]
    assert status in (0, 2)


# mixes and configs: YAML

LAUGHS = (
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghij"))
    + "kind: sft\nparts: *j\n"
)
YAMLS = {
    "a Python object tag": "!!python/object/apply:os.system ['touch /tmp/owned']",
    "a tag inside a part": "kind: sft\nparts: [{hub: !!python/name:os.system ''}]",
    "aliases that explode (a billion laughs)": LAUGHS,
    "an alias of itself": "kind: sft\nparts: &p [*p]",
    "a mix that is part of itself": "kind: sft\nparts: [{mix: SELF}]",
    "a path out of its folder": "kind: sft\nparts: [{file: ../../../../../etc/passwd}]",
    "a pattern that backtracks without end": "kind: sft\nparts: [{file: rows.jsonl, columns: s, pattern: '(a+)+$'}]",
    "nesting 5,000 deep": "kind: sft\nparts: " + "[" * 5000 + "]" * 5000,
    "numbers where names belong": "kind: 5\nparts: [1]",
    "binary": "\x00\x01",
}


@pytest.mark.limit(200)
@pytest.mark.parametrize(
    "text", [cell(f"a mix with {what}", text, slow=i > 0) for i, (what, text) in enumerate(YAMLS.items())]
)
def test_mixes(tmp_path, text):
    """Refused in one line; nothing executed, memory and time bounded."""
    path = tmp_path / "mix.yaml"
    path.write_text(text.replace("SELF", str(path)))
    (tmp_path / "rows.jsonl").write_text(
        json.dumps(
            {
                "prompt": [{"role": "user", "content": "x"}],
                "completion": [{"role": "assistant", "content": "y"}],
                "s": "a" * 40 + "b",
            }
        )
        + "\n"
    )
    status, said = command("mix", "show", path, seconds=60)
    assert not Path("/tmp/owned").exists()
    assert "Traceback" not in said, said[-2000:]
    assert status in (0, 2), said


# run directories of strangers, and fuzzing


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    out = tmp_path_factory.mktemp("stranger")
    watched(out)
    return out


RECORDS = {
    "run.json nested 200,000 deep": ("run.json", deep().encode()),
    "run.json that names itself as its parent": ("run.json", None),
    "looks.jsonl nested 200,000 deep": ("looks.jsonl", deep().encode() + b"\n"),
    "looks with texts where numbers belong": (
        "looks.jsonl",
        b'{"step": 0, "status": "ok", "tasks": {"all": {"diversity/ead": {"mean": "x"}}}, "seconds": 5}\n',
    ),
    "looks whose tasks are markup": (
        "looks.jsonl",
        b'{"step": 0, "status": "<script>alert(1)</script>", "tasks": {"<script>alert(1)</script>": '
        b'{"diversity/ead": {"mean": 0.5, "lo": 0.4, "hi": 0.6, "n": 5}}}}\n',
    ),
    "a look at step 10**400": ("looks.jsonl", b'{"step": 1' + b"0" * 400 + b', "status": "ok"}\n'),
    "a pickle as scores": ("scores/step-00000000.parquet", b"\x80\x04\x95cposix\nsystem\n(S'touch /tmp/owned'\ntR."),
    "a text as completions": ("completions/step-00000000.parquet", b"no parquet"),
    "events that are no objects": ("events.jsonl", b'5\n"x"\n[]\n'),
    "a file whose name is no step": ("completions/step-abc.parquet", b"x"),
}


@pytest.mark.parametrize(
    ("name", "content"),
    [cell(f"a stranger's run: {what}", *pair, slow=i != 4) for i, (what, pair) in enumerate(RECORDS.items())],
)
def test_run_directories(tmp_path, stranger, name, content):
    """Reported without what cannot be read, or refused in one line; nothing executed, no markup live."""
    import shutil

    out = tmp_path / "out"
    shutil.copytree(stranger, out)
    if content is None:
        info = json.loads((out / "divwatch" / "run.json").read_text())
        content = json.dumps(info | {"parent": str(out / "divwatch")}).encode()
    (out / "divwatch" / name).write_bytes(content)
    status, said = command("report", out)
    assert "Traceback" not in said, said[-2500:]
    assert status in (0, 2), said
    assert not Path("/tmp/owned").exists()
    if status == 0:
        assert "<script>alert" not in (out / "report.html").read_text()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "task",
                    "prompt",
                    "messages",
                    "role",
                    "content",
                    "reference",
                    "verifier",
                    "chosen",
                    "rejected",
                    "step",
                    "status",
                    "outputs",
                    "is_correct",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
FILES = st.one_of(
    st.binary(max_size=300),
    st.lists(JSON, max_size=4).map(lambda rows: "\n".join(json.dumps(row) for row in rows).encode()),
    st.dictionaries(st.sampled_from(["prompt", "messages", "outputs", "id"]), JSON, max_size=4).map(
        lambda row: json.dumps(row).encode()
    ),
)


def one_line(read):
    try:
        read()
    except DivwatchError as refused:
        lines = str(refused).splitlines()
        if len(lines) > 1:
            raise AssertionError(lines) from None


def panel_file(path):
    from divwatch.panel.sources import from_file

    from_file(path)


def score_input(path):
    from divwatch.score_file.rows import read_rows

    list(read_rows(path))


def mix_rows(path):
    from divwatch.files import read_jsonl

    list(read_jsonl(path))


def mix_yaml(path):
    from divwatch.mixes.definition import read_mix

    read_mix(path)


def run_record(path):
    run = RunDirectory(path.parent)
    for name in ("run.json", "looks.jsonl", "events.jsonl"):
        (path.parent / name).write_bytes(path.read_bytes())
    for read in (run.info, run.looks, run.events, run.unscored):
        one_line(read)


def run_report(path):
    for name in ("looks.jsonl", "events.jsonl"):
        (path.parent / name).write_bytes(path.read_bytes())
    reader = RunReader(path.parent, notes=[])
    reader.looks(), reader.events()


def parquet(path):
    read_parquet(path)


@pytest.mark.parametrize(
    "parse",
    [
        cell(f"fuzzed: {what}", parse)
        for what, parse in {
            "panel files": panel_file,
            "files to score": score_input,
            "rows of a mix": mix_rows,
            "mix YAML": mix_yaml,
            "run.json, looks.jsonl and events.jsonl": run_record,
            "what the report reads": run_report,
            "Parquet": parquet,
        }.items()
    ],
)
def test_fuzzed(tmp_path, parse):
    """Any bytes are read or refused as a DivwatchError of one line."""

    @FUZZ
    @given(FILES)
    def check(content):
        path = tmp_path / "input.jsonl"
        path.write_bytes(content)
        one_line(lambda: parse(path))

    check()
