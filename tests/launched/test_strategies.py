"""Looking changes nothing and hangs nowhere, under real launches: DDP, ZeRO-2, ZeRO-3, FSDP2, two processes each.

`make test` runs one kind of training under each strategy, `make test-all` every pair. A launch trains several arms one
after the other, because starting one takes longer than training.
"""

import pytest

from divwatch.store.run_directory import RunDirectory
from tests.launched.launching import launch, start

PROOF = {
    "single": {"world": 1, "zero": 0, "engine": "Olmo3ForCausalLM"},
    "ddp": {"world": 2, "zero": 0, "engine": "DistributedDataParallel"},
    "zero2": {"world": 2, "zero": 2, "engine": "DeepSpeedEngine"},
    "zero3": {"world": 2, "zero": 3, "engine": "DeepSpeedEngine"},
    "fsdp2": {"world": 2, "zero": 0, "engine": "FSDPOlmo3ForCausalLM"},
}
FAST = [("ddp", "sft"), ("zero2", "dpo"), ("zero3", "sft"), ("fsdp2", "dpo"), ("ddp", "grpo"), ("single", "lora")]
FULL = [("ddp", "dpo"), ("zero2", "sft"), ("zero3", "dpo"), ("fsdp2", "sft"), ("ddp", "lora"), ("zero3", "lora")]
TRAINING = {"steps": 3, "gradient_checkpointing": True}


def weights(found, arm):
    """The final weights' hash of an arm, which all ranks must share."""
    hashes = {rank["weights"] for rank in found[arm]["ranks"]}
    assert len(hashes) == 1
    return hashes.pop()


def own_metrics(found, arm):
    """The trainer's own log, less what depends on the clock and what is ours (GRPO's rollouts)."""
    ours = ("time", "second", "rollouts/")
    entries = [entry for entry in found[arm]["log"] if "loss" in entry]
    return [{k: v for k, v in entry.items() if not any(part in k for part in ours)} for entry in entries]


def looks(out, arm):
    return [(look["step"], look["status"]) for look in RunDirectory.of(out / arm).looks()]


@pytest.mark.parametrize(("strategy", "kind"), [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in FULL)])
def test_final_weights_are_bit_identical_with_and_without_the_monitor(strategy, kind, tmp_path):
    arms = {"off": None, "watched": {"every": 2}, "naive": {}}
    if strategy in ("zero3", "fsdp2"):
        arms["in_step"] = {"every": 2, "gather": False}  # weights left sharded, ranks decode in step
    processes = PROOF[strategy]["world"]
    found = launch(strategy, tmp_path, {"kind": kind, "training": TRAINING, "arms": arms}, processes)
    proof = found["watched"]["ranks"][0]["proof"]
    if kind != "lora":
        assert PROOF[strategy].items() <= proof.items(), "the launch fell back to another strategy"
    assert proof["world"] == processes
    assert proof["zero"] == PROOF[strategy]["zero"]
    assert strategy != "zero3" or proof["sharded"] > 40
    assert proof["training"], "a look left the model in eval mode"
    for arm in arms.keys() - {"off", "naive"}:
        assert looks(tmp_path, arm) == [(0, "ok"), (2, "ok"), (3, "ok")]
        assert weights(found, arm) == weights(found, "off"), arm
    assert weights(found, "naive") != weights(found, "off"), "nothing random in training: the comparison shows nothing"
    assert own_metrics(found, "watched") == own_metrics(found, "off")


def test_ranks_fail_and_agree_where_each_samples_alone(tmp_path):
    """DDP: a fault of one rank, before or between generate calls or inside one, ends the look on all and nothing else."""
    faulty = {"every": 2, "on_error": "record", "samples": 8}
    arms = {"off": None}
    for where in ("before", "inside", "memory"):
        arms[where] = {**faulty, "fault": {"where": where, "rank": 1, "step": 2}}
    arms["first"] = {**faulty, "fault": {"where": "before", "rank": 0, "step": 0}}
    arms["few"] = {"every": 2, "prompts": 1, "samples": 3}
    arms["one_each"] = {"every": 2, "prompts": 1, "samples": 2}
    arms["background"] = {"every": 2, "background": True}
    found = launch("ddp", tmp_path, {"kind": "sft", "training": {"steps": 3}, "arms": arms})
    for arm in arms:
        assert weights(found, arm) == weights(found, "off"), arm
    assert looks(tmp_path, "before") == looks(tmp_path, "inside") == [(0, "ok"), (2, "failed"), (3, "ok")]
    assert looks(tmp_path, "first") == [(0, "failed"), (2, "ok"), (3, "ok")]
    for arm in ("memory", "background", "few", "one_each"):
        assert [step for step, status in looks(tmp_path, arm) if status != "failed"] == [0, 2, 3]
    failed = RunDirectory.of(tmp_path / "inside").looks()[1]
    assert failed["reason"] == "rank 1: RuntimeError: planted inside a batch"
    assert len(RunDirectory.of(tmp_path / "few").read_completions(2)) == 3


def test_an_alarm_stops_all_ranks_at_the_same_step(tmp_path):
    stop = {"every": 1, "on_collapse": "stop", "prompts": 48, "metrics": ["ead", "sbert"]}
    arms = {"stop": stop | {"fault": {"where": "alike", "step": 2}, "training": {"steps": 8}}}
    found = launch("ddp", tmp_path, {"kind": "sft", "arms": arms})
    alarm = next(e for e in RunDirectory.of(tmp_path / "stop").events() if e["task"] == "all")
    assert {rank["step"] for rank in found["stop"]["ranks"]} == {alarm["step"]}
    assert alarm["step"] < 8


@pytest.mark.parametrize("strategy", ["zero3", "fsdp2"])
def test_sharded_ranks_fail_and_agree(strategy, tmp_path):
    """Gathered weights make a rank's sampling its own again; in step, ranks without work go along."""
    fault = {"where": "inside", "rank": 1, "step": 2}
    arms = {
        "off": None,
        "inside": {"every": 2, "on_error": "record", "prompts": 48, "samples": 16, "fault": fault},
        "before": {"every": 2, "on_error": "record", "gather": False, "fault": fault | {"where": "before"}},
        "few": {"every": 2, "gather": False, "prompts": 1, "samples": 3},
    }
    found = launch(strategy, tmp_path, {"kind": "sft", "training": {"steps": 3}, "arms": arms})
    for arm in arms:
        assert weights(found, arm) == weights(found, "off"), arm
    assert looks(tmp_path, "inside") == looks(tmp_path, "before") == [(0, "ok"), (2, "failed"), (3, "ok")]
    assert len(RunDirectory.of(tmp_path / "few").read_completions(2)) == 3


def test_a_rank_failing_inside_a_sharded_forward_ends_the_run_with_the_reason(tmp_path):
    """The run ends in bounded time with rank and reason on one line; it can be resumed."""
    fault = {"where": "inside", "rank": 1, "step": 2}
    arms = {
        "in_step": {"every": 2, "on_error": "record", "gather": False, "prompts": 48, "samples": 16, "fault": fault}
    }
    done = start("zero3", tmp_path, {"kind": "sft", "training": {"steps": 3}, "arms": arms})
    assert done.returncode != 0
    assert "rank 1 failed where the others wait for it: RuntimeError: planted inside a batch" in done.stdout


def test_a_sharded_look_draws_what_a_single_process_draws(tmp_path):
    """Each row has a random stream of its own, so ranks and batches change nothing but the last digits of a probability."""
    from divwatch.config import WatchConfig
    from divwatch.panel import choose
    from divwatch.sampling import Source, sample
    from divwatch.tiny.panel import panel
    from tests.training import SETTINGS, load_model, load_tokenizer

    settings = SETTINGS | {"prompts": 30, "samples": 8}
    config = WatchConfig(**settings)
    prompts = choose(panel(), 30, 0)
    alone = sample(Source(load_model()), load_tokenizer(), prompts, config, 0)
    told = {"kind": "sft", "training": {"steps": 1}, "arms": {"ranks": {"every": 1, "prompts": 30, "samples": 8}}}
    launch("ddp", tmp_path, told)
    together = RunDirectory.of(tmp_path / "ranks").read_completions(0)
    assert [(c.prompt_id, c.sample) for c in together] == [(c.prompt_id, c.sample) for c in alone]
    alike = sum(one.text == other.text for one, other in zip(alone, together, strict=True))
    assert alike >= 0.98 * len(alone)
    by_prompt = {c.prompt_id: {o.text for o in together if o.prompt_id == c.prompt_id} for c in together}
    assert sum(map(len, by_prompt.values())) > 4 * len(by_prompt), "ranks drew the same"
