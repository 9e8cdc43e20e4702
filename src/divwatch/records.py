"""The types that flow from one step of a look to the next: prompts, completions, verified completions, scores, scored looks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Prompt:
    """One held-out prompt of the panel.

    text:            a plain prompt, or the last user turn of a conversation.
    messages:        a conversation up to the turn that waits for an answer, each turn with the fields of its data set,
                     as the chat template gets it; None for a plain prompt.
    templated:       whether a chat template gets a plain prompt as a user's turn. False for a text that is trained on as it
                     is, and for one that the template has rendered already.
    reference:       what the verifier compares an answer with.
    verifier:        name of a verifier in `divwatch.verify`; None: outputs of this prompt are not verified.
    question:        the prompt without its task's wording; None: the text itself. It must not be in the training data.
    stop:            texts that end a completion in plain form (a chat ends its own turns).
    max_new_tokens:  the task's own limit; None if it states none (`divwatch.panel.length` says what applies then).
    thinking:        "as-trained", or "off": the thought is prefilled empty.
    variant_of:      id of the prompt that this one repeats with thinking as trained (`watch_thinking: both`); None for
                     the prompt itself.
    tools:           JSON schemas of the tools that the chat template shows; None: without tools.
    template_kwargs: further arguments of the chat template, such as enable_thinking.
    """

    id: str
    task: str
    text: str
    messages: list[dict[str, Any]] | None = None
    reference: Any = None
    verifier: str | None = None
    question: str | None = None
    stop: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    thinking: str = "as-trained"
    variant_of: str | None = None
    tools: list[Any] | None = None
    template_kwargs: dict[str, Any] | None = None
    templated: bool = False

    @property
    def needs_end(self) -> bool:
        """Whether an answer that is cut is worth nothing: a verifier needs the final answer, diversity alone does not."""
        return self.verifier is not None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file, without those that have their default; what JSON cannot express becomes text."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return dict(json.loads(json.dumps(values, default=str)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Prompt:
        """From `to_json`."""
        return cls(**{**values, "stop": tuple(values.get("stop", ()))})


@dataclass(frozen=True)
class Completion:
    """One sampled completion, as the model wrote it (special tokens removed).

    finished:       False if the token limit cut it.
    tokens:         number of generated tokens, the end token included.
    thought_closed: True if its thought was closed by force, after `think_tokens`.
    entropy:        mean over its tokens of the entropy of the model's own distribution (temperature 1), in nats; None if
                    the backend does not tell it.
    """

    prompt_id: str
    task: str
    sample: int
    text: str
    finished: bool
    tokens: int
    thought_closed: bool = False
    entropy: float | None = field(default=None, compare=False)  # its last digits depend on the batch


class Verification(NamedTuple):
    """What a verifier returns for one answer.

    correct: True, False, or None if the verifier could not decide; `reason` then says why.
    answer:  the canonical answer, the same for answers that are equal; None if none was parsed or the task has no
             canonical form.
    """

    correct: bool | None
    answer: str | None
    reason: str | None = None


@dataclass(frozen=True)
class PromptSamples:
    """The K completions of one prompt after verification: the input of every metric.

    outputs: K answer texts, reasoning stripped.
    usable:  K flags. False: empty, a thought that never closed, or cut by the token limit where the prompt has a verifier.
             Metrics leave these out.
    correct: K flags, or None if the prompt has no verifier. An unusable output is never correct.
    answers: K canonical answers (None: nothing could be parsed), or None if the task has no canonical form.
    """

    id: str
    task: str
    outputs: list[str]
    usable: list[bool]
    correct: list[bool] | None = None
    answers: list[str | None] | None = None


@dataclass
class PromptScores:
    """Per-prompt values of one look: `values[key]` has one number per prompt, NaN if it could not be computed.

    Keys are `group/metric`: `diversity/sbert`, `correct_diversity/vendi`, `quality/accuracy`, `pairs/cc_distance` ...
    """

    ids: list[str]
    tasks: list[str]
    values: dict[str, Any] = field(default_factory=dict)


# The parts of a change in diversity (`divwatch.decompose`).
PARTS = ("quality_control", "genuine_narrowing", "cross_narrowing", "error_narrowing")


@dataclass(frozen=True)
class Change:
    """How a metric has changed since the baseline look, over a task or over the whole panel (task "all").

    change:          (mean now - mean at the baseline) / mean at the baseline; NaN if it cannot be computed.
    change_interval: its 95 % interval; NaN for fewer than 5 prompts.
    alarm_step:      step of the look at which the fall was flagged; None: not flagged.
    onset_step:      the last step still at the baseline level; None before the alarm.
    onset_interval:  its 90 % interval.
    confirmed:       the fall was flagged and its interval excludes `min_drop`.
    """

    task: str
    key: str
    change: float
    change_interval: tuple[float, float]
    alarm_step: int | None = None
    onset_step: int | None = None
    onset_interval: tuple[int, int] | None = None
    confirmed: bool = False


@dataclass(frozen=True)
class RunAssessment:
    """What the looks of a run show up to one of them, in numbers.

    primary:       the metric that carries the alarm; None if no metric that can was measured.
    baseline_step: step of the first comparable look; None if there is none.
    verdict:       `kind` and `sentence`.
    confirmed:     whether the loss that the verdict rests on is confirmed.
    changes:       every series that is watched, the whole panel first.
    splits:        task -> one of PARTS -> that part of the change.
    """

    primary: str | None
    baseline_step: int | None
    verdict: dict[str, str]
    changes: tuple[Change, ...] = ()
    splits: dict[str, dict[str, float]] = field(default_factory=dict)
    confirmed: bool = False

    @property
    def alarms(self) -> list[Change]:
        """The series that were flagged: the whole panel first, then by step."""
        flagged = [change for change in self.changes if change.alarm_step is not None]
        return sorted(flagged, key=lambda change: (change.task != "all", change.alarm_step))

    def change_of(self, task: str, key: str) -> Change | None:
        return next((change for change in self.changes if (change.task, change.key) == (task, key)), None)


@dataclass(frozen=True)
class ScoredLook:
    """What scoring finds out about one look, in numbers; `divwatch.outputs` puts them into words.

    status:  "ok", or "not_comparable": too few outputs were usable.
    time:    when it was scored, in seconds since 1970. sample_seconds, score_seconds: what it took.
    *_share: shares of all completions, in [0, 1]. closed_share: thoughts closed by force.
    unreadable: prompts whose outputs the encoder cannot read (`metrics.unknown`).
    unverified: reason -> number of answers that no verifier could decide.
    tasks:   task -> key -> mean, lo, hi and n, where task "all" is the mean over tasks.
    """

    step: int
    status: str
    time: float
    sample_seconds: float
    score_seconds: float
    usable_share: float
    finished_share: float
    closed_share: float
    unreadable: int
    unverified: dict[str, int]
    tasks: dict[str, dict[str, dict[str, float]]]
    assessment: RunAssessment

    def to_json(self) -> dict[str, Any]:
        """Plain values for another process; NaN stays NaN."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ScoredLook:
        """From `to_json`, through JSON or not."""
        assessment = dict(values["assessment"])
        assessment["changes"] = tuple(_change(change) for change in assessment["changes"])
        return cls(**{**values, "assessment": RunAssessment(**assessment)})


def _change(values: dict[str, Any]) -> Change:
    intervals = {name: values[name] and tuple(values[name]) for name in ("change_interval", "onset_interval")}
    return Change(**{**values, **intervals})
