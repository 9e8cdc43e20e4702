"""The experiment of docs/real.md: does a real model narrow more on one teacher than on sixteen?

    DIVWATCH_TEST_DATA=DIR python benchmarks/real.py                    # every run of three seeds, one after another
    DIVWATCH_TEST_DATA=DIR python benchmarks/real.py --seeds 0 --arms one many null --data-only

DIR/teachers/answers.jsonl: lines {"id", "prompt", "answers": {model: text}}; DIR/tasks/noveltybench_curated.jsonl and
DIR/tasks/ifeval.jsonl: the panel. A run that ended is kept, so that the same command resumes. Runs are started as a user
starts them, with configs/smollm2 and the recipes as they are; what follows -- goes to every run, such as --max_steps.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
OUT = ROOT / "runs" / "real"
ONE = "Mixtral-8x7B-Instruct-v0.1_concise"  # answers about as long as those of the other 16 on average
STRONG_ONE = "gpt4_1106_preview_concise"  # about as long as the four together on average
STRONG = (STRONG_ONE, "gpt-4-turbo-2024-04-09", "gpt4_0613_concise", "claude-2.1_concise")
WEAK = ("falcon-7b-instruct", "phi-2", "pythia-12b-mix-sft")
NULL_SEED = 1000  # added to the seed: other rows of the 16 teachers than those of the run that is continued
EASY = ("punctuation:no_comma", "change_case:", "startend:", "detectable_format:title", "keywords:existence")


class Arm(NamedTuple):
    """A run: its recipe, its data and the run of the same seed that it starts from (None: the model itself)."""

    name: str
    recipe: str
    data: str
    start: str | None = None


ARMS = [
    Arm("one", "sft", "one"),
    Arm("many", "sft", "many"),
    Arm("null", "sft", "null", "many"),
    Arm("dpo-one", "dpo", "one", "many"),
    Arm("dpo-many", "dpo", "many", "many"),
]


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
    """NoveltyBench's open prompts, and those of IFEval whose instructions a short answer can follow."""
    for row in _lines(tasks / "noveltybench_curated.jsonl"):
        yield {"id": row["id"], "task": "noveltybench", "prompt": row["prompt"]}
    for row in _lines(tasks / "ifeval.jsonl"):
        if all(name.startswith(EASY) for name in row["instruction_id_list"]):
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


def run(arm: Arm, seed: int, data: Path, more: list[str]) -> None:
    """Trains one arm with its recipe unless it ended before. Raises RuntimeError with the log's path if it fails."""
    out = OUT / str(seed) / f"{arm.name}-{arm.recipe}"
    if (out / "done").is_file():
        return
    command = [sys.executable, f"recipes/{arm.recipe}.py", "--config", f"configs/smollm2/{arm.recipe}.yaml"]
    command += ["--local_data", str(data / arm.data), "--output_dir", str(out), "--watch_lineage", f"{arm.name}-{seed}"]
    command += [
        "--seed",
        str(seed),
        "--data_seed",
        str(seed),
        "--watch_seed",
        "0",
        "--watch_panel",
        str(OUT / "panel.jsonl"),
    ]
    command += ["--model_name_or_path", str(OUT / str(seed) / f"{arm.start}-sft")] if arm.start else []
    out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    with (out / "log.txt").open("w") as log:
        code = subprocess.run([*command, *more], cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
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
    parser.add_argument("--arms", nargs="+", default=[arm.name for arm in ARMS], choices=[arm.name for arm in ARMS])
    parser.add_argument("--data-only", action="store_true", help="write the data and the panel, start no run")
    arguments, more = parser.parse_known_args()
    source = os.environ.get("DIVWATCH_TEST_DATA")
    if not source:
        parser.error("set DIVWATCH_TEST_DATA to the folder that holds teachers/ and tasks/")
    for seed in arguments.seeds:
        data = write_data(Path(source), seed)
        for arm in [] if arguments.data_only else ARMS:
            if arm.name in arguments.arms:
                print(f"seed {seed}: {arm.name}", flush=True)
                run(arm, seed, data, [text for text in more if text != "--"])


if __name__ == "__main__":
    main()
