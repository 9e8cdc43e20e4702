"""The parts of blame: nudges, row losses as TRL computes them, the gradient against finite differences, effects."""

import json
import shlex
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer
from trl import SFTConfig, TrlParser

from divwatch.blame.data import TrainingData, load_mix_of_run
from divwatch.blame.derivative import central_difference, nudge_size
from divwatch.blame.estimate import left_out, source_effects
from divwatch.blame.load import load_trainer
from divwatch.blame.log_probs import Sampled, all_log_probs, weighted_gradient
from divwatch.blame.look import look_at
from divwatch.blame.losses import RowLosses
from divwatch.blame.nudge import nudged
from divwatch.blame.path import displacement
from divwatch.blame.precondition import of_optimizer, second_moments
from divwatch.blame.remix import halving_factors, held_back
from divwatch.blame.run_settings import read_settings
from divwatch.blame.text import suggestion_lines
from divwatch.blame.trace import Checkpoint, in_order, learning_rates, share_of_learning
from divwatch.blame.weights import completion_weights, prompt_shares
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.mixes import Selection, load_mix
from divwatch.mixes.limit import Limit
from divwatch.recipe import MixArguments
from divwatch.tiny import BASE_MODEL
from tests.training import dpo_trainer, load_model, load_tokenizer, sft_trainer, weights_hash


def test_a_nudge_moves_the_weights_and_leaves_no_trace_even_when_it_fails():
    model = load_model()
    before, parameters = weights_hash(model), list(model.parameters())
    direction = [torch.randn_like(p) for p in parameters]
    direction[0] = None
    with suppress(RuntimeError), nudged(parameters, direction, 0.1):
        assert weights_hash(model) != before
        raise RuntimeError
    assert weights_hash(model) == before
    with torch.no_grad():  # the negative control: adding and subtracting leaves rounding
        for p, d in zip(parameters[1:], direction[1:], strict=True):
            p.add_(d, alpha=0.1).sub_(d, alpha=0.1)
    assert weights_hash(model) != before


def test_weights_are_the_gradient_of_the_mean_distance_of_a_categorical_model():
    """Three answers with known distances: the exact gradient of D = p' d p against its unbiased estimate."""
    rng = np.random.default_rng(0)
    distance = np.array([[0.0, 0.4, 1.0], [0.4, 0.0, 0.8], [1.0, 0.8, 0.0]])
    p = np.array([0.6, 0.3, 0.1])
    exact = 2 * (np.diag(p) - np.outer(p, p)) @ distance @ p
    estimates = []
    for _ in range(20_000):
        y = rng.choice(3, size=6, p=p)
        _, weights = completion_weights(distance[np.ix_(y, y)], range(6))
        estimates.append(weights @ (np.eye(3)[y] - p))
    error = np.std(estimates, axis=0) / len(estimates) ** 0.5
    assert np.all(np.abs(np.mean(estimates, axis=0) - exact) < 4 * error)


def test_the_losses_of_supervised_rows_make_the_trainers_batch_loss(tmp_path):
    trainer = sft_trainer(tmp_path, model=load_model(dropout=0.0))
    trainer.model.eval()
    losses, rows = RowLosses(trainer), list(range(12))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in rows])
    with torch.no_grad():
        expected = float(trainer.compute_loss(trainer.model, dict(batch)))
    tokens = np.array([losses.trained_tokens(i) for i in rows])
    assert losses.values(rows).sum() / tokens.sum() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [["sigmoid_norm"], ["sigmoid"], ["ipo", "hinge"], ["robust"]])
def test_the_loss_of_a_pair_is_the_trainers(tmp_path, loss):
    trainer = dpo_trainer(tmp_path, model=load_model(dropout=0.0))
    trainer.model.eval()
    trainer.loss_types, trainer.loss_weights, trainer.label_smoothing = loss, [1.0] * len(loss), 0.1
    with torch.no_grad():
        for p in trainer.model.parameters():  # away from the reference
            p.mul_(1.01)
    losses = RowLosses(trainer)
    values = losses.values([0, 1, 2, 3])
    with torch.no_grad():
        pairs = [
            float(trainer.compute_loss(trainer.model, trainer.data_collator([trainer.train_dataset[i]])))
            for i in range(4)
        ]
    assert values == pytest.approx(pairs, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("loss", ["sigmoid", "apo_zero"])  # by blame itself, and by the trainer
def test_pairs_of_an_adapter_are_compared_with_the_model_without_it_or_the_reference(loss, tmp_path):
    model = get_peft_model(load_model(dropout=0.0), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    rows = load_mix("tiny/think_dpo")[0].select([0, 1, 2])
    data = TrainingData(rows, list(rows["source"]), {}, "preference")
    values = {}
    for name, reference in {"without": None, "base": str(BASE_MODEL), "itself": str(tmp_path / "adapter")}.items():
        settings = {"loss_type": [loss], "max_length": 256}
        trainer = load_trainer(
            str(tmp_path / "adapter"), load_tokenizer(), data, settings, reference, "cpu", str(tmp_path / "out")
        )
        values[name] = RowLosses(trainer).values([0, 1, 2])
    assert values["without"] == pytest.approx(values["base"], rel=1e-4)
    assert abs(values["without"] - values["itself"]).min() > 1e-3
    assert np.ptp(values["itself"]) < 1e-4  # log-ratios of 0


def test_the_gradient_predicts_what_the_next_look_measures():
    """Steps along the gradient, and looks with the same random numbers: the change agrees within its error."""
    from divwatch.metrics.encoder import load_encoder
    from divwatch.tiny.panel import panel

    model, tokenizer = load_model(dropout=0.0).eval(), load_tokenizer()
    story = [p for p in panel() if p.task == "story"][:12]
    config = WatchConfig(samples=12, encoder="minilm", max_new_tokens=24)
    encoder = load_encoder("minilm")
    look = look_at(model, tokenizer, story, config, encoder, seed=3)
    share = prompt_shares(look.tasks, look.values)["all"]
    parameters = list(model.parameters())
    how = (config.temperature, config.top_p, tokenizer.pad_token_id, model.device)
    gradient = weighted_gradient(model, parameters, look.sampled, (share[:, None] * look.weights).ravel(), *how)
    # Another look at the same weights: a gradient's own noise must not be in what it is compared with.
    fresh = look_at(model, tokenizer, story, config, encoder, seed=4)
    size = nudge_size(lambda: all_log_probs(model, fresh.sampled[::8], *how), parameters, gradient)
    slopes = central_difference(lambda: all_log_probs(model, fresh.sampled, *how), parameters, gradient, size)
    predicted = (fresh.weights * slopes.reshape(fresh.weights.shape)).sum(axis=1)
    step = 0.03 / np.nanmean(predicted)
    before = weights_hash(model)
    measured = central_difference(
        lambda: look_at(model, tokenizer, story, config, encoder, seed=4).values, parameters, gradient, step
    )
    gap = (measured - predicted) * step
    error = np.std(gap, ddof=1) / len(gap) ** 0.5
    assert step > 0
    assert abs(np.mean(gap)) < 2.5 * error
    assert error < 0.015  # the agreement says something: the change is 0.03
    assert weights_hash(model) == before


def test_effects_find_the_planted_source_and_leave_equal_ones_alone():
    rng = np.random.default_rng(1)
    shares = np.array([0.25, 0.25, 0.25, 0.25])
    of_source = np.repeat(np.arange(4), 100)
    influence, tasks = rng.normal(0, 0.3, (24, 16, 4)), [range(12), range(12, 24)]
    rows = rng.standard_t(3, 400) * 0.2
    planted = source_effects(rows - 0.4 * (of_source == 2), of_source, shares, influence, tasks)
    assert planted.blamed.tolist() == [False, False, True, False]
    assert planted.instead[2] == pytest.approx(-0.1, abs=0.03)
    assert planted.total == pytest.approx(planted.effect.sum())
    wrong = [
        source_effects(rng.standard_t(3, 400) * 0.2, of_source, shares, influence, tasks, seed).blamed.any()
        for seed in range(40)
    ]
    assert np.mean(wrong) <= 0.1


def test_effects_add_up_to_the_change_along_the_path_and_differences_stay():
    rng = np.random.default_rng(2)
    shares, of_source = np.array([0.5, 0.3, 0.2]), np.repeat(np.arange(3), 50)
    rows, influence = rng.normal(0, 0.2, 150), rng.normal(0, 0.3, (8, 6, 4))
    alone = source_effects(rows, of_source, shares, influence[..., :3], [range(8)])
    known = source_effects(rows, of_source, shares, influence, [range(8)], path=-0.07)
    assert known.total == pytest.approx(-0.07)
    assert known.effect.sum() == pytest.approx(-0.07)
    assert known.plain.sum() == pytest.approx(-0.07)
    assert known.instead == pytest.approx(alone.instead)
    assert known.instead_high == pytest.approx(alone.instead_high)
    # What the rows' own effects lack goes to each source by its share of the rows.
    assert known.effect - alone.effect == pytest.approx(shares * (-0.07 - alone.total))


def test_the_ways_of_the_checkpoints_add_up_to_the_whole_way(tmp_path):
    models = [load_model() for _ in range(3)]
    for step, model in enumerate(models):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p), alpha=0.01 * step)
        model.save_pretrained(tmp_path / str(step))
    ends = [None, *(str(tmp_path / str(step)) for step in range(3)), None]
    ways = [displacement(models[k], ends[k], ends[k + 2]) for k in range(3)]
    for first, last, *way in zip(models[0].parameters(), models[2].parameters(), *ways, strict=True):
        assert torch.allclose(sum(way), last - first, atol=1e-6)


def test_a_lone_source_has_nothing_to_be_left_out_for():
    assert left_out(np.array([1.0])).tolist() == [[0.0]]


def test_a_halved_mix_has_half_the_loss():
    means, shares = np.array([-0.5, -0.2, 0.01, -0.01]), np.array([0.3, 0.2, 0.3, 0.2])
    factors = halving_factors(means, shares, np.array([True, True, False, False]))
    mix = factors * shares / (factors * shares).sum()
    assert mix @ [-0.5, -0.2, 0.002, 0.002] == pytest.approx(0.5 * shares @ means, abs=1e-6)
    assert factors[0] < factors[1] < 1
    assert factors[2:].tolist() == [1, 1]
    assert halving_factors(means, shares, np.zeros(4, dtype=bool)) is None
    # A run that lost diversity although a gain was predicted: what is missing goes to all sources alike.
    assert halving_factors(means + 0.5, shares, np.array([True, False, False, False])) is None
    known = halving_factors(means + 0.5, shares, np.array([True, False, False, False]), shares @ means)
    assert known[0] == halving_factors(means, shares, np.array([True, False, False, False]))[0]


def test_a_suggestion_goes_further_than_first_order_asks_for():
    shares, blamed, factors = np.array([0.2, 0.4, 0.4]), np.array([True, False, False]), []
    for worst in (-0.15, -0.25, -0.35, -0.9):
        means = np.array([worst, -0.02, -0.02])
        careful = held_back(means, shares)
        assert shares @ careful == pytest.approx(shares @ means)
        factors.append(halving_factors(careful, shares, blamed)[0])
        assert factors[-1] < halving_factors(means, shares, blamed)[0]
    assert factors == sorted(factors)


def test_a_suggestion_is_a_command_of_the_recipe_on_top_of_what_the_mix_selected():
    factors = {"quiz": 0.25, "forum": 1.0}
    selection = Selection(weight={"quiz": 0.5, "manual": 2.0}, drop=("script",), rows=400, repeat=True)
    _, mix = load_mix("tiny/ablation_sft", selection=selection)
    lines = suggestion_lines(factors, mix, Path("configs/tiny/instruct/sft.yaml"))
    words = shlex.split(next(line for line in lines if "accelerate" in line))
    options = TrlParser(MixArguments).parse_args_and_config(words[5:], fail_with_unknown_args=True)[0]
    assert words[:5] == ["accelerate", "launch", "recipes/sft.py", "--config", "configs/tiny/instruct/sft.yaml"]
    assert (options.mix, options.mix_rows, options.mix_repeat) == ("tiny/ablation_sft", 400, True)
    assert (options.mix_weight, options.mix_drop) == (["quiz=0.125", "manual=2"], ["script"])
    assert "no change of the mix" in " ".join(suggestion_lines(None, mix, None))


@pytest.mark.parametrize("older", [False, True])
def test_the_data_of_a_run_are_read_again_as_it_read_them(older, tmp_path, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    limit = Limit(tokenizer, 30)
    rows = [{"prompt": "a", "completion": f" {i}", "source": "xy"[i % 2]} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    selections = {
        "tiny/ablation_sft": Selection(weight={"script": 0.5}, drop=("quiz",)),
        "rows.jsonl": Selection(only=("x",), rows=3),
    }
    for name, selection in selections.items():
        dataset, report = load_mix(name, 3, selection=selection, limit=limit)
        record = json.loads(json.dumps(report.as_dict()))
        if older:  # from before a record said how its mix was given
            del record["given"], record["local_data"], record["max_prompt"]
        else:
            monkeypatch.chdir("/")
        again, _ = load_mix_of_run({"mix": record}, tokenizer, 30 if older else None)
        assert list(again) == list(dataset)
        monkeypatch.chdir(tmp_path)
    own = {"name": "tiny/ablation_sft", "kind": "sft", "seed": 3, "sources": {}}  # a user's own `mix=`
    assert load_mix_of_run({"mix": own}, tokenizer, None)[1].taken == 4500
    with pytest.raises(DivwatchError, match="records no mix"):
        load_mix_of_run({"mix": None}, tokenizer, None)


def test_a_checkpoint_of_another_run_is_where_the_run_started():
    sft = [{"step": 250, "loss": 2.0}, {"step": 500, "loss": 1.0}]
    dpo = [{"step": 50, "loss": 0.7}, {"step": 100, "loss": 0.5}]
    start, first, last = Checkpoint("s", 500, sft, 8), Checkpoint("d", 50, dpo[:1], 8), Checkpoint("e", 100, dpo, 8)
    assert [(c.path, c.step) for c in in_order([start, first, last])] == [("s", 0), ("d", 50), ("e", 100)]
    assert in_order([start, last])[0] == Checkpoint("s", 0, [], None)
    with pytest.raises(DivwatchError, match="of different runs"):
        in_order([start, Checkpoint("t", 400, [{"step": 400, "loss": 3.0}], 8), last])


def test_what_a_row_depends_on_comes_from_the_config_then_the_run_then_trl():
    recorded = {"max_length": 64, "beta": 0.2, "max_grad_norm": 0.0, "learning_rate": 1e-4}
    run = {"arguments": recorded, "max_steps": 70, "trainer": "DPOTrainer"}
    ours = read_settings({"mix": "x", "max_length": 32, "max_steps": -1, "learning_rate": "2e-5"}, run)
    assert ours.loss_of("preference") == {"max_length": 32, "beta": 0.2}
    assert ours.loss_of("sft") == {"max_length": 32}  # a run of another kind says nothing about these rows
    assert (ours.max_prompt, ours.max_steps, ours.max_grad_norm, ours.rate("sft")) == (32, 70, 0.0, 2e-5)
    assert read_settings({"mix_max_prompt": 20}, run).max_prompt == 20
    endless = read_settings({"max_length": None}, run)
    assert (endless.max_prompt, endless.loss_of("preference")["max_length"]) == (None, None)
    nothing, trl = read_settings({}, {}), SFTConfig(use_cpu=True, bf16=False)
    assert (nothing.loss_of("sft"), nothing.max_grad_norm, nothing.max_steps) == ({}, 1.0, None)
    assert (nothing.rate("sft"), nothing.max_prompt) == (trl.learning_rate, trl.max_length)
    with pytest.raises(DivwatchError, match="learning_rate is 'fast': give a number"):
        read_settings({"learning_rate": "fast"}, {})


def test_tokens_that_close_a_thought_by_force_are_read_and_not_scored():
    model, how = load_model(), (1.0, 1.0, 0, torch.device("cpu"))
    whole = [Sampled([1, 2], list(range(3, n))) for n in (4, 7, 9, 12)]
    after = [all_log_probs(model, [s], *how)[0] for s in whole]
    forced = all_log_probs(model, [Sampled(*whole[-1][:2], (4, 6))], *how)[0]
    assert forced == pytest.approx(after[3] - after[2] + after[1], abs=1e-4)


def test_weights_of_other_shapes_are_one_line(tmp_path):
    model = load_model()
    model.resize_token_embeddings(model.config.vocab_size + 8)
    model.save_pretrained(tmp_path)
    with pytest.raises(DivwatchError, match="weights of other shapes"):
        displacement(load_model(), None, str(tmp_path))


def test_learning_is_shared_out_among_checkpoints():
    history = [{"step": 10, "learning_rate": 1.0}, {"step": 20, "learning_rate": 0.0}]
    checkpoints = in_order([Checkpoint("b", 20, history, 8), Checkpoint("a", 0, [], None)])
    rates = learning_rates(checkpoints, 20, 9.0)
    assert rates[:10].tolist() == [1.0] * 10
    assert rates[-1] == 0
    assert share_of_learning(rates, [0, 20]).sum() == pytest.approx(rates.sum())
    with pytest.raises(DivwatchError, match="both at step 20"):
        in_order([Checkpoint("b", 20, [], None), Checkpoint("c", 20, [], None)])


def test_adams_second_moments_come_from_the_optimizers_file(tmp_path):
    trainer = sft_trainer(tmp_path, steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    live = second_moments(trainer.optimizer, list(trainer.model.parameters()))
    other = sft_trainer(tmp_path / "other", model=load_model(tmp_path / "checkpoint-2"))
    read = of_optimizer(other, tmp_path / "checkpoint-2", list(other.model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(live, read, strict=True))
    (tmp_path / "checkpoint-2" / "optimizer.pt").write_bytes(b"no pickle")
    assert of_optimizer(other, tmp_path / "checkpoint-2", list(other.model.parameters())) is None
