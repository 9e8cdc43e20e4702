"""What a run is called, from its trainer."""

from types import SimpleNamespace

import pytest
import transformers
import trl
from trl.experimental import kto, online_dpo, orpo

from divwatch.config import WatchConfig
from divwatch.monitor.description import RunDescription


class Mine(kto.KTOTrainer):
    """A class of the user's own."""


STAGES = {
    trl.SFTTrainer: "sft", trl.DPOTrainer: "dpo", trl.GRPOTrainer: "rl", trl.RLOOTrainer: "rl", kto.KTOTrainer: "kto",
    orpo.ORPOTrainer: "orpo", online_dpo.OnlineDPOTrainer: "dpo", Mine: "kto", transformers.Trainer: "training",
}  # fmt: skip


@pytest.mark.parametrize("kind", STAGES)
def test_a_stage_is_named_after_its_method(kind):
    trainer = kind.__new__(kind)
    trainer.model = SimpleNamespace(name_or_path="")
    assert RunDescription(trainer, WatchConfig()).stage == STAGES[kind]
    assert RunDescription(trainer, WatchConfig(stage="warm-up")).stage == "warm-up"
