"""The experiment of docs/blame.md: does blame from one run agree with leave-one-out ablation?

    python benchmarks/blame.py                      # all that is missing, in the order below; resumable
    python benchmarks/blame.py --seeds 0 --only blame_graded_sft --do train
    python benchmarks/blame.py --report-only        # the tables, from what is in runs/blame

For each mix and seed: one training on the whole mix, with checkpoints; one without each source, at the same number of
steps; and blame at the checkpoints. The referee is leave-one-out: diversity after the whole mix minus diversity after the
mix without the source, measured by the same look (same prompts and random numbers).

Criteria, fixed before the counted runs:
  rank        mean over planted mixes and seeds of Spearman's correlation between `instead` and the referee: at least 0.8
  first       the source that the referee finds narrowest comes first by `instead`: at least 90 % of the planted runs
  null        runs of the null mix in which any source is blamed: at most 5 %
  explained   predicted over observed change between 0.6 and 1.4: at least 8 of 10 trainings that change by 5 % or more
  time        CPU time of blame over that of leave-one-out: at most 1/20
  remix       the suggested mix, retrained: at most half of the loss, accuracy within 2 points
Each is reported for blame at the base and four checkpoints (`run`), at the base alone, and at step 16 alone (`middle`).

Method and criteria were frozen in this file before blame was run on seeds 0, 1 and 2 with 64 rows; ways were tried on seed 10.
`middle` was added later. A second round, written down before its runs: does reading more rows fix the order of the sources?
Seeds 3, 4 and 5 of the planted mixes with `--rows 256`; twenty seeds of the null mix and three of DPO with 64 rows.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
OUT = ROOT / "runs" / "blame"
PLANTED = ("blame_graded_sft", "blame_task_sft", "blame_teachers_sft")
NULL = ("ablation_null_sft",)
DPO = ("blame_dpo",)
SEEDS = (0, 1, 2)
WHAT = ("train", "leave-one-out", "blame", "remix")
STEPS, SAVED, ROWS, SAMPLES = 64, 8, 64, 8
BLAMED_AT = (8, 16, 32, 64)  # closest where the weights move most
SFT = {"per_device_train_batch_size": 32, "learning_rate": 3e-4, "lr_scheduler_type": "cosine", "warmup_steps": 5}
PAIRS = SFT | {"learning_rate": 2e-4, "loss_type": ["sigmoid_norm"], "beta": 5.0}


def train(mix: str, seed: int, out: Path, drop: tuple[str, ...] = (), weight: dict[str, float] | None = None) -> None:
    """Trains on a mix without `drop`, or with `weight` at the whole mix's number of rows, and looks at the end."""
    if (out / "look.json").is_file():
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from divwatch.mixes import Selection, load_mix
    from divwatch.tiny import BASE_MODEL

    started = time.process_time()
    selection = Selection(drop=drop)
    if weight is not None:
        rows = len(load_mix(f"tiny/{mix}", seed)[0])
        selection = Selection(weight=weight, rows=rows, repeat=True)
    dataset, _ = load_mix(f"tiny/{mix}", seed, selection=selection)
    whole = not drop and weight is None
    pairs = mix in DPO
    settings: dict[str, Any] = {
        "output_dir": str(out), "max_steps": STEPS, "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "max_length": 256, "report_to": "none", "disable_tqdm": True, "seed": seed, "data_seed": seed, "logging_steps": 4,
        "save_strategy": "steps" if whole else "no", "save_steps": SAVED, **(PAIRS if pairs else SFT),
    }  # fmt: skip
    set_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(BASE_MODEL)
    arguments = {
        "model": model,
        "train_dataset": dataset,
        "processing_class": AutoTokenizer.from_pretrained(BASE_MODEL),
    }
    trainer = (
        DPOTrainer(args=DPOConfig(**settings), **arguments)
        if pairs
        else SFTTrainer(args=SFTConfig(**settings), **arguments)
    )
    trainer.train()
    write_look(trainer.model, out, time.process_time() - started)


def write_look(model: Any, out: Path, seconds: float) -> None:
    from transformers import AutoTokenizer

    from divwatch.blame.look import look_at
    from divwatch.blame.weights import prompt_shares
    from divwatch.tiny import BASE_MODEL

    started = time.process_time()
    config, prompts, encoder = watching()
    look = look_at(model.eval(), AutoTokenizer.from_pretrained(BASE_MODEL), prompts, config, encoder, seed=0)
    shares = prompt_shares(look.tasks, look.values)
    level = {task: float(share @ np.nan_to_num(look.values)) for task, share in shares.items()}
    values = {
        "diversity": level,
        "accuracy": float(np.nanmean(look.accuracy)),
        "train_seconds": seconds,
        "look_seconds": time.process_time() - started,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "look.json").write_text(json.dumps(values))


@cache
def watching() -> Any:
    """(settings, prompts, encoder) of every look."""
    from divwatch.config import WatchConfig
    from divwatch.metrics.encoder import load_encoder
    from divwatch.monitor.measure import panel_of

    config = WatchConfig(panel="tiny", prompts=72, max_new_tokens=64, encoder="minilm")
    return config, panel_of(config, paper=False)[1], load_encoder("minilm")


def blame(mix: str, seed: int, folder: Path, rows: int, base_only: bool) -> None:
    """Blame at the base and the saved checkpoints of the whole mix's training; and at the base alone."""
    if (folder / f"blame-{rows}.json").is_file():
        return
    from divwatch.blame.data import TrainingData, draw_rows
    from divwatch.blame.offline import BlameConfig, measure_run
    from divwatch.blame.trace import in_order, learning_rates, read_checkpoint
    from divwatch.mixes import load_mix
    from divwatch.tiny import BASE_MODEL

    started = time.process_time()
    watch, prompts, encoder = watching()
    dataset, _ = load_mix(f"tiny/{mix}", seed)
    labels = list(dataset["source"])
    chosen = draw_rows(labels, rows, seed)
    shares = {s: labels.count(s) / len(labels) for s in dict.fromkeys(labels)}
    kind = "preference" if mix in DPO else "sft"
    data = TrainingData(dataset.select(chosen), [labels[i] for i in chosen], shares, kind)
    loss = {k: v for k, v in PAIRS.items() if k in ("loss_type", "beta")} if mix in DPO else {}
    config = BlameConfig(
        replace(watch, samples=SAMPLES), 1000 * (seed + 1), reference=str(BASE_MODEL),
        trainer={"max_length": 256, **loss}, by_task=False,
    )  # fmt: skip
    saved = () if base_only else BLAMED_AT
    paths = [str(BASE_MODEL), *(str(folder / "whole" / f"checkpoint-{s}") for s in saved)]
    checkpoints = in_order([read_checkpoint(path) for path in paths])
    measured = measure_run(checkpoints, data, prompts, config, encoder)
    seconds = time.process_time() - started
    rates = learning_rates(checkpoints, STEPS, (PAIRS if mix in DPO else SFT)["learning_rate"])
    answers = conclusions(checkpoints, measured, rates, data, seconds)
    (folder / f"blame-{rows}.json").write_text(json.dumps(answers))


def conclusions(checkpoints: Any, measured: Any, rates: Any, data: Any, seconds: float) -> dict[str, dict[str, Any]]:
    """What blame says at all checkpoints (`run`), at the base alone and at the third checkpoint alone (`middle`)."""
    from divwatch.blame.result import conclude, to_json
    from divwatch.blame.trace import share_of_learning

    places = {"base": [0]}
    if len(measured) > 1:
        places |= {"run": list(range(len(measured))), "middle": [2]}
    found = {}
    for name, chosen in places.items():
        some = [measured[i] for i in chosen]
        if len(some) == 1:
            some = [m._replace(path=None, influence=m.influence[..., : len(data.shares)]) for m in some]
        at = [checkpoints[i] for i in chosen]
        answer = conclude(at, some, share_of_learning(rates, [c.step for c in at]), data, STEPS)
        found[name] = to_json(answer, data, answer.observed["all"] if answer.observed else None, 5)
        found[name]["seconds"] = seconds * len(some) / len(measured)
    return found


def check_gradient() -> str:
    """Predicted and measured change of each task's diversity for steps along the gradient, at the base.

    The gradient comes from a look with seed 1; predictions and measurements from seed 2, before and after the steps.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from divwatch.blame.derivative import central_difference, nudge_size
    from divwatch.blame.log_probs import all_log_probs, weighted_gradient
    from divwatch.blame.look import look_at
    from divwatch.blame.weights import prompt_shares
    from divwatch.tiny import BASE_MODEL

    config, prompts, encoder = watching()
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(BASE_MODEL).eval(),
        AutoTokenizer.from_pretrained(BASE_MODEL),
    )
    parameters, tasks = list(model.parameters()), np.array([p.task for p in prompts])
    look = look_at(model, tokenizer, prompts, config, encoder, 1)
    share = prompt_shares(look.tasks, look.values)["all"]
    nucleus, whole = [(config.temperature, p, tokenizer.pad_token_id, model.device) for p in (config.top_p, 1.0)]
    weights = (share[:, None] * look.weights).ravel().tolist()
    gradient = weighted_gradient(model, parameters, look.sampled, weights, *nucleus)
    fresh = look_at(model, tokenizer, prompts, config, encoder, 2)
    slopes = []
    for how in (nucleus, whole):
        probe = fresh.sampled[::16]
        size = nudge_size(lambda how=how, probe=probe: all_log_probs(model, probe, *how), parameters, gradient)
        slope = central_difference(
            lambda how=how: all_log_probs(model, fresh.sampled, *how), parameters, gradient, size
        )
        slopes.append((fresh.weights * slope.reshape(fresh.weights.shape)).sum(axis=1))
    step = 0.02 / float(share @ np.nan_to_num(slopes[0]))
    measured = step * central_difference(
        lambda: look_at(model, tokenizer, prompts, config, encoder, 2).values, parameters, gradient, step
    )
    lines = ["| task | predicted | with log p of the whole distribution | measured |", "|---|---|---|---|"]
    for task in dict.fromkeys(tasks):
        values = [v[tasks == task] for v in (step * slopes[0], step * slopes[1], measured)]
        cells = [f"{100 * np.nanmean(v):+.2f} +- {100 * np.nanstd(v, ddof=1) / len(v) ** 0.5:.2f}" for v in values]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    means = [
        f"{100 * np.mean([np.nanmean(v[tasks == t]) for t in set(tasks)]):+.2f}"
        for v in (step * slopes[0], step * slopes[1], measured)
    ]
    return "\n".join([*lines, f"| all | {' | '.join(means)} |"])


def run(mix: str, seed: int, what: list[str], rows: int, base_only: bool) -> None:
    """The trainings of a mix and seed; its blame; the training on the mix that blame suggests."""
    from divwatch.tiny import BASE_MODEL
    from divwatch.tiny.mixes import MIXES

    folder = OUT / mix / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (OUT / "base" / "look.json").is_file():
        from transformers import AutoModelForCausalLM

        write_look(AutoModelForCausalLM.from_pretrained(BASE_MODEL), OUT / "base", 0.0)
    if "train" in what and not base_only:
        train(mix, seed, folder / "whole")
    if "leave-one-out" in what:
        for component in MIXES[mix]:
            train(mix, seed, folder / f"without-{component.name}", drop=(component.name,))
    if "blame" in what:
        blame(mix, seed, folder, rows, base_only)
    if "remix" in what:
        answers = json.loads((folder / f"blame-{rows}.json").read_text())
        factors = answers["base" if base_only else "run"]["mix_weight"]
        if factors is not None:
            train(mix, seed, folder / f"remix-{rows}", weight=factors)


def outcomes(mixes: list[str], seeds: list[int], rows: int) -> list[dict[str, Any]]:
    """What each mix and seed that was blamed gave, by place of blame, as far as its trainings are done."""
    from scipy.stats import spearmanr

    base = json.loads((OUT / "base" / "look.json").read_text())
    found = []
    for mix, seed in ((mix, seed) for mix in mixes for seed in seeds):
        folder = OUT / mix / f"seed-{seed}"
        if not (folder / f"blame-{rows}.json").is_file():
            continue
        looks = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/look.json")}
        for at, answer in json.loads((folder / f"blame-{rows}.json").read_text()).items():
            names = list(answer["sources"])
            one: dict[str, Any] = {"mix": mix, "seed": seed, "at": at, "blamed": answer["blamed"]} | answer["explained"]
            one |= {"names": names, "instead": [answer["sources"][s]["all"]["instead"] for s in names]}
            one["seconds"] = answer["seconds"]
            if "whole" in looks:
                one["change"] = looks["whole"]["diversity"]["all"] - base["diversity"]["all"]
                one["per_cent"] = 100 * one["change"] / base["diversity"]["all"]
                one["accuracy"] = looks["whole"]["accuracy"]
            trained = [k for k in looks if not k.startswith("remix")]
            if len(trained) == 1 + len(names):
                one["referee"] = [
                    looks["whole"]["diversity"]["all"] - looks[f"without-{s}"]["diversity"]["all"] for s in names
                ]
                one["rank"] = float(spearmanr(one["instead"], one["referee"]).statistic)
                one["first"] = [names[int(np.argmin(values))] for values in (one["instead"], one["referee"])]
                one["leave_one_out"] = sum(looks[k]["train_seconds"] + looks[k]["look_seconds"] for k in trained)
            if (remix := looks.get(f"remix-{rows}")) and at == "run":
                one["remix"] = remix["diversity"]["all"] - base["diversity"]["all"]
                one["remix_accuracy"] = remix["accuracy"]
                one["weights"] = {s: f for s, f in answer["mix_weight"].items() if f != 1}
            found.append(one)
    return found


def report(mixes: list[str], seeds: list[int], rows: int) -> str:
    """One line for each mix and seed, and the criteria over them."""
    found = outcomes(mixes, seeds, rows)
    lines = [
        "| mix, seed | at | rank | first: blame, leave-one-out | blamed | change predicted, first order, observed (points) "
        "| CPU s: blame, leave-one-out |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        change = ", ".join(f"{100 * one.get(k, np.nan):+.1f}" for k in ("predicted", "first_order", "change"))
        cost = ", ".join(f"{one[k]:.0f}" if one.get(k) else "-" for k in ("seconds", "leave_one_out"))
        rank = f"{one['rank']:.2f}" if "rank" in one else "-"
        first, blamed = ", ".join(one.get("first", ["-"])), " ".join(one["blamed"]) or "none"
        lines.append(f"| {one['mix']}, {one['seed']} | {one['at']} | {rank} | {first} | {blamed} | {change} | {cost} |")
        if "remix" in one:
            lines.append(
                f"| {one['mix']}, {one['seed']} | remix {one['weights']} | | | | {100 * one['change']:+.1f} to "
                f"{100 * one['remix']:+.1f}, accuracy {100 * one['accuracy']:.1f} to {100 * one['remix_accuracy']:.1f} % | |"
            )
    lines += ["", "| mix | source | instead, by seed | leave-one-out, by seed |", "|---|---|---|---|"]
    for mix in mixes:
        mine = [one for one in found if one["mix"] == mix and one["at"] == "run" and "referee" in one]
        for name in sorted(mine[0]["names"]) if mine else ():
            cells = [
                ", ".join(f"{100 * one[k][one['names'].index(name)]:+.1f}" for one in mine)
                for k in ("instead", "referee")
            ]
            lines.append(f"| {mix} | {name} | {cells[0]} | {cells[1]} |")
    return "\n".join([*lines, "", *criteria(found)])


def criteria(found: list[dict[str, Any]]) -> list[str]:
    lines = []
    for at in ("run", "middle", "base"):
        here = [one for one in found if one["at"] == at]
        planted = [one for one in here if one["mix"] in PLANTED and "rank" in one]
        if planted:
            ranks, firsts = [one["rank"] for one in planted], [one["first"][0] == one["first"][1] for one in planted]
            found_first = f"narrowest first in {sum(firsts)} of {len(firsts)}"
            lines.append(f"{at}: rank correlation {np.mean(ranks):.2f}, {found_first}")
            lines.append(f"{at}: leave-one-out with another seed's: {_between_seeds(planted):.2f}")
        null = [bool(one["blamed"]) for one in here if one["mix"] in NULL]
        lines.append(f"{at}: a source blamed in {sum(null)} of {len(null)} null runs")
        changed = [one for one in here if at == "run" and abs(one.get("per_cent", 0)) >= 5]
        for kind in ("predicted", "first_order"):
            shares = [one[kind] / one["change"] for one in changed]
            good = sum(0.6 <= share <= 1.4 for share in shares)
            if shares:
                lines.append(
                    f"{at}: {kind} explains 0.6 to 1.4 in {good} of {len(shares)}: {np.round(shares, 2).tolist()}"
                )
        if planted:
            ratios = [one["seconds"] / one["leave_one_out"] for one in planted]
            lines.append(f"{at}: CPU time over that of leave-one-out, one seed: {np.round(ratios, 2).tolist()}")
    remix = [one for one in found if "remix" in one]
    if remix:
        left = np.mean([one["remix"] for one in remix]) / np.mean([one["change"] for one in remix])
        accuracy = np.mean([one["remix_accuracy"] - one["accuracy"] for one in remix])
        lines.append(f"remix, {len(remix)} seeds: {left:.2f} of the loss, accuracy {100 * accuracy:+.1f} points")
    return lines


def _between_seeds(planted: list[dict[str, Any]]) -> float:
    """Mean rank correlation of the referee with itself over pairs of seeds: what a perfect method can expect to reach."""
    from scipy.stats import spearmanr

    values = [
        spearmanr(one["referee"], [other["referee"][other["names"].index(s)] for s in one["names"]]).statistic
        for one, other in combinations(planted, 2)
        if one["mix"] == other["mix"]
    ]
    return float(np.mean(values)) if values else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[*PLANTED, *NULL, *DPO])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--rows", type=int, default=ROWS, help="Rows that blame reads of each source.")
    parser.add_argument("--base-only", action="store_true", help="Blame at the base alone.")
    parser.add_argument("--do", nargs="+", choices=WHAT, default=list(WHAT), help="Steps; each needs those before it.")
    parser.add_argument(
        "--check-gradient", action="store_true", help="Only compare the gradient with finite differences."
    )
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    if options.check_gradient:
        print(check_gradient())
        return
    if not options.report_only:
        for seed in options.seeds:
            for mix in options.only:
                run(mix, seed, options.do, options.rows, options.base_only)
                print(f"{time.strftime('%H:%M:%S')} {mix} seed {seed}", flush=True)
    print(report(options.only, options.seeds, options.rows))


if __name__ == "__main__":
    main()
