"""Ranks: one dies, all fail, or rank 0 is long busy, under real launches of two processes."""

import pytest

from divwatch.store.run_directory import RunDirectory
from tests.faults.undisturbed import cell
from tests.launched.launching import launch, start
from tests.launched.test_strategies import looks, weights

SMALL = {"metrics": ["ead"], "prompts": 8, "every": 1, "on_error": "record"}


@pytest.mark.slow
@pytest.mark.limit(420)
@pytest.mark.parametrize(
    "strategy",
    [
        cell("DDP x2: all ranks raise in the first and the last look", "ddp"),
        cell("ZeRO-3 x2: all ranks raise in the first and the last look", "zero3"),
    ],
)
def test_all_ranks_raise(strategy, tmp_path):
    """The look is failed with its reason, the others are whole, the weights are those of an undisturbed run."""
    arms = {"off": None}
    for name, step in (("first", 0), ("last", 3)):
        arms[name] = SMALL | {"fault": {"where": "before", "step": step}}
    found = launch(strategy, tmp_path, {"kind": "sft", "training": {"steps": 3}, "arms": arms})
    for arm, step in (("first", 0), ("last", 3)):
        assert weights(found, arm) == weights(found, "off")
        assert looks(tmp_path, arm) == [(s, "failed" if s == step else "ok") for s in range(4)]


@pytest.mark.slow
@pytest.mark.limit(420)
@pytest.mark.parametrize(
    ("strategy", "where", "rank"),
    [
        cell("DDP x2: a rank killed (SIGKILL) in a look, outside any collective", "ddp", "dies_inside", 1),
        cell("DDP x2: rank 0 killed in a look", "ddp", "dies_inside", 0),
        cell("ZeRO-3 x2: a rank killed in a look while weights are gathered", "zero3", "dies_inside", 1),
        cell("ZeRO-3 x2: a rank killed before the first collective of a look", "zero3", "dies_before", 1),
    ],
)
def test_a_rank_that_dies(strategy, where, rank, tmp_path):
    """All processes end in bounded time with the reason on one line, and the record is whole."""
    arms = {"run": SMALL | {"fault": {"where": where, "rank": rank, "step": 2}}}
    done = start(strategy, tmp_path, {"kind": "sft", "training": {"steps": 3}, "arms": arms}, limit=200)
    assert done.returncode != 0
    reasons = [
        line.strip()
        for line in done.stdout.splitlines()
        if "SIGKILL" in line or "exitcode: -9" in line or "Signal 9" in line
    ]
    assert reasons
    store = RunDirectory.of(tmp_path / "run")
    assert [look["step"] for look in store.looks()] == [0, 1]
    assert not list(store.path.rglob("*.tmp"))


BESIDES = "scoring process killed; run directory deleted; W&B raising; W&B hanging: each in a run of its own"


@pytest.mark.slow
@pytest.mark.limit(600)
@pytest.mark.parametrize("strategy", [cell(f"DDP x2: {BESIDES}", "ddp"), cell(f"ZeRO-3 x2: {BESIDES}", "zero3")])
def test_what_fails_beside_the_sampling(strategy, tmp_path):
    """Weights are those of an undisturbed run on both ranks, and every look that is on record is scored."""
    watched = SMALL | {"background": True}
    tracked = watched | {"training": {"report_to": "wandb"}}
    arms = {
        "off": None,
        "worker": watched | {"fault": {"where": "worker", "rank": 0, "step": 1}},
        "gone": watched | {"fault": {"where": "gone", "rank": 0, "step": 2}},
        "raises": tracked | {"fault": {"where": "tracker_raises", "step": 0}},
        "hangs": tracked | {"fault": {"where": "tracker_hangs", "step": 0}},
    }
    found = launch(strategy, tmp_path, {"kind": "sft", "training": {"steps": 3}, "arms": arms}, limit=560)
    for arm in arms.keys() - {"off"}:
        assert weights(found, arm) == weights(found, "off"), arm
        kept = (2, 3) if arm == "gone" else range(4)
        assert looks(tmp_path, arm)[-len(kept) :] == [(step, "ok") for step in kept], arm


@pytest.mark.slow
@pytest.mark.limit(420)
@pytest.mark.parametrize(
    "strategy",
    [
        cell("DDP x2: disk full at the second look, room again after it", "ddp"),
        cell("ZeRO-3 x2: disk full at the second look, room again after it", "zero3"),
    ],
)
def test_a_full_disk_under_ranks(strategy, small_disk):
    """That look is lost, the others are whole, the weights are those of an undisturbed run on both ranks."""
    arms = {"off": None, "full": SMALL | {"fault": {"where": "full", "rank": 0, "step": 1}}}
    found = launch(strategy, small_disk, {"kind": "sft", "training": {"steps": 3}, "arms": arms})
    assert weights(found, "full") == weights(found, "off")
    landed = [step for step, status in looks(small_disk, "full") if status == "ok"]
    assert landed == [0, 2, 3]


@pytest.mark.slow
@pytest.mark.limit(420)
def test_a_long_wait_is_no_dead_rank(tmp_path, undisturbed):
    """The other ranks get signs of life; training ends as if nothing had been, with every look scored."""
    fault = {"where": "asleep", "rank": 0, "step": 3}
    arms = {"off": None, "run": SMALL | {"background": True, "fault": fault}}
    training = {"steps": 3, "ddp_timeout": 20}
    found = launch("ddp", tmp_path, {"kind": "sft", "training": training, "arms": arms})
    assert weights(found, "run") == weights(found, "off")
    assert looks(tmp_path, "run") == [(step, "ok") for step in range(4)]
