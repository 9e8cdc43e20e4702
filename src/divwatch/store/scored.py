"""The scored looks of a run directory and of the run before it, and what they show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from divwatch.config import COMPARABLE, WatchConfig
from divwatch.errors import DivwatchError
from divwatch.records import PromptScores
from divwatch.store.lineage import parent_of
from divwatch.store.pairing import other_prompts, shares_no_prompt, without
from divwatch.store.reader import SCORED, RunReader

if TYPE_CHECKING:
    from divwatch.analysis.assess import Assessment, Assessor
    from divwatch.analysis.history import History
    from divwatch.analysis.summary import Summaries

_OF_PROMPTS = ("panel", "prompts")  # settings that only say which prompts are watched; those are compared themselves
ScoredLooks = dict[int, tuple[PromptScores, bool]]  # step -> (scores, whether the look is comparable)


def read_scored_looks(store: RunReader) -> ScoredLooks:
    """The looks that have scores. Raises DivwatchError if their scores cannot be read."""
    looks = [look for look in store.looks() if look["status"] in SCORED]
    return {look["step"]: (store.scores(look["step"]), look["status"] == "ok") for look in looks}


def logged_levels(store: RunReader) -> dict[int, Summaries]:
    """Step -> what was logged of its look, of the looks that have scores."""
    return {look["step"]: look["tasks"] for look in store.looks() if look["status"] in SCORED}


def last_look_of_parent(store: RunReader) -> tuple[PromptScores, Summaries] | None:
    """The last comparable look of the run before, and what was logged of it: there the curves of `store` begin.

    Only prompts that `store` asks too, or that it does not have. None if there are none, the look cannot be read, or it
    was watched with settings whose numbers do not compare.
    """
    try:
        info = store.info()
        path = parent_of(store.path.resolve(), info)
        if path is None:
            return None
        parent = RunReader(path)
        before, now = parent.info()["settings"], info["settings"]
        steps = parent.comparable_steps()
        alike = all(before.get(name) == now.get(name) for name in COMPARABLE if name not in _OF_PROMPTS)
        if not steps or not alike or shares_no_prompt(info, parent.info()):
            return None
        scores = without(parent.scores(steps[-1]), other_prompts(info, parent.info()))
        return scores, logged_levels(parent)[steps[-1]]
    except (DivwatchError, OSError, KeyError):
        return None


def most_looks(run: RunReader, most: int) -> int:
    """The number of looks that the detector counts with: of the first plan under `auto`, else `most`, the most that can be."""
    return run.planned_looks() or most


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
