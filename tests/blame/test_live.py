"""Blame while training runs: equal to `divwatch blame` on the checkpoint of the same step, and off where it cannot be."""

import json
import random

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

import divwatch
from divwatch.blame.data import TrainingData
from divwatch.blame.live_data import rows_of_training
from divwatch.blame.losses import RowLosses
from divwatch.blame.offline import BlameConfig, measure_run
from divwatch.blame.trace import read_checkpoint
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.metrics.encoder import load_encoder
from divwatch.monitor.panel_of_run import panel_of_run
from divwatch.outputs.report import write_report
from divwatch.store.run_directory import RunDirectory
from tests.training import SETTINGS, dataset, dpo_trainer, grpo_trainer, sft_trainer, weights_hash

BLAME = SETTINGS | {"every": 2, "prompts": 2, "samples": 6, "blame": True, "blame_rows": 3}


class Snapshots(TrainerCallback):
    """What a look must leave as it is, each time that a step has ended."""

    def __init__(self, trainer):
        self.trainer, self.taken = trainer, []
        trainer.add_callback(self)

    def on_step_end(self, args, state, control, **kwargs):
        model, optimizer = self.trainer.model, self.trainer.optimizer
        moments = [s["exp_avg_sq"].clone() for s in optimizer.state.values()]
        self.taken.append(
            {
                "weights": weights_hash(model),
                "gradients": [p.grad is None for p in model.parameters()],
                "moments": [m.sum().item() for m in moments],
                "modes": [m.training for m in model.modules()],
                "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
                "keys": [sorted(vars(m)) for m in model.modules()],
                "threads": torch.get_num_threads(),
            }
        )


def test_live_blame_leaves_no_trace_and_equals_blame_of_the_checkpoint_of_the_same_step(tmp_path):
    trainer = sft_trainer(tmp_path, steps=2, save_strategy="steps", save_steps=2, gradient_checkpointing=True)
    before = Snapshots(trainer)
    divwatch.watch(trainer, **BLAME)
    after = Snapshots(trainer)
    trainer.train()
    assert after.taken == before.taken
    assert len(after.taken) == 2
    live = RunDirectory.of(tmp_path).blame_arrays(2)

    config = WatchConfig(**BLAME)
    drawn = rows_of_training(trainer, config.blame_rows, config.seed)
    raw = drawn.rows.select_columns(["prompt", "completion", "source"])
    data = TrainingData(raw, drawn.labels, drawn.shares, "sft")
    checkpoint = read_checkpoint(str(tmp_path / "checkpoint-2"))
    _, prompts = panel_of_run(RunDirectory.of(tmp_path))
    encoder = load_encoder("minilm", device="cpu")
    (offline,) = measure_run([checkpoint], data, prompts, BlameConfig(config), encoder)

    assert live["values"] == pytest.approx(offline.look.values, abs=1e-6)
    # The norm of the last gradient is logged after the look: clipping is known less well by one step.
    known = checkpoint._replace(history=[row for row in checkpoint.history if row["step"] < 2])
    ratio = known.clipping(1.0) / checkpoint.clipping(1.0)
    assert list(live["tasks"]) == list(offline.rows)
    for task, rows in zip(live["tasks"], live["rows"], strict=True):
        scale = np.abs(offline.rows[str(task)]).max() * ratio
        assert rows / scale == pytest.approx(offline.rows[str(task)] * ratio / scale, abs=0.01)
    scale = np.abs(offline.influence).max() * ratio
    assert live["influence"] / scale == pytest.approx(offline.influence * ratio / scale, abs=0.01)

    page = write_report([tmp_path], tmp_path).read_text()
    assert "Which data narrow it" in page
    for text in ("Rows that narrow most", "If left out", *(f'<th scope="row">{s}</th>' for s in drawn.sources)):
        assert text in page


def without_source(trainer):
    trainer.train_dataset = trainer.train_dataset.remove_columns("source")


def packed(trainer):
    trainer.args.packing = True


def streamed(trainer):
    trainer.train_dataset = trainer.train_dataset.to_iterable_dataset()


def lonely(trainer):
    names = ["rare", *["many"] * (len(trainer.train_dataset) - 1)]
    trainer.train_dataset = trainer.train_dataset.remove_columns("source").add_column("source", names)


def own_loss(trainer):
    trainer.compute_loss_func = print


def unknown_loss(trainer):
    trainer.loss_types = ["robust"]


@pytest.mark.parametrize(
    ("make", "change", "reason"),
    [
        (grpo_trainer, lambda trainer: None, "not that of GRPOTrainer"),
        (sft_trainer, without_source, "no column source"),
        (sft_trainer, packed, "set packing: false"),
        (sft_trainer, streamed, "no IterableDataset"),
        (sft_trainer, lonely, "'rare' has 1 row"),
        (sft_trainer, own_loss, "compute_loss_func"),
        (dpo_trainer, unknown_loss, "outside of the trainer"),
    ],
)
def test_what_cannot_be_blamed_is_one_line(make, change, reason, tmp_path):
    trainer = make(tmp_path)
    change(trainer)
    with pytest.raises(DivwatchError, match=reason) as error:
        rows_of_training(trainer, 4, 0)
    assert "\n" not in str(error.value)


def test_rows_that_the_trainer_packed_are_read_from_the_data_before_packing(tmp_path):
    plain = sft_trainer(tmp_path, max_length=64)
    packing = sft_trainer(tmp_path, max_length=64, packing=True)
    assert "source" not in packing.train_dataset.column_names
    expected = rows_of_training(plain, 3, 0)
    data = rows_of_training(packing, 3, 0, unpacked=dataset("instruct_sft"))
    assert (data.labels, data.shares) == (expected.labels, expected.shares)
    assert data.rows["input_ids"][:] == expected.rows["input_ids"][:]
    losses = [RowLosses(t, plain.model, d.rows).values([0, 1, 5]) for t, d in ((plain, expected), (packing, data))]
    assert losses[1] == pytest.approx(losses[0])


def test_training_goes_on_without_blame_where_there_are_no_second_moments(tmp_path, capsys):
    trainer = sft_trainer(tmp_path, steps=2, optim="sgd")
    divwatch.watch(trainer, **BLAME | {"on_error": "record", "every": 1})
    trainer.train()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "no blame at step" in line]
    assert line.endswith("training continues: the optimizer holds no second moments of the gradient: train with AdamW")
    assert [look["status"] for look in RunDirectory.of(tmp_path).looks()] == ["ok"] * 3


def test_training_goes_on_without_blame_where_rows_have_no_source(tmp_path, capsys):
    trainer = sft_trainer(tmp_path, steps=1)
    without_source(trainer)
    divwatch.watch(trainer, **BLAME)
    trainer.train()
    assert "divwatch: blame is off: the training data have no column source" in capsys.readouterr().out
    assert RunDirectory.of(tmp_path).blames() == []


@pytest.mark.slow
def test_a_resumed_run_adds_to_the_blame_of_its_checkpoint(tmp_path):
    settings = BLAME | {"every": 1, "prompts": 1, "blame_rows": 2}
    lines = []
    for checkpoint in (None, str(tmp_path / "checkpoint-2")):
        trainer = sft_trainer(tmp_path, steps=3, save_strategy="steps", save_steps=2)
        divwatch.watch(trainer, **settings)
        trainer.train(resume_from_checkpoint=checkpoint)
        lines.append((tmp_path / "divwatch" / "blame.jsonl").read_text().splitlines())
    first, second = lines
    assert second[:2] == first[:2]
    for source, tasks in json.loads(first[2])["sources"].items():
        again = json.loads(second[2])["sources"][source]["all"]
        for name in ("effect", "added", "instead"):
            assert again[name] == pytest.approx(tasks["all"][name], rel=1e-3)
