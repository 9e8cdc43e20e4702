"""What watching costs a training: the demo's Instruct SFT with and without the monitor, and the seconds a look blocks.

    python benchmarks/overhead.py          minutes, two cores

Each training runs in its own process on one thread, in turn, with its scoring process beside it. Steps of this model
take a tenth of a second, so a look every ten steps dominates the run. The third row uses the default limit,
`watch_max_overhead` 0.03.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from measuring import ROOT, Result, in_turn, options, publish, spread, table

ROUNDS = 2
IDLE = 20.0  # microseconds of a step without a look: a ten-thousandth of a step of a fifth of a second
STEPS = 120  # of the demo's 80 and more, so that the first and the last look weigh less
DEMO = "a look every 10 steps, as in the demo"
WAYS: dict[str, list[str]] = {
    "without the monitor": [],
    DEMO: ["--watch_every", "10"],
    "a look every 10 steps, at most 3 % overhead (default)": ["--watch_every", "10", "--watch_max_overhead", "0.03"],
}


def train(folder: Path, watched: bool) -> None:
    """Runs the shipped recipe in this process, without its callback if `watched` is False."""
    import torch

    from divwatch import DiversityCallback, recipe

    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT / "recipes"))
    import sft

    def timed(trainer: Any) -> None:
        if not watched:
            trainer.remove_callback(DiversityCallback)
        started = time.perf_counter()
        trainer.train()
        (folder / "seconds.json").write_text(json.dumps(time.perf_counter() - started))

    recipe.train = timed
    sft.main()


def launch(folder: Path, flags: list[str], steps: int) -> None:
    config = ["--config", "configs/tiny/instruct/sft.yaml", "--output_dir", str(folder), "--max_steps", str(steps)]
    command = [sys.executable, __file__, "--train", str(folder), *config, "--report_to", "none", *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])


def trainings(folder: Path, result: Result, steps: int, rounds: int) -> None:
    from divwatch.store.run_directory import RunDirectory

    folders: dict[str, list[Path]] = {name: [] for name in WAYS}

    def once(name: str) -> None:
        folders[name].append(folder / f"{len(folders[name])}-{list(WAYS).index(name)}")
        launch(folders[name][-1], WAYS[name], steps)

    in_turn({name: partial(once, name) for name in WAYS}, rounds, once=[DEMO])
    spent = {n: [json.loads((f / "seconds.json").read_text()) for f in made] for n, made in folders.items()}
    base = statistics.median(spent["without the monitor"])
    rows = []
    for name, values in spent.items():
        looks = RunDirectory.of(folders[name][-1]).looks() if WAYS[name] else []
        blocked = sum(look["seconds"]["total"] for look in looks)
        share = f"{blocked / values[-1]:.1%}" if looks else "-"
        rows.append([name, spread(values, 1), f"{statistics.median(values) / base:.2f}x", len(looks) or "-", share])
    head = ["training", "seconds of train()", "against without", "looks", "looks' share of train()"]
    result.add(f"The demo's Instruct SFT, {steps} steps, 72 prompts x 16, up to 64 tokens:", "", *table(head, rows))


def blocked_seconds(folder: Path) -> dict[str, list[float]]:
    """Seconds that each look of a small run blocks training, by where it is scored; the first look warms up."""
    import divwatch
    from divwatch.store.run_directory import RunDirectory
    from tests.training import SETTINGS, sft_trainer

    found = {}
    for name in ("inline", "background"):
        trainer = sft_trainer(folder / name, steps=60)
        settings = SETTINGS | {"prompts": 48, "samples": 16, "background": name == "background"}
        divwatch.watch(trainer, every=12, **settings)
        trainer.train()
        looks = RunDirectory.of(folder / name).looks()[1:]
        found[name] = [look["seconds"]["total"] for look in looks]
        found[f"{name}, of it sampling"] = [look["seconds"]["sample"] for look in looks]
    return found


def step_without_look(folder: Path) -> float:
    """Microseconds of `on_step_end` when no look is due."""
    import divwatch
    from tests.training import SETTINGS, sft_trainer

    trainer = sft_trainer(folder / "idle", steps=10_000)
    callback = divwatch.watch(trainer, every=5_000, **SETTINGS | {"background": True})
    trainer.state.max_steps, trainer.state.global_step = 10_000, 0
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)  # and its look, which is scored beside
    while not callback.recorder.poll(1.0):
        pass
    trainer.state.global_step = 1
    times = 20_000
    started = time.perf_counter()
    for _ in range(times):
        callback.on_step_end(trainer.args, trainer.state, trainer.control)
    spent = time.perf_counter() - started
    callback.before_trackers_close(trainer.args, trainer.state, trainer.control)
    return 1e6 * spent / times


def measure(steps: int = STEPS, rounds: int = ROUNDS) -> Result:
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    result = Result()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainings(folder, result, steps, rounds)
        blocked = blocked_seconds(folder)
        idle = step_without_look(folder)
    rows = [[name, spread(values)] for name, values in blocked.items()]
    said = (
        "Seconds that a look of 48 prompts x 16, up to 40 tokens, blocks training (two runs in turn, five looks each):"
    )
    result.add(said, "")
    result.add(*table(["scored", "seconds, median [least, most]"], rows))
    result.add(f"A step without a look: {idle:.1f} microseconds of `on_step_end`.", "")
    result.bound(f"less than {IDLE:.0f} microseconds", idle < IDLE)
    inline, background = (statistics.median(blocked[name]) for name in ("inline", "background"))
    result.ratios["overhead: a look scored inline / in the background"] = inline / background
    return result


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        chosen, sys.argv[1:] = Path(sys.argv[2]), sys.argv[3:]
        train(chosen, watched="--watch_every" in sys.argv)
    else:
        sys.exit(publish(measure(), options(__doc__).json))
