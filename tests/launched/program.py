# ruff: noqa: E402 -- what a launch needs must be set before torch and accelerate are imported
"""What the launched tests run on every rank: one training per arm. Rank 0 writes the results of an arm to OUT/ARM.json.

python program.py OUT '{"kind": "sft", "arms": {"off": null, "watched": {...settings}, "grpo/off": null}}'

An arm trains with the trainer that its name begins with (`grpo/...`), else with that of `kind`.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
out, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
if plan.get("strategy") == "fsdp2":
    import tests.launched.fsdp2_on_cpu  # noqa: F401

import torch
from transformers import TrainerCallback

import divwatch
from divwatch.sampling.ranks import Ranks
from tests.launched import planting
from tests.training import SETTINGS, dpo_trainer, grpo_trainer, lora_trainer, sft_trainer

KINDS = {"sft": sft_trainer, "dpo": dpo_trainer, "grpo": grpo_trainer, "lora": lora_trainer}


class NaiveCallback(TrainerCallback):
    """What people write first: sample in on_step_end, from the trainer's model as it is."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        torch.rand(1)  # where a sharded model cannot generate, its random numbers alone are enough
        with torch.no_grad():
            model(input_ids=torch.tensor([[1, 5, 9]]))


def whole(parameter):
    """A parameter's full values, however it is sharded."""
    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach()


def fingerprint(model):
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(whole(parameter).contiguous().float().numpy().tobytes())
    return digest.hexdigest()


def proof(trainer):
    """Facts that show which strategy ran."""
    model, engine = trainer.accelerator.unwrap_model(trainer.model_wrapped), type(trainer.model_wrapped).__name__
    plugin = trainer.accelerator.state.deepspeed_plugin
    sharded = sum(getattr(p, "ds_numel", p.numel()) != p.numel() for p in model.parameters())
    return {
        "world": trainer.accelerator.num_processes,
        "engine": engine,
        "model": type(model).__name__,
        "zero": plugin.zero_stage if plugin else 0,
        "sharded": sharded,
        "training": model.training,
    }


def run(name, settings):
    training = plan.get("training", {}) | (settings.pop("training", {}) if settings else {})
    kind, _, arm = name.rpartition("/")
    trainer = KINDS[kind or plan["kind"]](out / name, **training)
    if arm == "naive":
        trainer.add_callback(NaiveCallback())
    elif settings is not None:
        planting.plant(settings.pop("fault", None), trainer)
        divwatch.watch(trainer, **SETTINGS | settings)
    gauge = None
    if plan.get("gauge"):
        from tests.faults.test_soak import Gauge

        gauge = Gauge()
        trainer.add_callback(gauge)
    trainer.train()
    planting.remove()
    if gauge is not None:
        (out / f"gauge-{trainer.accelerator.process_index}.json").write_text(json.dumps(gauge.taken))
    ranks = Ranks.of(trainer.accelerator)
    found = {"weights": fingerprint(trainer.model), "proof": proof(trainer), "step": trainer.state.global_step}
    everybody = ranks.share(found)
    if ranks.main:
        (out / f"{name}.json").write_text(json.dumps({"ranks": everybody, "log": trainer.state.log_history}))
    ranks.share(None)
    return trainer


for arm, settings in plan["arms"].items():
    run(arm, dict(settings) if settings is not None else None)
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
print("done", os.environ.get("RANK", "0"), flush=True)
