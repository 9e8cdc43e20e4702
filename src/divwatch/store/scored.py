"""The scored looks of a run directory, and what they show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from divwatch.config import WatchConfig
from divwatch.records import PromptScores
from divwatch.store.reader import SCORED, RunReader

if TYPE_CHECKING:
    from divwatch.analysis.assess import Assessment, Assessor
    from divwatch.analysis.history import History

ScoredLooks = dict[int, tuple[PromptScores, bool]]  # step -> (scores, whether the look is comparable)


def read_scored_looks(store: RunReader) -> ScoredLooks:
    """The looks that have scores. Raises DivwatchError if their scores cannot be read."""
    looks = [look for look in store.looks() if look["status"] in SCORED]
    return {look["step"]: (store.scores(look["step"]), look["status"] == "ok") for look in looks}


def assess_looks(looks: ScoredLooks, config: WatchConfig, max_looks: int) -> Assessment:
    """What all the looks show. max_looks: the most looks that the run can have."""
    return new_assessor(config, max_looks).assess(history_of(looks))


def replay(looks: ScoredLooks, config: WatchConfig, max_looks: int) -> Iterator[tuple[int, Assessment]]:
    """(step, what the looks up to that step show), look by look."""
    assessor = new_assessor(config, max_looks)
    for step in sorted(looks):
        yield step, assessor.assess(history_of(looks, step))


def new_assessor(config: WatchConfig, max_looks: int) -> Assessor:
    from divwatch.analysis.assess import Assessor

    return Assessor(max_looks, config.alpha, config.min_drop)


def history_of(looks: ScoredLooks, last: float = math.inf) -> History:
    """The looks up to step `last` as the history that is assessed."""
    from divwatch.analysis.history import History

    return History.of([(step, *looks[step]) for step in sorted(looks) if step <= last])
