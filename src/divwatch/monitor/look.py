"""One look at a model outside training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from divwatch.config import WatchConfig
from divwatch.monitor.score_look import LookScorer, Models
from divwatch.records import Prompt, ScoredLook
from divwatch.store.run_directory import RunDirectory


def take_look(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: WatchConfig,
    models: Models,
    store: RunDirectory,
    step: int,
    progress: Callable[[int], Any] = lambda done: None,
) -> ScoredLook:
    """Samples `prompts`, stores the completions and scores them, in one process. progress: see `sample`."""
    from divwatch.sampling import Source, sample
    from divwatch.sampling.sampler import look_seed

    started = time.monotonic()
    completions = sample(Source(model), tokenizer, prompts, config, look_seed(config, step), progress)
    store.write_completions(step, completions)
    return LookScorer(store, prompts, config, 2, models).score(step, time.monotonic() - started)
