"""Run directories with a known course, written exactly as docs/design.md lays them down.

`write_run` makes one stage: per-prompt diversity follows a plateau, then a fall to a floor, with spread over prompts
and sampling noise; correctness is drawn per sample, and every aggregate is the mean over prompts of the same values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from divwatch.tasks import PAPER

K = 16
TINY_TASKS = ("pair", "expr", "word", "list", "story")
PAPER_TASKS = [task.name for task in PAPER]


@dataclass
class Course:
    """What happens to the model in one stage: retained shares of diversity at its end, and where the fall begins."""

    stage: str
    steps: int
    retained: float = 1.0
    correct_retained: float = 1.0
    onset: int = 0
    accuracy: tuple[float, float] = (0.55, 0.65)
    status: dict[int, tuple[str, str]] = field(default_factory=dict)


THINK = [Course("sft", 150, 0.58, 0.47, 20, (0.52, 0.66)), Course("dpo", 60, 0.85, 0.8, 10, (0.66, 0.62))]
INSTRUCT = [Course("sft", 150, 0.98, 1.0, 150, (0.52, 0.66)), Course("dpo", 100, 0.46, 0.44, 20, (0.66, 0.68))]


def write_lineage(
    root: Path,
    line: str,
    courses: Sequence[Course],
    *,
    looks: int = 8,
    tasks: Sequence[str] = TINY_TASKS,
    prompts: int = 8,
    seed: int = 0,
    completions: bool = True,
) -> list[Path]:
    """One run directory a course, each the parent of the next. Returns the divwatch directories in order."""
    level, parent, made = (1.0, 1.0), None, []
    for number, course in enumerate(courses):
        output = root / f"{line}-{course.stage}"
        parent = write_run(
            output,
            line,
            course,
            level=level,
            parent=parent,
            looks=looks,
            tasks=tasks,
            prompts=prompts,
            seed=seed,
            noise_seed=seed * 100 + number,
            completions=completions,
        )
        level = (level[0] * course.retained, level[1] * course.correct_retained)
        made.append(parent)
    return made


def write_long_lineage(root: Path) -> None:
    """The size that the page is measured at: 200 looks of 15 tasks."""
    stages = [Course(c.stage, 10_000, c.retained, c.correct_retained, c.onset * 80, c.accuracy) for c in THINK]
    write_lineage(root, "think", stages, looks=100, tasks=PAPER_TASKS, prompts=12)


def write_run(
    output: Path,
    line: str,
    course: Course,
    *,
    level: tuple[float, float],
    parent: Path | None,
    looks: int,
    tasks: Sequence[str],
    prompts: int,
    seed: int,
    noise_seed: int,
    completions: bool,
) -> Path:
    directory = output / "divwatch"
    for name in ("scores", "completions"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    panel = [
        {"id": f"{t}-{i}", "task": t, "text": f"{t} question {i}: give one answer."}
        for t in tasks
        for i in range(prompts)
    ]
    traits = _traits(panel, seed)
    rng = np.random.default_rng(noise_seed)
    steps = sorted({round(s) for s in np.linspace(0, course.steps, looks)})
    (directory / "run.json").write_text(json.dumps(_meta(output, line, course, parent, panel, seed)))
    with (directory / "looks.jsonl").open("w") as file:
        for i, step in enumerate(steps):
            status, reason = course.status.get(step, ("ok", ""))
            record: dict[str, Any] = {"step": step, "status": status, "reason": reason or None, "time": 1.8e9 + 40 * i}
            record["seconds"] = {
                "sample": 3.1 + rng.random(),
                "score": 1.2 + rng.random() * 0.3,
                "total": 5.2 + rng.random(),
            }
            if status != "failed":
                scores = _scores(panel, traits, course, level, step, rng)
                scores.to_parquet(directory / "scores" / f"step-{step:08d}.parquet")
                record["tasks"] = aggregate(scores)
                if completions:
                    frame = _completions(scores, course, step, rng)
                    frame.to_parquet(directory / "completions" / f"step-{step:08d}.parquet")
            file.write(json.dumps(record) + "\n")
    if course.retained < 0.9:
        event = {
            "step": min(course.steps, course.onset * 2 + 10),
            "kind": "collapse",
            "task": "all",
            "key": "correct_diversity/sbert",
            "onset_step": course.onset,
            "onset_interval": [max(0, course.onset - 8), course.onset + 9],
            "change": course.retained - 1,
            "change_interval": [course.retained - 1.08, course.retained - 0.93],
            "confirmed": True,
            "message": f"correct-answer diversity began to fall at step {course.onset}",
        }
        (directory / "events.jsonl").write_text(json.dumps(event) + "\n")
    return directory


def aggregate(scores: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """{task: {key: {mean, lo, hi, n}}} over prompts, `all` the equal-weight mean of tasks."""
    tasks: dict[str, Any] = {}
    keys = [c for c in scores.columns if "/" in c]
    for task, group in scores.groupby("task", sort=False):
        tasks[str(task)] = {}
        for key in keys:
            values = group[key].dropna().to_numpy()
            if len(values):
                half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
                mean = float(values.mean())
                tasks[str(task)][key] = {"mean": mean, "lo": mean - half, "hi": mean + half, "n": len(values)}
    everything = {}
    for key in keys:
        parts = [t[key] for t in tasks.values() if key in t]
        mean = float(np.mean([p["mean"] for p in parts]))
        half = float(np.sqrt(np.nansum([(p["hi"] - p["mean"]) ** 2 for p in parts])) / len(parts))
        everything[key] = {"mean": mean, "lo": mean - half, "hi": mean + half, "n": sum(p["n"] for p in parts)}
    return {"all": everything, **tasks}


def _traits(panel: list[dict[str, str]], seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed + 7)
    tasks = list(dict.fromkeys(p["task"] for p in panel))
    shift = dict(zip(tasks, rng.normal(0, 0.09, len(tasks)), strict=True))
    base = np.array([0.46 + shift[p["task"]] for p in panel]) + rng.normal(0, 0.06, len(panel))
    return pd.DataFrame({"base": base.clip(0.08, 0.8), "skill": rng.normal(0, 0.8, len(panel))})


def _scores(panel, traits, course: Course, level, step: int, rng) -> pd.DataFrame:
    along = 1 - np.exp(-max(0, step - course.onset) / max(6, 0.16 * course.steps))
    retained = [
        before * (1 + (end - 1) * along)
        for before, end in zip(level, (course.retained, course.correct_retained), strict=True)
    ]
    a0, a1 = course.accuracy
    p = 1 / (1 + np.exp(-(np.log((a0 + (a1 - a0) * along) / (1 - a0 - (a1 - a0) * along)) + traits["skill"])))
    correct = rng.binomial(K, p)
    wrong = K - correct
    noise = rng.normal(0, 0.025, (3, len(panel)))
    cc_d = (traits["base"] * 0.87 * retained[1] + noise[0]).clip(0, 1)
    ww_d = (traits["base"] * 1.08 * retained[0] + noise[1]).clip(0, 1)
    cw_d = (traits["base"] * 1.1 * retained[0] + noise[2]).clip(0, 1)
    cc, cw, ww = correct * (correct - 1) / 2, correct * wrong, wrong * (wrong - 1) / 2
    every = (cc * cc_d + cw * cw_d + ww * ww_d) / (K * (K - 1) / 2)
    few = correct < 2
    frame = pd.DataFrame(
        {
            "diversity/sbert": every,
            "diversity/vendi": 1 + 8.4 * every,
            "diversity/ead": (0.3 + 0.9 * every).clip(0, 1),
            "diversity/distinct_answers": np.maximum(1, np.round(every * 24)),
            "correct_diversity/sbert": cc_d.where(~few),
            "correct_diversity/vendi": (1 + 8 * cc_d).where(~few),
            "correct_diversity/ead": (0.3 + 0.9 * cc_d).clip(0, 1).where(~few),
            "correct_diversity/distinct_answers": np.maximum(1, np.round(cc_d * 18)).where(~few),
            "quality/accuracy": correct / K,
            "quality/pass_at_k": (correct > 0) * 1.0,
            "quality/majority_at_k": (correct / K + 0.1 * retained[0] > 0.5) * 1.0,
            "quality/finished": 1 - rng.binomial(K, 0.02, len(panel)) / K,
            "quality/usable": 1 - rng.binomial(K, 0.03, len(panel)) / K,
            "quality/repetition": rng.binomial(K, 0.02, len(panel)) / K,
            "pairs/cc_count": cc,
            "pairs/cw_count": cw,
            "pairs/ww_count": ww,
            "pairs/cc_distance": cc_d.where(cc > 0),
            "pairs/cw_distance": cw_d.where(cw > 0),
            "pairs/ww_distance": ww_d.where(ww > 0),
        }
    )
    ids = pd.DataFrame({"id": [q["id"] for q in panel], "task": [q["task"] for q in panel]})
    return pd.concat([ids, frame], axis=1)


def _completions(scores: pd.DataFrame, course: Course, step: int, rng) -> pd.DataFrame:
    rows = []
    for _, s in scores.iterrows():
        distinct = int(min(K, max(1, s["diversity/distinct_answers"])))
        n_correct = round(s["quality/accuracy"] * K)
        for k in range(K):
            a = int(rng.integers(distinct))
            b = int(rng.integers(2, 90))
            answer = f"{3 + a} + {17 - a}" if k < n_correct else f"{3 + a} + {b}"
            text = f"<think>I need two numbers. Try {3 + a}.</think>Sure: {answer} is one way to answer {s['id']}."
            finished = bool(rng.random() > 0.02)
            rows.append(
                {
                    "prompt_id": s["id"],
                    "task": s["task"],
                    "sample": k,
                    "text": text,
                    "finished": finished,
                    "tokens": 24,
                    "answer_text": text.split("</think>")[1],
                    "usable": finished,
                    "correct": finished and k < n_correct,
                    "answer": answer,
                }
            )
    return pd.DataFrame(rows)


def _meta(output: Path, line: str, course: Course, parent: Path | None, panel, seed: int) -> dict[str, Any]:
    return {
        "format": 1,
        "divwatch": "0.1.0",
        "stage": course.stage,
        "line": line,
        "lineage": "demo",
        "model": f"tiny-olmo3/{line}",
        "output_dir": str(output),
        "parent": str(parent) if parent else None,
        "mix": {"name": f"{line}_{course.stage}", "rows": 4000},
        "settings": {
            "every": 0.125,
            "samples": K,
            "temperature": 0.6,
            "top_p": 0.95,
            "max_new_tokens": 64,
            "alpha": 0.05,
            "min_drop": 0.05,
            "metrics": ["sbert", "vendi", "ead", "distinct_answers"],
            "encoder": "all-MiniLM-L6-v2",
            "seed": seed,
        },
        "panel": {"name": "tiny", "fingerprint": "3f9a2c71d0", "prompts": panel},
        "versions": {"torch": "2.9.0", "transformers": "5.23.0", "trl": "1.16.0"},
        "seeds": {"train": seed, "watch": 0},
        "trainer": "DPOTrainer" if course.stage == "dpo" else "SFTTrainer",
        "max_steps": course.steps,
        "created": f"2026-11-23T10:{10 * (line == 'instruct') + 3 * (course.stage == 'dpo'):02d}:00+00:00",
        "wandb": None,
    }
