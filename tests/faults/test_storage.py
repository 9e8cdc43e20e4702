"""Storage: no room, no right, no directory, torn and foreign files. Training ends as if nothing had been."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainerCallback

import divwatch
from divwatch.errors import DivwatchError
from divwatch.store.run_directory import RunDirectory
from tests.faults.undisturbed import QUICK, At, before_the_look, cell, statuses
from tests.training import sft_trainer


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with 300 kB, and a function that fills it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize(
    "background",
    [
        cell("disk full from the second look on, room again before the last (tmpfs of 300 kB)", False),
        cell("the same, scored in the background", True, slow=True),
    ],
)
def test_a_full_disk(small_disk, survive, background):
    """Looks that cannot be stored are lost, what was stored is whole, later ones land, the weights are undisturbed."""

    def plant(trainer):
        before_the_look(trainer, 1, lambda: fill(small_disk))
        before_the_look(trainer, 3, (small_disk / "filler").unlink)

    store = survive(plant, out=small_disk, background=background)
    landed = [step for step, status in statuses(store) if status == "ok"]
    assert landed == [0, 3] or (background and landed == [3])  # the first may still be under way as the disk fills
    assert not list(store.path.rglob("*.tmp"))
    whole(store)
    clean_next_start(small_disk)


def test_no_room_from_the_start(small_disk):
    """Refused before the first step, in one line."""
    fill(small_disk)
    refused(small_disk, "cannot write")


@pytest.mark.slow
def test_read_only_from_the_start(tmp_path):
    """Refused before the first step, in one line."""
    with read_only(tmp_path):
        refused(tmp_path, "cannot write")


@pytest.mark.slow
def test_read_only_in_the_middle(tmp_path, survive):
    """Looks are lost with their reason said, training goes on, and the next start is clean."""
    with contextlib.ExitStack() as until_the_end:
        store = survive(
            lambda trainer: before_the_look(trainer, 1, lambda: until_the_end.enter_context(read_only(tmp_path)))
        )
        assert statuses(store) == [(0, "ok")]
    clean_next_start(tmp_path)


def test_read_only_on_resume(small_disk):
    """Refused before the first step, in one line."""
    checkpoint = watched(small_disk.parent / "elsewhere", checkpoints=True)
    shutil.copytree(small_disk.parent / "elsewhere" / "divwatch", small_disk / "divwatch")
    with read_only(small_disk):
        refused(small_disk, "cannot", resume=checkpoint)


@pytest.mark.parametrize(
    "background",
    [
        cell("the run directory deleted in the middle", False),
        cell("the run directory deleted in the middle, scored in the background", True, slow=True),
    ],
)
def test_a_deleted_directory(tmp_path, survive, background):
    """It is made anew, the looks that follow land in it, and the next start is clean."""

    def plant(trainer):
        before_the_look(trainer, 2, lambda: shutil.rmtree(tmp_path / "divwatch"))

    store = survive(plant, background=background)
    assert statuses(store)[-2:] == [(2, "ok"), (3, "ok")]
    assert store.info()["stage"] == "sft"
    clean_next_start(tmp_path)


TORN = {
    "looks.jsonl": b'{"step": 2, "status": "o',
    "events.jsonl": b'{"step": 2, "ki',
    "completions/step-00000002.parquet.tmp": b"PAR1 torn",
    "scores/step-00000002.parquet.tmp": b"PAR1 torn",
}


@pytest.mark.parametrize(
    "name", [cell(f"torn at its end by a crash: {name}", name, slow=i > 0) for i, name in enumerate(TORN)]
)
def test_a_torn_file(tmp_path, undisturbed_record, name):
    """Passed over: the resumed run ends with the record of an uninterrupted one."""
    checkpoint = watched(tmp_path, checkpoints=True)
    with (tmp_path / "divwatch" / name).open("ab") as file:
        file.write(TORN[name])
    resumed(tmp_path, checkpoint)
    assert RunDirectory.of(tmp_path).looks()[-1]["step"] == 3
    assert rows(tmp_path) == undisturbed_record
    assert not list((tmp_path / "divwatch").rglob("*.tmp"))


DAMAGED = {
    "scores/step-00000001.parquet": "scored again",
    "scores/step-00000000.parquet": "scored again",
    "completions/step-00000001.parquet": "kept out",
    "looks.jsonl": "line 1 is damaged",
    "events.jsonl": "line 1 is damaged",
    "run.json": "is damaged",
}


@pytest.mark.parametrize(
    ("name", "background"),
    [
        cell("corrupt on resume: scores of a look (Parquet)", "scores/step-00000001.parquet", False),
        cell("corrupt on resume: scores of a look, in the background", "scores/step-00000001.parquet", True, slow=True),
        cell("corrupt on resume: scores of the first look", "scores/step-00000000.parquet", False, slow=True),
        cell("empty on resume: scores of a look", "empty scores/step-00000001.parquet", False, slow=True),
        cell("missing on resume: scores of a look", "missing scores/step-00000001.parquet", False, slow=True),
    ],
)
def test_damaged_scores(tmp_path, undisturbed_record, name, background):
    """Computed again from the stored completions: the resumed run ends with the record of an uninterrupted one."""
    checkpoint = watched(tmp_path, checkpoints=True)
    how, _, name = name.rpartition(" ")
    damage(tmp_path / "divwatch" / name, how)
    resumed(tmp_path, checkpoint, background=background)
    assert rows(tmp_path) == undisturbed_record


@pytest.mark.parametrize(
    ("names", "background"),
    [
        cell("corrupt on resume: scores and completions of a look", ["scores", "completions"], False, slow=True),
        cell(
            "corrupt on resume: scores and completions of a look, background",
            ["scores", "completions"],
            True,
            slow=True,
        ),
        cell("corrupt on resume: completions of a scored look", ["completions"], False, slow=True),
    ],
)
def test_a_look_that_is_lost(tmp_path, names, background, survive):
    """That look is on record as failed, or as it was scored; the others go on."""
    checkpoint = watched(tmp_path, checkpoints=True)
    for part in names:
        damage(tmp_path / "divwatch" / part / "step-00000001.parquet")
    resumed(tmp_path, checkpoint, background=background)
    expected = "failed" if len(names) == 2 else "ok"
    assert statuses(RunDirectory.of(tmp_path)) == [(0, "ok"), (1, expected), (2, "ok"), (3, "ok")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        cell("corrupt on resume: run.json", "run.json", b"{", "is damaged"),
        cell("run.json of an older format on resume", "run.json", b'{"format": 0}', "format 0", slow=True),
        cell("run.json of a newer format on resume", "run.json", b'{"format": 99}', "format 99", slow=True),
        cell("run.json that is a list on resume", "run.json", b"[]", "is damaged", slow=True),
        cell("run.json of the right format with nothing in it", "run.json", b'{"format": 1}', "KeyError", slow=True),
        cell(
            "looks.jsonl damaged in the middle on resume",
            "looks.jsonl",
            b'{"step": 0\n{}\n{"step": 2}\n',
            "line 1",
            slow=True,
        ),
        cell(
            "looks.jsonl with a line that is no look",
            "looks.jsonl",
            b'{"step": 0}\n42\n{"step": 2}\n',
            "line 2",
            slow=True,
        ),
        cell("looks.jsonl that is not UTF-8", "looks.jsonl", b"\xff\xfe\n{}\n", "line 1", slow=True),
    ],
)
def test_a_record_that_cannot_be_resumed(tmp_path, name, content, says):
    """Refused before the first step, in one line that names the file; a fresh start moves it aside."""
    checkpoint = watched(tmp_path, checkpoints=True)
    (tmp_path / "divwatch" / name).write_bytes(content)
    refused(tmp_path, says, resume=checkpoint)
    clean_next_start(tmp_path)


def test_two_runs_at_one_directory(tmp_path, survive):
    """The second is refused in one line before its first step; the first is undisturbed; afterwards the place is free."""
    program = (
        "import sys, pathlib; from tests.training import sft_trainer; from tests.faults.undisturbed import QUICK\n"
        "import divwatch\n"
        "trainer = sft_trainer(pathlib.Path(sys.argv[1]), steps=1)\ndivwatch.watch(trainer, **QUICK)\ntrainer.train()"
    )
    said = []

    def second():
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], env=child_environment(), capture_output=True
        )
        said.append(done.stderr.decode().strip().splitlines()[-1])
        assert done.returncode

    store = survive(lambda trainer: before_the_look(trainer, 2, second))
    assert "another run" in said[0]
    assert statuses(store) == [(step, "ok") for step in range(4)]
    assert not (tmp_path / "divwatch-1").exists()
    clean_next_start(tmp_path)


@pytest.mark.slow
def test_the_clock_set_back(tmp_path, survive, monkeypatch):
    """Looks keep their order, durations stay positive."""
    import time

    now = time.time

    def plant(trainer):
        before_the_look(trainer, 2, lambda: monkeypatch.setattr(time, "time", lambda: now() - 3e7))

    store = survive(plant)
    assert statuses(store) == [(step, "ok") for step in range(4)]
    assert all(look["seconds"]["total"] >= 0 for look in store.looks())
    assert store.looks()[3]["time"] < store.looks()[0]["time"]


def test_standard_output_that_cannot_be_written(tmp_path, survive, monkeypatch):
    """Nothing is said, and everything else goes on."""

    def plant(trainer):
        trainer.callback_handler.callbacks = [
            c for c in trainer.callback_handler.callbacks if type(c).__name__ != "PrinterCallback"
        ]
        monkeypatch.setattr(sys, "stdout", open("/dev/full", "w", buffering=1))  # noqa: SIM115

    assert statuses(survive(plant)) == [(step, "ok") for step in range(4)]


@pytest.mark.parametrize(
    "background",
    [
        cell("no file handle left at a look (RLIMIT_NOFILE)", False, slow=True),
        cell("no file handle left at a look, scored in the background", True, slow=True),
    ],
)
def test_no_file_handle_left(tmp_path, survive, background):
    """The look is lost, later ones land."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(to):
        resource.setrlimit(resource.RLIMIT_NOFILE, (to, hard))

    def plant(trainer):
        before_the_look(trainer, 1, lambda: limit(3))
        trainer.callback_handler.callbacks.append(At(1, lambda: limit(soft)))

    landed = [step for step, status in statuses(survive(plant, background=background)) if status == "ok"]
    assert landed == [0, 2, 3]


# what the tests above share


@pytest.fixture(scope="session")
def undisturbed_record(tmp_path_factory):
    """{step: (completions, scores, tasks)} of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("record")
    watched(out)
    return rows(out)


def watched(out, checkpoints=False):
    """A finished watched run of two of its three steps, or of all; the checkpoint that it can be resumed from."""

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                control.should_training_stop = True

    saving = {"save_strategy": "steps", "save_steps": 1} if checkpoints else {}
    trainer = sft_trainer(out, steps=3, **saving)
    divwatch.watch(trainer, **QUICK)
    if checkpoints:
        trainer.add_callback(Interrupt())
    trainer.train()
    return str(out / "checkpoint-2")


def resumed(out, checkpoint, **settings):
    trainer = sft_trainer(out, steps=3)
    divwatch.watch(trainer, **QUICK | settings)
    trainer.train(resume_from_checkpoint=checkpoint)


def refused(out, says, resume=None):
    with pytest.raises(DivwatchError, match=says) as error:
        resumed(out, resume)
    assert "\n" not in str(error.value)


def rows(out):
    store = RunDirectory.of(out)
    lines = [json.loads(line) for line in (store.path / "looks.jsonl").read_bytes().splitlines()]
    assert len([line for line in lines if line["status"] != "unscored"]) == len(store.looks()), "a look is there twice"
    return {
        look["step"]: (
            store.completions(look["step"]),
            store.scores(look["step"]).values["diversity/ead"].tolist(),
            look["tasks"],
        )
        for look in store.looks()
    }


def whole(store):
    """Every file can be read, and everything said to be scored is there."""
    for look in store.looks():
        if look["status"] == "ok":
            assert len(store.completions(look["step"])) == 24
            assert len(store.scores(look["step"]).ids) == 6


def clean_next_start(out):
    """A fresh start at the same place: the earlier record is kept aside, the new one is whole."""
    aside = len(list(Path(out).glob("divwatch-*")))
    resumed(out, None)
    store = RunDirectory.of(out)
    assert statuses(store) == [(step, "ok") for step in range(4)]
    assert len(list(Path(out).glob("divwatch-*"))) == aside + 1
    whole(store)


def damage(path, how=""):
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    else:
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle:] = bytes(b ^ 0xFF for b in content[middle:])
        path.write_bytes(content)


@contextlib.contextmanager
def read_only(folder):
    """For root too, who may write into any folder whose mode says otherwise: a bind mount."""
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True)
    if bound.returncode:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def child_environment():
    folders = itertools.chain(sys.path, [str(Path(__file__).parents[2])])
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in folders if p)}
