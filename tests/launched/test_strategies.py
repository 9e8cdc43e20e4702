"""Looking changes nothing and hangs nowhere, under real launches: DDP, ZeRO-2, ZeRO-3, FSDP2, two processes each.

`make test` runs one kind of training under each strategy, `make test-all` every pair. A launch trains many arms one after
the other and several tests read them, because starting a launch takes longer than training.
"""

import numpy as np
import pytest

from divwatch.store.run_directory import RunDirectory
from tests.launched.launching import launch, read_results, start

PROOF = {
    "single": {"world": 1, "zero": 0, "engine": "Olmo3ForCausalLM"},
    "ddp": {"world": 2, "zero": 0, "engine": "DistributedDataParallel"},
    "zero2": {"world": 2, "zero": 2, "engine": "DeepSpeedEngine"},
    "zero3": {"world": 2, "zero": 3, "engine": "DeepSpeedEngine"},
    "fsdp2": {"world": 2, "zero": 0, "engine": "FSDPOlmo3ForCausalLM"},
}
FAST = [("zero2", "dpo"), ("single", "lora")]
FULL = [("ddp", "dpo"), ("zero2", "sft"), ("zero3", "dpo"), ("fsdp2", "sft"), ("ddp", "lora"), ("zero3", "lora")]
TRAINING = {"steps": 3, "gradient_checkpointing": True}
COMPARED = {"off": None, "watched": {"every": 2}, "naive": {}}
BLAMED = {"blamed": {"every": 2, "prompts": 1, "samples": 6, "blame": True, "blame_rows": 2}}
# The real clock, and a share that allows some looks and not all.
AUTO = {"every": "auto", "max_overhead": 0.3, "metrics": ["ead"], "training": {"steps": 8}}
# More rows than fit into a batch, and answers much shorter than the limit: batches are refilled.
REFILLED = {
    "every": 1, "prompts": 20, "samples": 16, "max_new_tokens": 256, "metrics": ["ead"], "training": {"steps": 1},
}  # fmt: skip
IN_STEP = {"in_step": {"every": 2, "gather": False}}  # weights left sharded, ranks decode in step


def weights(results, arm):
    """The final weights' hash of an arm, which all ranks must share."""
    hashes = {rank["weights"] for rank in results[arm]["ranks"]}
    assert len(hashes) == 1
    return hashes.pop()


def own_metrics(results, arm):
    """The trainer's own log, less what depends on the clock and what is ours (GRPO's rollouts)."""
    ours = ("time", "second", "rollouts/")
    entries = [entry for entry in results[arm]["log"] if "loss" in entry]
    return [{k: v for k, v in entry.items() if not any(part in k for part in ours)} for entry in entries]


def looks(out, arm):
    return [(look["step"], look["status"]) for look in RunDirectory.of(out / arm).looks()]


def assert_ranks_share_a_schedule(out, results):
    """All ranks looked at the same steps: a rank that did not would have left the others waiting."""
    weights(results, "auto")
    assert {rank["step"] for rank in results["auto"]["ranks"]} == {8}
    steps, planned = looks(out, "auto"), RunDirectory.of(out / "auto").schedule()["steps"]
    assert steps == [(step, "ok") for step in planned]
    assert (planned[0], planned[-1]) == (0, 8)


def assert_drawn_as_alone(run, prompts, one_by_one=False, **settings):
    """The first look has the completions that one process draws; returns them. one_by_one: of each prompt by itself."""
    from divwatch.config import WatchConfig
    from divwatch.panel import choose
    from divwatch.sampling import Source, sample
    from divwatch.tiny.panel import panel
    from tests.training import SETTINGS, load_model, load_tokenizer

    config, chosen = WatchConfig(**SETTINGS | settings), choose(panel(), prompts, 0)
    source, tokenizer = Source(load_model()), load_tokenizer()
    looks = [[prompt] for prompt in chosen] if one_by_one else [chosen]
    alone = [c for look in looks for c in sample(source, tokenizer, look, config, 0)]
    together = RunDirectory.of(run).read_completions(0)
    assert [(c.prompt_id, c.sample) for c in together] == [(c.prompt_id, c.sample) for c in alone]
    assert sum(a.text == b.text for a, b in zip(alone, together, strict=True)) >= 0.98 * len(alone)
    return together


def assert_blamed(out, results):
    """Blame at each look after the first, of every source, in the record and in the trainer's log."""
    lines = RunDirectory.of(out / "blamed").blames()
    assert [line["step"] for line in lines] == [2, 3]
    for line in lines:
        effects = [values["effect"] for tasks in line["sources"].values() for values in tasks.values()]
        assert np.isfinite(effects).all()
        assert max(map(abs, effects)) > 1e-9
    named = {f"blame/{source}/{task}" for source, tasks in lines[0]["sources"].items() for task in tasks}
    logged = [entry for entry in results["blamed"]["log"] if named <= entry.keys()]
    assert [entry["step"] for entry in logged] == [2, 3]


def assert_nothing_changed(strategy, out, results, kind="", model=True):
    """The watched arms of a kind end with the weights and the log of the arm without a monitor."""
    folder = kind + "/" if kind else ""
    proof = results[f"{folder}watched"]["ranks"][0]["proof"]
    if model:
        assert PROOF[strategy].items() <= proof.items(), "the launch fell back to another strategy"
    assert proof["world"] == PROOF[strategy]["world"]
    assert proof["zero"] == PROOF[strategy]["zero"]
    assert strategy != "zero3" or proof["sharded"] > 40
    assert proof["training"], "a look left the model in eval mode"
    off, naive, *watched = (f"{folder}{arm}" for arm in ("off", "naive", "watched", "in_step", "blamed"))
    for arm in results.keys() & set(watched):
        assert looks(out, arm) == [(0, "ok"), (2, "ok"), (3, "ok")]
        assert weights(results, arm) == weights(results, off), arm
    assert weights(results, naive) != weights(results, off), "nothing random in training: the comparison shows nothing"
    assert own_metrics(results, f"{folder}watched") == own_metrics(results, off)
    if "blamed" in results and not kind:
        assert_blamed(out, results)


@pytest.mark.parametrize(("strategy", "kind"), [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in FULL)])
def test_final_weights_are_bit_identical_with_and_without_the_monitor(strategy, kind, tmp_path):
    arms = COMPARED | BLAMED | (IN_STEP if strategy in ("zero3", "fsdp2") else {})
    results = launch(strategy, tmp_path, {"kind": kind, "training": TRAINING, "arms": arms}, PROOF[strategy]["world"])
    assert_nothing_changed(strategy, tmp_path, results, model=kind != "lora")


class TestDDP:
    """One launch: SFT and GRPO with and without the monitor, faults of one rank, an alarm, few prompts."""

    @pytest.fixture(scope="class")
    def ddp(self, tmp_path_factory):
        faulty = {"every": 2, "on_error": "record", "samples": 8}
        arms = COMPARED | BLAMED | {f"grpo/{name}": settings for name, settings in COMPARED.items()}
        for where in ("before", "inside", "memory"):
            arms[where] = faulty | {"fault": {"where": where, "rank": 1, "step": 2}}
        arms["first"] = faulty | {"fault": {"where": "before", "rank": 0, "step": 0}}
        arms["few"] = {"every": 2, "prompts": 1, "samples": 3}
        arms["one_each"] = {"every": 2, "prompts": 1, "samples": 2}
        arms["background"] = {"every": 2, "background": True}
        arms["auto"] = AUTO
        arms["stays"] = BLAMED["blamed"] | {"fault": {"where": "nudge_stays", "step": 2}}
        fault = {"where": "in_blame", "rank": 1, "step": 2}
        arms["in_blame"] = BLAMED["blamed"] | {"on_error": "record", "fault": fault}
        stop = {"every": 1, "on_collapse": "stop", "prompts": 48, "metrics": ["ead", "sbert"]}
        arms["stop"] = stop | {"fault": {"where": "alike", "step": 2}, "training": {"steps": 8}}
        arms["ranks"] = {"every": 1, "prompts": 30, "samples": 8, "metrics": ["ead"], "training": {"steps": 1}}
        out = tmp_path_factory.mktemp("ddp")
        return out, launch("ddp", out, {"kind": "sft", "training": TRAINING, "arms": arms})

    @pytest.mark.parametrize("kind", ["", "grpo"], ids=["sft", "grpo"])
    def test_final_weights_are_bit_identical_with_and_without_the_monitor(self, ddp, kind):
        assert_nothing_changed("ddp", *ddp, kind)

    def test_ranks_fail_and_agree_where_each_samples_alone(self, ddp):
        """A fault of one rank, before, between or inside generate calls, ends the look on all ranks and nothing else."""
        out, results = ddp
        for arm in ("before", "inside", "memory", "first", "few", "one_each", "background"):
            assert weights(results, arm) == weights(results, "off"), arm
        assert looks(out, "before") == looks(out, "inside") == [(0, "ok"), (2, "failed"), (3, "ok")]
        assert looks(out, "first") == [(0, "failed"), (2, "ok"), (3, "ok")]
        for arm in ("memory", "background", "few", "one_each"):
            assert [step for step, status in looks(out, arm) if status != "failed"] == [0, 2, 3]
        failed = RunDirectory.of(out / "inside").looks()[1]
        assert failed["reason"] == "rank 1: RuntimeError: planted inside a batch"
        assert len(RunDirectory.of(out / "few").read_completions(2)) == 3

    def test_ranks_fail_and_agree_in_blame_and_the_look_stands(self, ddp):
        out, results = ddp
        assert weights(results, "in_blame") == weights(results, "off")
        assert looks(out, "in_blame") == [(0, "ok"), (2, "ok"), (3, "ok")]
        assert [line["step"] for line in RunDirectory.of(out / "in_blame").blames()] == [3]

    def test_a_nudge_that_is_not_undone_changes_the_weights(self, ddp):
        """The negative control of blame: computed on the weights in training, it leaves them elsewhere."""
        assert weights(ddp[1], "stays") != weights(ddp[1], "off")

    def test_ranks_agree_on_the_looks_that_rank_0_plans_from_its_clock(self, ddp):
        assert_ranks_share_a_schedule(*ddp)

    def test_an_alarm_stops_all_ranks_at_the_same_step(self, ddp):
        out, results = ddp
        alarm = next(e for e in RunDirectory.of(out / "stop").events() if e["task"] == "all")
        assert {rank["step"] for rank in results["stop"]["ranks"]} == {alarm["step"]}
        assert alarm["step"] < 8

    def test_ranks_draw_what_a_single_process_draws(self, ddp):
        """Each row has its own random stream: ranks and batches change only the last digits of a probability."""
        together = assert_drawn_as_alone(ddp[0] / "ranks", 30, samples=8)
        by_prompt = {c.prompt_id: {o.text for o in together if o.prompt_id == c.prompt_id} for c in together}
        assert sum(map(len, by_prompt.values())) > 4 * len(by_prompt), "ranks drew the same"


FAULT = {"where": "inside", "rank": 1, "step": 2}
LONG = {"every": 2, "on_error": "record", "prompts": 48, "samples": 16, "fault": FAULT}
SHARDED = COMPARED | BLAMED | IN_STEP
SHARDED |= {
    "inside": LONG,
    "before": {"every": 2, "on_error": "record", "gather": False, "fault": FAULT | {"where": "before"}},
    "few": {"every": 2, "gather": False, "prompts": 1, "samples": 3},
    "auto": AUTO,
}


def assert_sharded_ranks_agree(strategy, out, results):
    """With gathered weights each rank samples alone; in step, ranks without prompts take part in every forward pass."""
    assert_nothing_changed(strategy, out, results)
    for arm in ("inside", "before", "few"):
        assert weights(results, arm) == weights(results, "off"), arm
    assert looks(out, "inside") == looks(out, "before") == [(0, "ok"), (2, "failed"), (3, "ok")]
    assert len(RunDirectory.of(out / "few").read_completions(2)) == 3
    assert_ranks_share_a_schedule(out, results)


def test_fsdp2_ranks_change_nothing_fail_and_agree(tmp_path):
    results = launch("fsdp2", tmp_path, {"kind": "dpo", "training": TRAINING, "arms": SHARDED})
    assert_sharded_ranks_agree("fsdp2", tmp_path, results)


class TestZeRO3:
    """One launch; its last arm ends it."""

    @pytest.fixture(scope="class")
    def zero3(self, tmp_path_factory):
        out = tmp_path_factory.mktemp("zero3")
        arms = SHARDED | {"refilled": REFILLED | {"gather": False}, "ends": LONG | {"gather": False}}
        return out, start("zero3", out, {"kind": "sft", "training": TRAINING, "arms": arms})

    def test_ranks_change_nothing_fail_and_agree(self, zero3):
        out, done = zero3
        assert (out / "few.json").exists(), done.stdout[-4000:]
        assert_sharded_ranks_agree("zero3", out, read_results(out, SHARDED))

    def test_ranks_that_refill_in_step_draw_what_a_single_process_draws(self, zero3):
        assert_drawn_as_alone(zero3[0] / "refilled", 20, one_by_one=True, samples=16, max_new_tokens=256)

    def test_a_rank_failing_inside_a_sharded_forward_ends_the_run_with_the_reason(self, zero3):
        """The run ends in bounded time with rank and reason on one line; it can be resumed."""
        out, done = zero3
        assert done.returncode != 0
        assert not (out / "ends.json").exists()
        assert "rank 1 failed where the others wait for it: RuntimeError: planted inside a batch" in done.stdout
