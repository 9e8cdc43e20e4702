"""Reading from a hub by revision, streamed: the real client against a small hub on localhost, in a process of its own."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.mixes.small_hub import COMMIT, SmallHub

NAME = "allenai/Dolci-Instruct-SFT"
LOAD = """
import json, sys
from divwatch.errors import DivwatchError
from divwatch.mixes import Selection, load_mix
name, local, rows = sys.argv[1], sys.argv[2] or None, int(sys.argv[3]) or None
try:
    dataset, report = load_mix(name, 5, rows, local_data=local)
except DivwatchError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps([report.places, [row["messages"][1]["content"] for row in dataset]]))
"""


@pytest.fixture(scope="module")
def rows():
    """Rows in the set's schema; a tool turn among them, so that nested fields pass through parquet."""
    made = []
    for i in range(60):
        turns = [{"content": f"Say {i}.", "role": "user"}, {"content": f"{i}", "role": "assistant"}]
        turns = [{"function_calls": None, "functions": None, **turn} for turn in turns]
        made.append({"id": str(i), "messages": turns, "source_dataset": ("FLAN", "Aya")[i % 3 == 0], "domain": "Chat"})
    made[7]["messages"][1].update(content=None, function_calls="f()")
    return made


@pytest.fixture(scope="module")
def hub(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    (folder / "data").mkdir()
    for shard in range(2):
        table = pa.Table.from_pylist(rows[30 * shard : 30 * (shard + 1)])
        pq.write_table(table, folder / f"data/train-0000{shard}-of-00002.parquet")
    with SmallHub(NAME, folder) as running:
        yield running


def load(tmp_path, endpoint, name="instruct_sft", local="", draw=0):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", LOAD, name, local, str(draw)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_streamed_draw_is_the_local_draw_and_the_commit_is_recorded(hub, rows, tmp_path):
    mix = tmp_path / "unpinned.yaml"
    mix.write_text(f"kind: sft\nparts:\n  - {{hub: {NAME}, local: instruct_sft.jsonl, columns: [source_dataset]}}\n")
    places, streamed = load(tmp_path, hub.url, name=str(mix), draw=12)
    assert places == [{"hub": NAME, "revision": None, "commit": COMMIT, "split": "train"}]
    (tmp_path / "instruct_sft.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert streamed == load(tmp_path, hub.url, name=str(mix), local=str(tmp_path), draw=12)[1]
    assert len(streamed) == 12
    read = [path for path in hub.asked if path.endswith(".parquet")]
    assert read
    assert all(f"/resolve/{COMMIT}/" in path for path in read)  # never a moving branch


def test_a_pinned_revision_is_asked_for_and_a_wrong_one_is_one_line(hub, tmp_path):
    mix = tmp_path / "mine.yaml"
    part = f"kind: sft\nparts:\n  - hub: {NAME}\n    columns: [source_dataset]\n    revision: "
    mix.write_text(part + COMMIT + "\n")
    places, made = load(tmp_path, hub.url, name=str(mix))
    assert (places[0]["revision"], len(made)) == (COMMIT, 60)
    mix.write_text(part + "deadbeef\n")
    said = load(tmp_path, hub.url, name=str(mix))
    assert said.startswith(f"hub set {NAME} at revision deadbeef cannot be read (RevisionNotFoundError")
    assert "\n" not in said


def test_a_hub_that_is_not_there_is_one_line(tmp_path):
    said = load(tmp_path, "http://127.0.0.1:9")
    assert said.startswith(f"hub set {NAME} at revision ")
    assert " cannot be read (" in said
    assert said.endswith("put instruct_sft.jsonl into a folder and give it as local_data")
