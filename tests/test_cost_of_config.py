"""`divwatch plan CONFIG`: every Olmo 3 config has a shape on the meta device, and its looks and steps come from the file."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from divwatch.cli import app
from divwatch.errors import DivwatchError
from divwatch.mixes.show import described
from divwatch.plan.blame import with_blame
from divwatch.plan.cost import Look, cost_of, train_bytes
from divwatch.plan.device import DEVICES
from divwatch.plan.of_config import planned
from divwatch.plan.refilled import refilled
from divwatch.plan.sees import Watch, what_looks_see
from divwatch.plan.shape import Shape, shape_of
from divwatch.schedule import count_looks, overhead, plan_looks

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs/olmo3").rglob("*.yaml"))
OLMO3_7B = 7_298_011_136  # as published


def run(*words):
    return CliRunner().invoke(app, ["plan", *map(str, words)])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_olmo3_config_is_planned_at_7b(path):
    done = run(path, "--gpus", 1 if "lora" in path.stem else 8, "--json")
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    assert found["parameters"] == OLMO3_7B
    per_parameter = found["train_bytes"] / OLMO3_7B
    assert 2.3 < per_parameter < 2.4 if "lora" in path.stem else per_parameter == 16 / 8


@pytest.mark.parametrize("gpus", [8, 64])
def test_every_olmo3_config_affords_its_looks(gpus):
    """12 looks between first and last in 3 % of the run, two in its first 5 % where that has two steps."""
    shapes = {rank: shape_of("olmo3-7b", lora_r=rank) for rank in (None, 64)}
    for path in CONFIGS:
        run = planned(path, gpus, 300, {})
        look = Look(run.prompts, run.samples, 300, run.new_tokens, run.mean_tokens)
        cost = cost_of(shapes[run.lora_r], DEVICES["h100"], gpus, look, "zero3", run.step_tokens)
        looks = plan_looks(run.every, run.max_steps, run.max_overhead, cost.seconds, cost.step_seconds, run.looks)
        assert len(looks) - 2 >= 12, path
        assert sum(0 < step <= 0.05 * run.max_steps for step in looks) >= min(2, int(0.05 * run.max_steps)), path
        assert overhead(len(looks), run.max_steps, cost.seconds, cost.step_seconds) <= run.max_overhead == 0.03, path
        assert run.coupled


def test_the_looks_of_every_olmo3_config_see_a_fall_of_10_percent():
    watches = set()
    for path in CONFIGS:
        run = planned(path, 8, 300, {})
        most = count_looks(run.every, run.max_steps, run.looks)
        watches.add(Watch(run.prompts, run.samples, run.tasks, most, tokens=run.mean_tokens))
    for watch in watches:
        [sees] = what_looks_see(watch, 14, falls=[0.1], within=[2])
        assert sees.middle < 0.1  # such a fall must last four looks: docs/detection.md
        assert sees.share >= 0.95


def test_plan_says_what_the_looks_see(tmp_path):
    """More prompts see more; without common random numbers the share is the conservative one; a low alpha sees less."""
    words = ("--model", "olmo3-7b", "--steps", 400, "--new-tokens", 64, "--json")
    small, large = (json.loads(run(*words, "--prompts", n).stdout)["sees"] for n in (16, 128))
    assert [(one["fall"], one["within_looks"]) for one in large] == [(f, w) for f in (0.05, 0.1, 0.2) for w in (2, 4)]
    assert all(0 <= a["share"] <= b["share"] <= 1 for a, b in zip(small, large, strict=True))
    assert large[2]["independent"] < large[2]["share"]
    config = tmp_path / "run.yaml"
    config.write_text("model_name_or_path: olmo3-7b\nwatch_coupled: false\nwatch_alpha: 1e-4\nwatch_panel: quick\n")
    found = planned(config, 8, 300, {})
    assert (found.coupled, found.alpha, found.tasks) == (False, 1e-4, 4)


def test_looks_and_steps_are_those_of_the_config(monkeypatch):
    monkeypatch.chdir(ROOT)
    sft = planned(ROOT / "configs/olmo3/instruct/sft.yaml", 8, 300, {})
    assert (sft.model, sft.step_tokens, sft.prompts, sft.samples, sft.new_tokens) == (
        "olmo3-7b",
        1_048_576,
        150,
        32,
        512,
    )
    assert (sft.every, sft.max_steps) == ("auto", round(2 * 1.7e9 / 1_048_576))
    dpo = planned(ROOT / "configs/olmo3/instruct/dpo.yaml", 8, 300, {})
    assert dpo.max_steps == round(259_922 / 128)
    assert dpo.step_tokens == 128 * 2 * (300 + 840)
    rl = planned(ROOT / "configs/olmo3/instruct/rl.yaml", 8, 300, {})
    assert (rl.max_steps, rl.step_tokens) == (1800, 128 * (300 + 2048))  # a quarter of the longest rollout
    assert planned(ROOT / "configs/olmo3/instruct/sft_lora.yaml", 1, 300, {}).lora_r == 64


def test_what_is_given_wins_over_the_config():
    found = planned(ROOT / "configs/olmo3/instruct/sft.yaml", 8, 300, {"every": 7, "samples": 3, "model": "olmo3-32b"})
    assert (found.every, found.samples, found.model, found.prompts) == (7, 3, "olmo3-32b", 150)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("watch_samples: many", "watch_samples is 'many': give a whole number"),
        ("watch_max_overhead: null", "watch_max_overhead is None: give a number"),
        ("watch_prompts: 8.5", "watch_prompts is 8.5: give a whole number"),
        ("watch_every: [1]", r"watch_every is \[1\]: give auto or a number"),
        ("watch_every: .inf", "watch_every is inf: give auto or a number"),
        ("max_steps: soon", "max_steps is 'soon': give a number"),
        ("watch_blame: maybe", "watch_blame is 'maybe': give true or false"),
        ("watch_thinking: never", "watch_thinking is 'never': choose from as-trained, off, both"),
        ("watch_prompt: 8", r"unknown setting prompt \(did you mean prompts\?\)"),
        ("mix: instruct_dpo\nmix_drop: nobody", "unknown source 'nobody': the sources are"),
    ],
)
def test_a_config_with_values_of_another_type_is_one_line(tmp_path, line, says):
    file = tmp_path / "run.yaml"
    file.write_text(f"model_name_or_path: olmo3-7b\n{line}\n")
    with pytest.raises(DivwatchError, match=says):
        planned(file, 8, 300, {})
    file.write_text("model_name_or_path: olmo3-7b\nwatch_every: 1e2\n")
    assert planned(file, 8, 300, {}).every == 100


def planned_with(tmp_path, *lines, like=None):
    file = tmp_path / "run.yaml"
    file.write_text("\n".join(["model_name_or_path: olmo3-7b", *lines]))
    return planned(file, 8, 300, {}, like)


def test_both_forms_of_thinking_ask_each_prompt_twice(tmp_path):
    lines = ("watch_panel: quick", "watch_prompts: 24", "watch_think_tokens: 1000")
    trained, off, both = (
        planned_with(tmp_path, *lines, f"watch_thinking: {how}") for how in ("as-trained", "off", "both")
    )
    assert [(run.prompts, run.tasks) for run in (trained, off, both)] == [(24, 4), (24, 4), (48, 8)]
    assert trained.new_tokens == off.new_tokens == both.new_tokens == 384 + 1000
    assert trained.mean_tokens == off.mean_tokens + 1000
    assert both.mean_tokens == off.mean_tokens + 500


def test_the_settings_are_read_as_the_recipe_reads_them(tmp_path):
    for backend, coupled in (("transformers", True), ("continuous", False), ("vllm", False)):
        assert planned_with(tmp_path, f"watch_backend: {backend}").coupled == coupled
    words = planned_with(
        tmp_path, "watch_coupled: 'No'", "watch_blame: 'yes'", "watch_blame_rows: '8'", "watch_looks: '9'"
    )
    assert (words.coupled, words.blame_rows, words.looks) == (False, 8, 9)
    assert planned_with(tmp_path, "watch_blame: true", "mix: rl_zero_math").blame_rows is None


def test_blame_in_training_reads_v_and_the_sources_of_its_mix(tmp_path):
    shape, device, look = Shape(1000, 4, 8, 100), DEVICES["h100"], Look(32, 4, 300, 200)
    cost = cost_of(shape, device, 1, look)
    seconds = [with_blame(cost, shape, device, 1, look, 2, 64, sources).blame_seconds for sources in (3, 4)]
    backward, forward = 500 * (32 * 4 + 3 * 64), 2 * 500 * (2 * 3 * 64 + 3 * 2 * 4 * 4)
    assert seconds[0] == pytest.approx((6 * backward + 2 * forward) * shape.multiplied / device.flops)
    assert seconds[1] - seconds[0] == pytest.approx(
        500 * (6 * 64 + 4 * (2 * 64 + 2 * 4 * 4)) * shape.multiplied / device.flops
    )
    names = [source["name"] for source in described("instruct_dpo")["sources"]]
    assert planned_with(tmp_path, "mix: instruct_dpo").blame_sources == len(names)
    dropped = yaml.safe_dump({"mix": "instruct_dpo", "mix_drop": names[:1], "mix_weight": f"{names[1]}=0"})
    assert planned_with(tmp_path, dropped).blame_sources == len(names) - 2
    assert planned_with(tmp_path, "mix: tiny/ablation_sft", "mix_drop: forum").blame_sources == 3
    assert planned_with(tmp_path, "mix: mine.jsonl").blame_sources is None


def test_an_adapter_alone_has_gradients_and_moments():
    shape = Shape(1000, 1, 1, 1, trained=10)
    assert train_bytes(shape, 2, "ddp") == 2 * 1000 + 16 * 10
    assert train_bytes(shape, 2, "zero3") == (2 * 1000 + 16 * 10) / 2
    assert train_bytes(shape, 2, "zero2") == 2 * 1000 + (2 + 14 / 2) * 10


def test_without_a_model_it_is_one_line(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"mix": "instruct_sft"}))
    for words, says in (
        ([], "no model: give a recipe's config"),
        ([tmp_path / "c.yaml"], "names no model_name_or_path"),
    ):
        done = run(*words)
        assert isinstance(done.exception, DivwatchError)
        assert says in str(done.exception)


def test_plan_lists_all_looks_and_their_share_of_the_whole_run():
    """Dense at the start, both ends included, within watch_max_overhead; as many as it allows."""
    words = ("--model", "olmo3-7b", "--samples", 8, "--prompts", 128, "--new-tokens", 384, "--steps", 1000)
    found = json.loads(run(*words, "--json").stdout)
    looks, all_seconds = found["looks"], len(found["looks"]) * found["seconds"]
    assert (looks[0], looks[-1]) == (0, 1000)
    assert looks == sorted(set(looks))
    assert sum(0 < step <= 50 for step in looks) > 0.1 * len(looks)
    assert found["overhead"] == pytest.approx(all_seconds / (all_seconds + 1000 * found["step_seconds"]))
    assert found["overhead"] <= 0.03 < found["overhead"] * (1 + 2 / len(looks))
    assert f"looks     {len(looks)}, at steps 0, {looks[1]}, " in run(*words).output


def test_plan_says_what_is_skipped_and_what_would_fit_where_looks_cost_more_than_max_overhead():
    words = ("--model", "olmo3-7b", "--prompts", 480, "--new-tokens", 2048, "--steps", 1000)
    said = run(*words).output
    assert "watch_max_overhead 0.03 leaves no room for looks of this size" in said
    fits = float(re.search(r"those of ([0-9.]+) s would fit", said)[1])
    found = json.loads(run(*words, "--json").stdout)
    assert found["looks"] == [0, 1000]
    assert 4 * fits == pytest.approx(0.03 / 0.97 * 1000 * found["step_seconds"], rel=0.01)
    assert "skips 19 of 21 looks" in run(*words, "--every", 50).output
    assert "limit" not in run(*words, "--max-overhead", 0).output


def test_a_lora_adapter_adds_kernels_to_a_decode_step():
    """As measured on one H200: 16 prompts x 8, at most 384 tokens, mean 217, took 8.05 s (docs/benchmarks.md)."""
    look = Look(16, 8, 300, 384, 217)
    shape = shape_of("olmo3-7b", lora_r=16)
    assert shape.adapted == 224
    assert cost_of(shape, DEVICES["h200"], 1, look).seconds == pytest.approx(8.05, rel=0.25)


def test_what_is_looked_up_is_not_multiplied():
    shape = shape_of("olmo3-7b")
    table = 100_278 * 4096
    assert (shape.parameters, shape.lookup, shape.head) == (OLMO3_7B, table, table)
    assert shape.multiplied == OLMO3_7B - table


def test_a_shorter_mean_saves_reading_keys_but_no_decode_steps():
    shape, device = Shape(1000, 4, 8, 100), DEVICES["h200"]
    full, equal, short = (cost_of(shape, device, 1, Look(16, 8, 300, 384, mean)) for mean in (None, 384, 96))
    assert equal == full
    steps = 384 * (4 * device.layer_seconds + shape.multiplied * shape.weight_bytes / device.bandwidth)
    assert steps < short.decode < full.decode
    assert (short.rows, short.look_bytes) == (full.rows, full.look_bytes)  # memory is reserved for the longest row


@pytest.mark.parametrize("mean", [0, -1, 385])
def test_a_mean_length_outside_the_limit_is_one_line(mean):
    done = run("--model", "olmo3-7b", "--new-tokens", 384, "--mean-tokens", mean)
    assert isinstance(done.exception, DivwatchError)
    assert "at most its limit of 384" in str(done.exception)


def test_plan_takes_a_mean_length():
    words = ("--model", "olmo3-7b", "--new-tokens", 384, "--json")
    full, short = (json.loads(run(*words, *more).stdout) for more in ((), ("--mean-tokens", 200)))
    assert (full["mean_tokens"], short["mean_tokens"]) == (None, 200)
    assert short["decode"] < full["decode"]


def test_lengths_that_vary_are_refilled_and_every_token_is_written_once():
    """As `benchmarks/sampling.py` measured with heavier tails: 896 forwards instead of 2,684."""
    stretches = refilled(128, 16, 100, 768, 85, 32_768, 10, on_gpu=False)
    written = sum(part.rows * part.steps * part.running for part in stretches)
    assert written == pytest.approx(128 * 85, rel=0.02)
    assert 500 < sum(part.steps for part in stretches) < 900
    assert all(part.stored <= 32_768 for part in stretches)
    assert [bool(part.written) for part in stretches] == sorted(bool(part.written) for part in stretches)
    words = ("--model", "olmo3-7b", "--prompts", 480, "--new-tokens", 2048, "--json")
    full, varied = (json.loads(run(*words, *more).stdout) for more in ((), ("--mean-tokens", 600)))
    assert (full["varied"], varied["varied"]) == (False, True)
    assert varied["rows"] > 2 * full["rows"]
    assert varied["seconds"] < 0.4 * full["seconds"]


def test_plan_has_the_cost_of_blame():
    """Blame at 7B on eight devices: sampling, and its tokens at the devices' speed of arithmetic."""
    words = ("--model", "olmo3-7b", "--gpus", 8, "--blame", "--json")
    plain, found = json.loads(run(*words[:-2], "--json").stdout), json.loads(run(*words).stdout)
    blame = found.pop("blame")
    assert plain == found
    of_row = 300 + 256
    assert blame["backward"] == of_row * (64 * 16 + 10 * 256 + 384)
    assert blame["forward"] == of_row * 2 * (6 * 10 * 256 + 11 * 24 * 16)
    least = 2 * OLMO3_7B * 0.9 * (blame["forward"] + 3 * blame["backward"]) / 8 / DEVICES["h100"].flops
    assert found["seconds"] + least < blame["seconds"] < found["seconds"] + least / 0.9
    assert "min a checkpoint: 10 sources" in run(*words[:-1]).stdout


def test_looks_that_blame_follows_cost_more_and_are_fewer(tmp_path):
    recipe = (ROOT / "configs/olmo3/instruct/dpo.yaml").read_text()
    (tmp_path / "blamed.yaml").write_text(f"{recipe}\nwatch_blame: true\nwatch_blame_rows: 32\n")
    plain, blamed = (
        json.loads(run(config, "--json").stdout)
        for config in (ROOT / "configs/olmo3/instruct/dpo.yaml", tmp_path / "blamed.yaml")
    )
    assert (plain["blame_rows"], blamed["blame_rows"]) == (None, 32)
    assert blamed["seconds"] == pytest.approx(plain["seconds"] + blamed["blame_seconds"])
    assert len(blamed["looks"]) < len(plain["looks"])
    assert blamed["overhead"] <= 0.03
    assert ", blame " in run(tmp_path / "blamed.yaml").stdout


@pytest.mark.slow
def test_a_proposal_is_the_cheapest_panel_that_sees_a_tenth_within_the_budget():
    words = ("--model", "olmo3-7b", "--new-tokens", 384, "--steps", 2000, "--propose")
    found = json.loads(run(*words, "--gpus", 8, "--json").stdout)
    proposal = found["proposal"]
    assert proposal["share"] >= 0.95
    assert proposal["looks"] >= 14
    size = ("--prompts", proposal["prompts"], "--samples", proposal["samples"], "--new-tokens", proposal["new_tokens"])
    taken = json.loads(run(*words[:2], *words[4:6], *size, "--gpus", 8, "--json").stdout)
    assert (taken["seconds"], len(taken["looks"])) == (proposal["seconds"], proposal["looks"])
    (sees,) = [s for s in taken["sees"] if (s["fall"], s["within_looks"]) == (0.1, 2)]
    assert sees["independent"] == proposal["share"]


def test_a_budget_without_room_for_any_panel_is_said():
    said = run("--model", "olmo3-7b", "--steps", 2000, "--max-overhead", 0.0005, "--propose").output
    assert "no panel has 14 looks within the budget" in said
