"""Stored looks become scored ones: verify -> score -> store -> assess. The same code live, in the background and after.

What comes out is plain data that can cross a process border: numbers, texts, lists.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from divwatch.config import WatchConfig
from divwatch.outputs.terminal import event_message, look_line
from divwatch.outputs.tracking import assessment_scalars, look_scalars, table_rows
from divwatch.records import Completion, Prompt, PromptSamples, PromptScores
from divwatch.store.reader import SCORED
from divwatch.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from divwatch.analysis.assess import Assessment, Assessor


class Models(NamedTuple):
    """What the metrics read texts with; None where no metric needs it."""

    encoder: Any
    nli: Any


def load_models(config: WatchConfig, device: str = "cpu") -> Models:
    """The encoder and the NLI classifier that the metrics need. Raises DivwatchError where one cannot be loaded."""
    from divwatch.metrics.encoder import load_encoder
    from divwatch.metrics.nli import load_nli
    from divwatch.metrics.scoring import needs_encoder

    encoder = load_encoder(config.encoder, device=device) if needs_encoder(config.metrics) else None
    nli = load_nli(config.nli_model, device=device) if config.nli_model and "nli" in config.metrics else None
    return Models(encoder, nli)


class Scorer:
    """Scores the looks of one run directory in the order of their steps and says after each what the run shows.

    max_looks: how many looks the run will have at most; the error control shares alpha among them.
    """

    def __init__(
        self, store: RunDirectory, prompts: Sequence[Prompt], config: WatchConfig, max_looks: int, models: Models
    ) -> None:
        self.store, self.prompts, self.config, self.max_looks, self.models = store, prompts, config, max_looks, models
        self._history = stored_looks(store)
        self._assessor = _assessor(config, max_looks)

    def score(self, step: int, seconds: float) -> dict[str, Any]:
        """Scores the stored completions of `step`, whose sampling took `seconds`, and says what the run shows up to it.

        Returns `line` (for looks.jsonl), `scalars` (by their logged names), `alarms` (an event a flagged series),
        `text` (the look in a line) and `rows` (of the table of completions).
        """
        started = time.monotonic()
        completions = self.store.read_completions(step)
        samples, scores, unjudged = self._judge_and_score(step, completions)
        finished = float(np.mean([c.finished for c in completions]))
        usable = float(np.mean([s.usable for s in samples]))
        comparable = usable >= self.config.min_usable
        self._history[step] = (scores, comparable)
        assessment = _assess(self._assessor, {at: look for at, look in self._history.items() if at <= step})
        tasks = _summarised(scores, self.config.seed)
        verdict = assessment.verdict
        line = {
            "step": step,
            "status": "ok" if comparable else "not_comparable",
            "reason": None if comparable else f"{usable:.0%} of the outputs are finished and readable",
            "time": time.time(),
            "seconds": {"sample": round(seconds, 3), "score": round(time.monotonic() - started, 3)},
            "usable_share": usable,
            "finished_share": finished,
            "closed_share": float(np.mean([c.thought_closed for c in completions])),
            "unjudged": dict(unjudged.most_common(5)),
            "tasks": tasks,
            "verdict": {"kind": verdict.kind, "sentence": verdict.sentence},
        }
        return {
            "line": line,
            "scalars": look_scalars(tasks) | assessment_scalars(assessment),
            "alarms": [_event(step, verdict.kind, *alarm) for alarm in assessment.alarms],
            "text": look_line(line, assessment),
            "rows": table_rows(step, {p.id: p.text for p in self.prompts}, samples),
        }

    def _judge_and_score(
        self, step: int, completions: Sequence[Completion]
    ) -> tuple[list[PromptSamples], PromptScores, Counter[str]]:
        from divwatch.metrics.scoring import score_prompts
        from divwatch.verify import verify_completions

        samples, unjudged = verify_completions(self.prompts, completions, unsafe_code=self.config.unsafe_code)
        finished = np.reshape([c.finished for c in completions], (len(samples), -1)).tolist()
        embeddings = self.store.take_embeddings(step)
        if embeddings is not None:
            self.models.encoder.remember(*embeddings)
        encoder, nli = self.models
        scores = score_prompts(samples, self.config.metrics, encoder, nli, seed=self.config.seed, finished=finished)
        self.store.write_judged(step, completions, samples)
        self.store.write_scores(step, scores)
        return samples, scores, unjudged


def stored_looks(store: RunDirectory) -> dict[int, tuple[PromptScores, bool]]:
    """step -> (scores, comparable) of the looks that were scored."""
    looks = [look for look in store.looks() if look["status"] in SCORED]
    return {look["step"]: (store.scores(look["step"]), look["status"] == "ok") for look in looks}


def assess_looks(looks: dict[int, tuple[PromptScores, bool]], config: WatchConfig, max_looks: int) -> Assessment:
    return _assess(_assessor(config, max_looks), looks)


def _assessor(config: WatchConfig, max_looks: int) -> Assessor:
    from divwatch.analysis.assess import Assessor

    return Assessor(max_looks, config.alpha, config.min_drop)


def _assess(assessor: Assessor, looks: dict[int, tuple[PromptScores, bool]]) -> Assessment:
    from divwatch.analysis.history import History

    return assessor.assess(History.of([(step, *looks[step]) for step in sorted(looks)]))


def _summarised(scores: PromptScores, seed: int) -> dict[str, Any]:
    from divwatch.analysis.summary import summarise

    return summarise(scores, seed=seed)


def _event(step: int, kind: str, task: str, key: str, status: Any) -> dict[str, Any]:
    event = {"step": step, "kind": kind, "task": task, "key": key}
    event |= {"onset_step": status.onset_step, "onset_interval": list(status.onset_interval or ())}
    event |= {"change": status.change, "change_interval": list(status.change_interval)}
    event |= {"confirmed": status.confirmed}
    return event | {"message": event_message(event)}
