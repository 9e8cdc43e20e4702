"""Scores a stored look: verify -> score -> store -> assess. The same code during training and after it.

The result is a `ScoredLook`: numbers, which can cross a process border. `divwatch.outputs` puts them into words.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from divwatch.config import WatchConfig
from divwatch.metrics.unknown import unreadable_prompts
from divwatch.records import PARTS, Change, Completion, Prompt, PromptSamples, PromptScores, RunAssessment, ScoredLook
from divwatch.store.run_directory import RunDirectory
from divwatch.store.scored import (
    history_of,
    last_look_of_parent,
    logged_levels,
    most_looks,
    new_assessor,
    read_scored_looks,
)

if TYPE_CHECKING:
    from divwatch.analysis.assess import Assessment
    from divwatch.analysis.summary import Summaries


Verify = Callable[..., tuple[list[PromptSamples], Counter[str]]]


class Models(NamedTuple):
    """The models that metrics need; None if no metric does."""

    encoder: Any
    nli: Any


def load_models(config: WatchConfig, device: str = "cpu") -> Models:
    """The encoder and the NLI classifier that the metrics need. Raises DivwatchError if one cannot be loaded."""
    from divwatch.metrics.encoder import load_encoder
    from divwatch.metrics.nli import load_nli
    from divwatch.metrics.scoring import needs_encoder

    encoder = load_encoder(config.encoder, device=device) if needs_encoder(config.metrics) else None
    nli = load_nli(config.nli_model, device=device) if config.nli_model and "nli" in config.metrics else None
    return Models(encoder, nli)


class LookScorer:
    """Scores the looks of one run directory in the order of their steps, and assesses the run after each.

    max_looks: the most looks that the run can have; the error control divides alpha among them. verify: in place of
    `verify_completions`, where correctness is known from elsewhere.
    """

    def __init__(
        self,
        store: RunDirectory,
        prompts: Sequence[Prompt],
        config: WatchConfig,
        max_looks: int,
        models: Models,
        verify: Verify | None = None,
    ) -> None:
        self.store, self.prompts, self.config, self.models, self._verify = store, prompts, config, models, verify
        self._looks = read_scored_looks(store)
        self._logged = logged_levels(store)
        self._max_looks, self._assessor = max_looks, new_assessor(config, max_looks)

    def score(self, step: int, seconds: float) -> ScoredLook:
        """Scores the stored completions of `step`, which took `seconds` to sample, and stores the scores."""
        started = time.monotonic()
        completions = self.store.read_completions(step)
        samples, scores, unverified = self._verify_and_score(step, completions)
        usable = float(np.mean([s.usable for s in samples]))
        comparable = usable >= self.config.min_usable
        self._looks[step] = (scores, comparable)
        max_looks = most_looks(self.store, self._max_looks)
        if max_looks != self._assessor.max_looks:  # `auto` has planned the looks since
            self._assessor = new_assessor(self.config, max_looks)
        assessment = self._assessor.assess(history_of(self._looks, step))
        tasks = self._logged[step] = self._summarise(step)
        return ScoredLook(
            step=step,
            status="ok" if comparable else "not_comparable",
            time=time.time(),
            sample_seconds=round(seconds, 3),
            score_seconds=round(time.monotonic() - started, 3),
            usable_share=usable,
            finished_share=float(np.mean([c.finished for c in completions])),
            closed_share=float(np.mean([c.thought_closed for c in completions])),
            unreadable=unreadable_prompts(scores.values),
            unverified=dict(unverified.most_common(5)),
            tasks=tasks,
            assessment=to_numbers(assessment),
        )

    def _summarise(self, step: int) -> Summaries:
        """The curves go on from where those of the run before ended."""
        from divwatch.analysis.curves import summarise_look

        looks, logged = self._looks, self._logged
        scores, comparable = looks[step]
        first = not any(ok for earlier, (_, ok) in looks.items() if earlier < step)
        if first and comparable and (before := last_look_of_parent(self.store)):
            looks, logged = {-1: (before[0], True), step: (scores, True)}, {-1: before[1]}
        return summarise_look(history_of(looks, step), scores, logged, seed=self.config.seed)

    def _verify_and_score(
        self, step: int, completions: Sequence[Completion]
    ) -> tuple[list[PromptSamples], PromptScores, Counter[str]]:
        from divwatch.metrics.covariates import covariate_values
        from divwatch.metrics.scoring import score_prompts
        from divwatch.verify import verify_completions

        sampled = {completion.prompt_id for completion in completions}
        prompts = [prompt for prompt in self.prompts if prompt.id in sampled]
        samples, unverified = (self._verify or verify_completions)(
            prompts, completions, unsafe_code=self.config.unsafe_code
        )
        finished = np.reshape([c.finished for c in completions], (len(samples), -1)).tolist()
        embeddings = self.store.take_embeddings(step)
        if embeddings is not None:
            self.models.encoder.remember(*embeddings)
        encoder, nli = self.models
        scores = score_prompts(samples, self.config.metrics, encoder, nli, seed=self.config.seed, finished=finished)
        scores.values |= covariate_values(samples, completions)
        self.store.write_judged(step, completions, samples)
        self.store.write_scores(step, scores)
        return samples, scores, unverified


def to_numbers(assessment: Assessment) -> RunAssessment:
    """The numbers of an assessment, without the history that they were computed from."""
    changes = [
        Change(
            task=task,
            key=key,
            change=float(status.change),
            change_interval=status.change_interval,
            alarm_step=status.alarm_step,
            onset_step=status.onset_step,
            onset_interval=status.onset_interval,
            confirmed=status.confirmed,
        )
        for (task, key), status in assessment.statuses.items()
    ]
    return RunAssessment(
        primary=assessment.primary,
        baseline_step=assessment.baseline_step,
        verdict={"kind": assessment.verdict.kind, "sentence": assessment.verdict.sentence},
        changes=tuple(changes),
        splits={
            task: {part: float(getattr(split, part)) for part in PARTS} for task, split in assessment.splits.items()
        },
        confirmed=assessment.verdict.confirmed,
    )
