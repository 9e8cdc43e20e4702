"""What `divwatch plan` says that looks will see, against runs whose completions are really drawn (docs/cost.md).

`plan` simulates series from a noise model; `drawn_runs.py` draws K answers per prompt and look from policies whose true
diversity is known. Both go through the same detector. A policy cannot fall by the wanted share where it is narrow
already, so its fall is set such that the panel's true one is as wanted. Common random numbers leave more noise in `plan`
than in these runs (SHARED), so `plan`'s simulation is given what they leave here.
"""

from __future__ import annotations

import argparse
from functools import lru_cache

import numpy as np
from drawn_runs import POOL, World, draw, expected, policy, pool
from scipy.optimize import brentq

from divwatch.analysis.detector import CollapseDetector
from divwatch.analysis.series_fit import PRIOR_WOBBLE
from divwatch.plan.sees import INDEPENDENT, PERSISTENCE, WITHIN, Left, Watch, delays
from divwatch.words import counted

MIDDLE = 6
SHARED = 2.6  # share of the noise of a change that common numbers leave here, per relative change
CASES = [Watch(150, 32, 15), Watch(96, 48, 4), Watch(64, 16, 1), Watch(120, 16, 15), Watch(120, 8, 15)]
PLACES = (
    ("start", 0, False, (0.05, 0.1, 0.2)),
    ("start, common", 0, True, (0.05, 0.1)),
    ("middle", MIDDLE, False, (0.1, 0.2)),
)


@lru_cache
def nominal(fall: float) -> float:
    """The fall to ask of each policy such that the mean over the pool falls by `fall`."""
    logits, distances, ratio = pool()

    def mean(by: float) -> float:
        return float(expected(policy(logits, ratio, np.full((1, POOL), np.log1p(-by))), distances[None]).mean())

    return float(brentq(lambda by: mean(by) / mean(0.0) - (1 - fall), fall / 2, 2 * fall))


def drawn_delays(watch: Watch, looks: int, last_quiet: int, fall: float, coupled: bool, seeds: range) -> np.ndarray:
    """[runs] as `divwatch.plan.sees.delays`, of runs drawn with `seeds`; last_quiet: the last look before the fall."""
    change = tuple([0.0] * (last_quiet + 1) + [-nominal(fall)] * (looks - last_quiet - 1))
    world = World(
        watch.tasks, watch.prompts, watch.samples, looks, rho=PERSISTENCE, coupled=coupled, fall=change, accuracy=False
    )
    late = np.full(len(seeds), np.inf)
    for run, seed in enumerate(seeds):
        history, _ = draw(world, seed)
        detector = CollapseDetector(watch.most_looks, watch.alpha_of_all, watch.min_drop)
        alarm = detector.replay(history.steps, history.series("diversity/sbert")).alarm_step
        if alarm is not None and history.steps.index(alarm) > last_quiet:
            late[run] = history.steps.index(alarm) - last_quiet - 1
    return late


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=2_000_000, help="of the first run that is drawn")
    chosen = parser.parse_args()
    runs, seeds = chosen.runs, range(chosen.seed, chosen.seed + chosen.runs)
    print("| panel | fall | drawn within 2 / 4 | `plan` within 2 / 4 |\n|---|---|---|---|", flush=True)
    worst = 0.0
    for where, last, coupled, falls in PLACES:
        for watch in CASES:
            for fall in falls:
                looks = last + 2 + max(WITHIN)
                left = Left(SHARED * fall, SHARED * PRIOR_WOBBLE) if coupled else INDEPENDENT
                drawn = drawn_delays(watch, looks, last, fall, coupled, seeds)
                plan = delays(watch, looks, last + 1, fall, left, runs)
                both = [[(d <= w).mean() for w in WITHIN] for d in (drawn, plan)]
                worst = max(worst, float(np.abs(np.subtract(*both)).max()))
                cells = [" / ".join(f"{share:.2f}" for share in shares) for shares in both]
                panel = f"{watch.prompts} x {watch.samples}, {counted(watch.tasks, 'task')}, {where}"
                print(f"| {panel} | {fall:.0%} | {cells[0]} | {cells[1]} |", flush=True)
    print(f"largest difference {worst:.3f}, {runs} runs each")


if __name__ == "__main__":
    main()
