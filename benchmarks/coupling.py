"""What common random numbers are worth: the noise of a change between checkpoints, sampled with the same numbers or not.

    python benchmarks/coupling.py --write docs/detection.md      # trains two stages of the embedded world; 20 minutes
    python benchmarks/coupling.py --checkpoints BASE A B --panel FILE.jsonl --tokens 64 256     # any checkpoints

The value of a prompt is the mean pairwise distance of its completions (sbert, MiniLM). Each checkpoint is sampled with
several seeds in each way; the variance of a prompt's change over seeds is sampling noise alone. "independent" pairs a
checkpoint's seed with another seed of the baseline. Shorter completions are the beginnings of the longest ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import ROOT, Result, options, place, publish, table
from rich.progress import track

from divwatch.config import WatchConfig
from divwatch.metrics.embedding import gram, pairwise_distance
from divwatch.metrics.encoder import load_encoder
from divwatch.panel import choose, load_panel
from divwatch.records import Prompt
from divwatch.sampling import choose as choosing
from divwatch.sampling import in_process
from divwatch.sampling.nucleus import draw
from divwatch.sampling.plan import Row
from divwatch.sampling.request import make_request
from divwatch.tiny import BASE_MODEL

STAGES = {"Think SFT (narrows)": "think", "control SFT": "control"}
STEPS = {2: "2 %", 8: "10 %", 24: "30 %", 80: "100 %"}  # of 80
TOKENS_ALIKE = (4, 16, 64, 256)


def inverse_cdf(logits: Any, seeds: Any, temperature: float, top_p: float) -> Any:
    """The other common way to draw with a given random number: the place where it falls among the summed probabilities."""
    values, tokens = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)
    values = values.masked_fill(values.cumsum(-1) - values >= top_p, 0.0)
    sums = torch.zeros_like(values).scatter(-1, tokens, values).cumsum(-1)
    uniform = (seeds[:, :1].double() + 2**31) / 2**32
    below = torch.minimum(uniform.float() * sums[:, -1:], sums[:, -1:] * (1 - 2**-23))
    return torch.searchsorted(sums, below, right=True)[:, 0]


WAYS: dict[str, Callable[..., Any]] = {"inverse CDF": inverse_cdf, "race": draw}


class Look(NamedTuple):
    """What is sampled at each checkpoint."""

    config: WatchConfig
    prompts: Sequence[Prompt]
    seeds: int
    limits: Sequence[int]
    encoder: Any

    @property
    def depths(self) -> list[int]:
        return [t for t in TOKENS_ALIKE if t <= max(self.limits)]


class Sampled(NamedTuple):
    """ids: [seeds][prompts][samples] new tokens; values: {limit: [seeds, prompts]}."""

    ids: list[list[list[list[int]]]]
    values: dict[int, np.ndarray]


@contextmanager
def drawing(way: Callable[..., Any]) -> Iterator[None]:
    before, choosing.draw = choosing.draw, way
    try:
        yield
    finally:
        choosing.draw = before


def sample(path: str, way: str, look: Look) -> Sampled:
    """A checkpoint's completions and their values, drawn in one way."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    prompts, samples = look.prompts, look.config.samples
    rows = [Row(i, k) for i in range(len(prompts)) for k in range(samples)]
    sampled, values = [], {limit: np.empty((look.seeds, len(prompts))) for limit in look.limits}
    for seed in range(look.seeds):
        request = make_request(model, tokenizer, prompts, look.config, seed, model.device)
        with drawing(WAYS[way]), torch.no_grad():
            made = in_process.generate(model, request, rows, lambda done: None)
        sampled.append([made[i : i + samples] for i in range(0, len(rows), samples)])
        for limit, of_limit in values.items():
            for i, ids in enumerate(sampled[-1]):
                texts = tokenizer.batch_decode([row[:limit] for row in ids], skip_special_tokens=True)
                of_limit[seed, i] = pairwise_distance(gram(look.encoder.encode(texts)))
    return Sampled(sampled, values)


def standard_error(now: np.ndarray, before: np.ndarray) -> float:
    """Of the relative change of the mean over prompts, from values [seeds, prompts] that are paired by seed."""
    variance = (now - before).var(axis=0, ddof=1).mean() / now.shape[1]
    return float(np.sqrt(variance) / before.mean())


def alike(now: Sampled, before: Sampled, tokens: int) -> float:
    """Share of the completions whose first `tokens` tokens are those of the baseline."""
    flat = [[row[:tokens] for prompts in one.ids for ids in prompts for row in ids] for one in (now, before)]
    return float(np.mean([a == b for a, b in zip(*flat, strict=True)]))


def measure_series(base: str, series: dict[str, str], look: Look) -> list[list[str]]:
    """A row of the table for each checkpoint and limit."""
    before = {way: sample(base, way, look) for way in WAYS}
    rows = []
    for name, path in track(series.items(), "checkpoints", disable=None):
        now = {way: sample(path, way, look) for way in WAYS}
        same = [f"{alike(now['race'], before['race'], t):.2f}" for t in look.depths]
        for limit in look.limits:
            race, first = now["race"].values[limit], before["race"].values[limit]
            change = (race.mean() - first.mean()) / first.mean()
            alone = standard_error(race, np.roll(first, 1, axis=0))
            errors = [standard_error(now[way].values[limit], before[way].values[limit]) for way in WAYS]
            shares = [f"{change:+.1%}", *(f"{error:.2%}" for error in [alone, *errors])]
            rows.append([name, str(limit), *shares, f"{(errors[-1] / alone) ** 2:.3f}", *same])
    return rows


def header(look: Look) -> list[str]:
    ways = [f"common, {way}" for way in WAYS]
    same = [f"same after {t}" for t in look.depths]
    return ["checkpoint", "tokens", "change", "independent", *ways, "variance, race / independent", *same]


def train(stage: str, out: Path) -> Path:
    """Trains an SFT stage of the embedded world with its recipe and keeps its checkpoints, unless they are there."""
    folder = out / f"{stage}-sft"
    if not (folder / f"checkpoint-{max(STEPS)}").is_dir():
        words = f"--config configs/tiny/{stage}/sft.yaml --output_dir {folder} --save_strategy steps --save_steps 2"
        words += " --save_only_model true --watch_every 0.5 --watch_prompts 4 --watch_samples 2 --report_to none"
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        subprocess.run([sys.executable, "recipes/sft.py", *words.split()], cwd=ROOT, env=environment, check=True)
    return folder


def measure(arguments: Any) -> Result:
    torch.set_num_threads(1)
    result = Result()
    config = WatchConfig(
        panel=arguments.panel, samples=arguments.samples, max_new_tokens=max(arguments.tokens),
        temperature=arguments.temperature, top_p=arguments.top_p,
    )  # fmt: skip
    prompts = choose(load_panel(arguments.panel)[1], arguments.prompts, 0)
    look = Look(config, prompts, arguments.seeds, sorted(arguments.tokens), load_encoder("minilm"))
    base, *others = arguments.checkpoints or [str(BASE_MODEL)]
    series = {Path(path).name: path for path in others} or {
        f"{title}, {share}": str(train(stage, arguments.out) / f"checkpoint-{step}")
        for title, stage in STAGES.items()
        for step, share in STEPS.items()
    }
    result.add(*table(header(look), measure_series(base, series, look)), "")
    result.add(
        f"{len(prompts)} prompts, K = {config.samples}, temperature {config.temperature}, top-p {config.top_p}, "
        f"{look.seeds} seeds. 'independent' and 'common': standard error of the change."
    )
    return result


def _options(parser: Any) -> None:
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "coupling", help="where trained stages are kept")
    parser.add_argument("--checkpoints", nargs="+", help="a baseline and others to measure instead")
    parser.add_argument("--panel", default="tiny")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64])
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--write", type=Path, help="page whose part between the marks 'coupling' is replaced")


if __name__ == "__main__":
    given = options(__doc__, _options)
    found = measure(given)
    if given.write:
        place(given.write, "coupling", found.lines)
    sys.exit(publish(found, given.json))
