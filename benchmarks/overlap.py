"""Speed and memory of the held-out check: generated training rows against a panel, one core.

    python benchmarks/overlap.py                 1,000,000 rows of 200 words; a few minutes, 1.5 GB of disk for the rows
    python benchmarks/overlap.py --rows 50000    seconds

Words follow the frequencies of a natural language (Zipf); a tenth are in capitals or followed by a comma. Prompts of the
panel are planted in known rows with case and punctuation changed; exactly these must be found. Memory is the process's
own (RssAnon): the system can drop pages of the memory-mapped rows.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, disable_progress_bars

from divwatch.panel.held_out import check_held_out
from divwatch.panel.overlap import Matches, PanelIndex, scan
from divwatch.records import Prompt

WORDS = 200


def texts(count: int, seed: int) -> Iterator[str]:
    """Texts of 200 words out of 50,000, Zipf-distributed."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(50_000)]
    words += [w.title() + "," for w in rng.sample(words, 5_000)]
    cumulative, total = [], 0.0
    for rank in range(len(words)):
        total += 1 / (rank + 2)
        cumulative.append(total)
    for _ in range(count):
        yield " ".join(rng.choices(words, cum_weights=cumulative, k=WORDS))


def panel(count: int) -> list[Prompt]:
    """Nine in ten prompts of 200 words, one in ten of 8."""
    made = [" ".join(t.split()[: 8 if i % 10 == 0 else WORDS]) for i, t in enumerate(texts(count, seed=1))]
    return [Prompt(id=f"p{i}", task="short" if i % 10 == 0 else "long", text=text) for i, text in enumerate(made)]


def disguised(prompt: Prompt, rng: random.Random) -> str:
    """13 consecutive words of a prompt (all of a short one), with case and punctuation changed."""
    words = re.findall(r"\w+", prompt.text)
    start = rng.randrange(max(1, len(words) - 12))
    return " -- ".join(w.upper() if rng.random() < 0.5 else w.title() + "!" for w in words[start : start + 13])


def training_rows(rows: int, planted: dict[int, str]) -> Iterator[dict[str, str]]:
    for i, text in enumerate(texts(rows, seed=2)):
        yield {"prompt": f"{text[:400]} {planted.get(i, '')} {text[400:]}", "completion": ""}


def own_memory() -> float:
    """Anonymous resident memory in MB."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024  # type: ignore[union-attr]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--prompts", type=int, default=7_500, help="as many as the panel `paper` has, about")
    arguments.add_argument("--planted", type=int, default=500)
    arguments.add_argument("--workers", type=int, default=0)
    asked = arguments.parse_args()
    disable_progress_bars()
    prompts, rng = panel(asked.prompts), random.Random(3)
    chosen = dict(zip(rng.sample(range(asked.rows), asked.planted), rng.sample(prompts, asked.planted), strict=True))
    planted = {row: disguised(prompt, rng) for row, prompt in chosen.items()}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        dataset = Dataset.from_generator(
            training_rows, gen_kwargs={"rows": asked.rows, "planted": planted}, cache_dir=folder
        )
        print(f"{asked.rows:,} rows of {WORDS} words made in {time.perf_counter() - started:.0f} s")
        before, started = own_memory(), time.perf_counter()
        index = PanelIndex(prompts)
        print(f"index of the panel made in {time.perf_counter() - started:.1f} s")
        print(f"panel: {len(prompts):,} prompts, {len(index.grams):,} n-grams, {own_memory() - before:.0f} MB")
        if not asked.workers:
            memory_as_rows_pass(index, dataset)
        report = check_held_out(prompts, dataset, workers=asked.workers, cache=Path(folder) / "found")
    wanted = {prompt.id: row for row, prompt in chosen.items()}
    print(f"{report.seconds:.1f} s with {asked.workers or 'no'} workers, {report.rows / report.seconds:,.0f} rows/s")
    print(f"{len(report.contaminated)} found, {'exactly' if report.contaminated == wanted else 'NOT'} those planted")


def memory_as_rows_pass(index: PanelIndex, dataset: Dataset) -> None:
    """The same pass in ten parts, with the memory after each."""
    found, used = Matches(), []
    for part in range(10):
        found.merge(scan(index, dataset.shard(10, part, contiguous=True)))
        used.append(own_memory())
    print("MB after each tenth of the rows: " + " ".join(f"{mb:.0f}" for mb in used))


if __name__ == "__main__":
    main()
