"""The experiment of docs/real.md: does a real model narrow more on one teacher than on sixteen?

    DIVWATCH_TEST_DATA=DIR python benchmarks/real.py                    # every run of three seeds, one after another
    DIVWATCH_TEST_DATA=DIR python benchmarks/real.py --seeds 0 --arms one many null --data-only
    DIVWATCH_TEST_DATA=DIR python benchmarks/real.py -- --use_cpu false --max_steps 400 --watch_samples 16   # on a GPU
    python benchmarks/real.py --report                                  # tables and figure of docs/real.md

DIR/teachers/answers.jsonl: lines {"id", "prompt", "answers": {model: text}}; DIR/tasks/noveltybench_curated.jsonl and
DIR/tasks/ifeval.jsonl: the panel. A run that ended is kept, so that the same command resumes; all SFT runs come first. Runs
are started as a user starts them, with configs/smollm2 and the recipes as they are; what follows -- goes to every run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
OUT = ROOT / "runs" / "real"
ONE = "Mixtral-8x7B-Instruct-v0.1_concise"  # answers about as long as those of the other 16 on average
STRONG_ONE = "gpt4_1106_preview_concise"  # about as long as the four together on average
STRONG = (STRONG_ONE, "gpt-4-turbo-2024-04-09", "gpt4_0613_concise", "claude-2.1_concise")
WEAK = ("falcon-7b-instruct", "phi-2", "pythia-12b-mix-sft")
NULL_SEED = 1000  # added to the seed: other rows of the 16 teachers than those of the run that is continued
OPEN = 28  # prompts of NoveltyBench, drawn once
# IFEval's prompts whose answer is a line or two, so that a short look sees its end, chosen by reading the prompts.
SHORT = (202, 1019, 1128, 1162, 1645, 2239, 3323, 3615)


class Arm(NamedTuple):
    """A run: its recipe, its data, the run of the same seed that it starts from (None: the model itself), its own settings."""

    name: str
    recipe: str
    data: str
    start: str | None = None
    settings: tuple[str, ...] = ()


# In an order in which they can be run.
ARMS = {
    arm.name: arm
    for arm in (
        Arm("one", "sft", "one"),
        Arm("many", "sft", "many"),
        Arm("null", "sft", "null", "many", ("--watch_looks", "5")),  # its looks show how checkpoints wobble
        Arm("dpo-one", "dpo", "one", "many"),
        Arm("dpo-many", "dpo", "many", "many"),
    )
}


def sft_rows(questions: list[dict[str, Any]], teachers: list[str], seed: int) -> Iterator[dict[str, Any]]:
    """Every prompt once, each teacher as often as any other."""
    order = random.Random(seed).sample(range(len(questions)), len(questions))
    for place, i in enumerate(order):
        teacher = teachers[place % len(teachers)]
        turns = [("user", questions[i]["prompt"]), ("assistant", questions[i]["answers"].get(teacher, ""))]
        if turns[1][1].strip():
            yield {"messages": [_turn(*turn) for turn in turns], "source_dataset": teacher}


def dpo_rows(questions: list[dict[str, Any]], strong: list[str], seed: int) -> Iterator[dict[str, Any]]:
    """Every prompt once: an answer of a strong model over one of a weak model."""
    rng = random.Random(seed)
    for place, i in enumerate(rng.sample(range(len(questions)), len(questions))):
        answers, winner, loser = questions[i]["answers"], strong[place % len(strong)], rng.choice(WEAK)
        sides = [answers.get(model, "") for model in (winner, loser)]
        if all(side.strip() for side in sides):
            prompt = _turn("user", questions[i]["prompt"])
            chosen, rejected = ([prompt, _turn("assistant", side)] for side in sides)
            yield {"chosen": chosen, "rejected": rejected, "preference_type": winner}


def panel_rows(tasks: Path) -> Iterator[dict[str, Any]]:
    """Open prompts of NoveltyBench, and those of IFEval that a short answer can follow."""
    for row in random.Random(0).sample(list(_lines(tasks / "noveltybench_curated.jsonl")), OPEN):
        yield {"id": row["id"], "task": "noveltybench", "prompt": row["prompt"]}
    for row in _lines(tasks / "ifeval.jsonl"):
        if row["key"] in SHORT:
            reference = {key: row[key] for key in ("prompt", "instruction_id_list", "kwargs")}
            yield {
                "id": f"ifeval-{row['key']}", "task": "ifeval", "prompt": row["prompt"],
                "verifier": "ifeval", "reference": reference,
            }  # fmt: skip


def write_data(source: Path, seed: int) -> Path:
    """The data of a seed's runs; prints what they hold."""
    questions = list(_lines(source / "teachers" / "answers.jsonl"))
    others = sorted(set(questions[0]["answers"]) - {ONE})
    folder = OUT / str(seed) / "data"
    for name, teachers, strong, shift in (
        ("one", [ONE], [STRONG_ONE], 0), ("many", others, list(STRONG), 0), ("null", others, list(STRONG), NULL_SEED),
    ):  # fmt: skip
        (folder / name).mkdir(parents=True, exist_ok=True)
        sft = list(sft_rows(questions, teachers, seed + shift))
        _write(folder / name / "instruct_sft.jsonl", sft)
        _write(folder / name / "instruct_dpo.jsonl", list(dpo_rows(questions, strong, seed + shift)))
        words = [len(row["messages"][1]["content"].split()) for row in sft]
        print(
            f"seed {seed}, {name}: {len(sft)} rows, {len(teachers)} teachers, {sum(words) / len(words):.0f} words an answer"
        )
    _write(OUT / "panel.jsonl", list(panel_rows(source / "tasks")))
    return folder


def folder_of(arm: Arm, seed: int) -> Path:
    """The output directory of a run."""
    return OUT / str(seed) / f"{arm.name}-{arm.recipe}"


def run(arm: Arm, seed: int, data: Path, more: list[str]) -> None:
    """Trains one arm with its recipe unless it ended before. Raises RuntimeError with the log's path if it fails."""
    out = folder_of(arm, seed)
    if (out / "done").is_file():
        return
    settings: dict[str, Any] = {
        "config": f"configs/smollm2/{arm.recipe}.yaml",
        "local_data": data / arm.data,
        "output_dir": out,
        "seed": seed,
        "data_seed": seed,
        "watch_seed": 0,  # the same random numbers in all looks: arms of a seed start from the same completions
        "watch_panel": OUT / "panel.jsonl",
        "watch_lineage": f"{arm.name}-{seed}",
    }
    if arm.start:
        settings["model_name_or_path"] = folder_of(ARMS[arm.start], seed)
    command = [sys.executable, f"recipes/{arm.recipe}.py"]
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    out.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"} | os.environ
    with (out / "log.txt").open("w") as log:
        code = subprocess.run(
            [*command, *arm.settings, *more], cwd=ROOT, env=environment, stdout=log, stderr=log
        ).returncode
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}: see {out / 'log.txt'}")
    (out / "done").touch()


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != content:  # an unchanged file keeps its prepared copy
        path.write_text(content, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--data-only", action="store_true", help="write the data and the panel, start no run")
    parser.add_argument("--report", action="store_true", help="start no run: write the results of those there are")
    arguments, more = parser.parse_known_args()
    if arguments.report:
        import real_report

        real_report.write(arguments.seeds, ROOT / "docs")
        return
    source = os.environ.get("DIVWATCH_TEST_DATA")
    if not source:
        parser.error("set DIVWATCH_TEST_DATA to the folder that holds teachers/ and tasks/")
    data = {seed: write_data(Path(source), seed) for seed in arguments.seeds}
    arms = [] if arguments.data_only else [ARMS[name] for name in arguments.arms]
    for recipe in ("sft", "dpo"):
        for seed, arm in product(arguments.seeds, [arm for arm in arms if arm.recipe == recipe]):
            print(f"seed {seed}: {arm.name}", flush=True)
            run(arm, seed, data[seed], [text for text in more if text != "--"])


if __name__ == "__main__":
    main()
