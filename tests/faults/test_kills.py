"""SIGKILL at random moments, then resume: nothing that was reported done is lost, doubled or torn.

A server process with all libraries loaded forks a training for each trial, so that fifty trials take minutes. Each training
reports through a pipe which looks it has put on record; it is killed, and the next one resumes from the last checkpoint.
"""

import json
import os
import random
import select
import signal
import time

import pytest

import divwatch
from divwatch.ablation.launch import last_checkpoint
from divwatch.store.run_directory import RunDirectory
from tests.faults.test_storage import rows
from tests.faults.undisturbed import QUICK
from tests.training import sft_trainer, weights_hash

STEPS = 6


def train(out, background, tell):
    """In the child: trains on from the last whole checkpoint, tells of every look on record and of the final weights."""
    trainer = sft_trainer(out, steps=STEPS, save_strategy="steps", save_steps=2)
    divwatch.watch(trainer, **QUICK | {"background": background})
    append_look = RunDirectory.append_look

    def told(self, look):
        append_look(self, look)
        if look["status"] == "ok":
            tell({"look": look["step"]})

    RunDirectory.append_look = told
    trainer.train(resume_from_checkpoint=last_checkpoint(out))
    tell({"weights": weights_hash(trainer.model)})


def trial(out, background, kill_after):
    """Forks a training and kills it so many seconds on (None: never); what it told."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(0)
            os.close(reader)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            train(out, background, lambda message: os.write(writer, json.dumps(message).encode() + b"\n"))
        finally:
            os._exit(0)
    os.close(writer)
    said, until = b"", None if kill_after is None else time.monotonic() + kill_after
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        if not select.select([reader], [], [], left)[0]:
            os.kill(child, signal.SIGKILL)
            until = None
            continue
        part = os.read(reader, 1 << 16)
        if not part:
            break
        said += part
    os.waitpid(child, 0)
    os.close(reader)
    return [json.loads(line) for line in said.splitlines() if line.endswith(b"}")]


def unharmed(out, reported):
    """What this training reported done is on record, once, and whole; nothing else claims to be scored."""
    store = RunDirectory.of(out)
    if not store.exists:
        return
    for look in store.looks():
        if look["status"] == "ok":
            assert len(store.completions(look["step"])) == 24
            assert len(store.scores(look["step"]).ids) == 6
    lines = [json.loads(line) for line in (store.path / "looks.jsonl").read_bytes().splitlines() if line.endswith(b"}")]
    done = [line["step"] for line in lines if line["status"] == "ok"]
    assert reported <= set(done), f"lost: {reported - set(done)}"
    assert len(done) == len(set(done)), f"doubled: {done}"


@pytest.mark.parametrize(
    ("kills", "background"),
    [
        pytest.param(3, False, id="3"),
        pytest.param(
            30,
            False,
            id="30",
            marks=[
                pytest.mark.slow,
                pytest.mark.limit(900),
            ],
        ),
        pytest.param(
            30,
            True,
            id="30-background",
            marks=[
                pytest.mark.slow,
                pytest.mark.limit(900),
            ],
        ),
    ],
)
def test_killed_at_random_moments_and_resumed(tmp_path, kills, background, undisturbed):
    """Nothing reported done is lost, doubled or torn; record and weights end as those of an undisturbed run."""
    whole = tmp_path / "whole"
    started = time.monotonic()
    trial(whole, background, None)
    seconds = time.monotonic() - started  # what a whole run takes here: moments all over it
    expected = rows(whole)
    moments, killed, runs, later = random.Random(0), 0, 0, 0
    while killed < kills:
        out = tmp_path / f"run-{runs}"
        runs += 1
        for _ in range(200):
            told = trial(out, background, moments.uniform(0.05, seconds) if killed < kills else None)
            if (out / "divwatch" / "looks.jsonl").is_file():
                unharmed(out, {message["look"] for message in told if "look" in message})
            done = any("weights" in message for message in told)
            if done:
                break
            killed += 1
            later += any("look" in message for message in told)
        assert done, "never ended"
        assert told[-1]["weights"] == undisturbed(sft_trainer, STEPS)
        assert rows(out) == expected
        assert not list((out / "divwatch").rglob("*.tmp"))
