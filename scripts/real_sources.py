"""The data of `make demo-real`, made on the spot: two sources of SmolLM2's own answers, and a held-out panel.

    python scripts/real_sources.py runs/demo-real

broad.jsonl holds four answers to each of 24 prompts, sampled at temperature 1. narrow.jsonl holds the same prompts as often,
each time with the most likely answer. So both have the same prompts, the same number of rows and the same author; they differ
in breadth. panel.jsonl holds 24 open prompts of the panel `quick` and 8 sums that are verified.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from divwatch.panel.quick import panel
from divwatch.smollm2 import resolve_model

SUBJECTS = {
    "Suggest a name for {}.": ["a bakery by a canal", "a white horse", "a band of three drummers", "a hiking club"],
    "Suggest a present for {}.": ["a nurse", "a boy of seven", "a couple with a new house", "a cousin who paints"],
    "Suggest something to do {}.": ["on a train", "in a power cut", "with old newspapers", "in a park in winter"],
    "Write two sentences about {}.": ["a lost key", "a market at dawn", "a tired postman", "the first snow"],
    "Write a story of two sentences about {}.": ["a mouse at sea", "a locked door", "a singing tree", "a slow train"],
    "What makes {}? Answer in two sentences.": ["a good friend", "a good breakfast", "a good song", "a good holiday"],
}
ANSWERS, NEW_TOKENS = 4, 48
OPEN = {"stories": 8, "ideas": 8, "opinions": 8}


def main(out: Path) -> None:
    prompts = [template.format(subject) for template, subjects in SUBJECTS.items() for subject in subjects]
    order = [(prompt, i) for prompt in range(len(prompts)) for i in range(ANSWERS)]
    random.Random(0).shuffle(order)
    out.mkdir(parents=True, exist_ok=True)
    for source in ("broad", "narrow"):
        answers = sample(prompts, most_likely=source == "narrow")
        write(out / f"{source}.jsonl", [row(prompts[prompt], answers[prompt][i]) for prompt, i in order])
    write(out / "panel.jsonl", held_out())


def sample(prompts: list[str], most_likely: bool) -> list[list[str]]:
    """`ANSWERS` answers of the model to each prompt, at temperature 1; or as often the one that greedy search finds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = resolve_model("smollm2")
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    torch.manual_seed(0)
    how: dict[str, Any] = {
        "do_sample": True,
        "temperature": 1.0,
        "top_p": 0.95,
        "top_k": 0,
        "num_return_sequences": ANSWERS,
    }
    how = {"do_sample": False} if most_likely else how
    answers: list[list[str]] = []
    for start in range(0, len(prompts), 8):
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + 8]]
        inputs = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=NEW_TOKENS, **how)
        texts = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        texts = [text.strip() for text in texts for _ in range(ANSWERS if most_likely else 1)]
        answers += [texts[i : i + ANSWERS] for i in range(0, len(texts), ANSWERS)]
        print(f"  {len(answers)} of {len(prompts)} prompts answered", flush=True)
    return answers


def held_out() -> list[dict[str, Any]]:
    """Open prompts of the panel `quick`, and sums of two numbers, checked by their final number."""
    rows = [
        {"id": prompt.id, "task": prompt.task, "prompt": prompt.text}
        for task, count in OPEN.items()
        for prompt in [p for p in panel() if p.task == task][:count]
    ]
    sums = [(3, 4), (2, 5), (6, 2), (8, 7), (9, 6), (12, 5), (20, 14), (31, 8)]
    return rows + [
        {"id": f"sum/{a}+{b}", "task": "sums", "prompt": f"What is {a} + {b}? Give the number only.",
         "reference": str(a + b), "verifier": "gsm8k"} for a, b in sums
    ]  # fmt: skip


def row(prompt: str, answer: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
