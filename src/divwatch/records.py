"""The types that flow from one step of a look to the next: prompts, completions, verified completions and scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Prompt:
    """One held-out prompt of the panel.

    messages:       a conversation that ends with a user turn; None for a plain prompt, whose text is `text`.
    reference:      what the verifier compares an answer with.
    verifier:       name of a verifier in `divwatch.verify`; None: outputs of this prompt are not verified.
    question:       the prompt without its task's wording; None: the text itself. It must not be in the training data.
    stop:           texts that end a completion in plain form (a chat ends its own turns).
    max_new_tokens: the task's own limit; None where it has none.
    thinking:       "as-trained", or "off": the thought is prefilled empty.
    variant_of:     id of the prompt that this one repeats with thinking as trained (`watch_thinking: both`); None for
                    the prompt itself.
    """

    id: str
    task: str
    text: str
    messages: list[dict[str, str]] | None = None
    reference: Any = None
    verifier: str | None = None
    question: str | None = None
    stop: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    thinking: str = "as-trained"
    variant_of: str | None = None


@dataclass(frozen=True)
class Completion:
    """One sampled completion, as the model wrote it (special tokens removed).

    finished:       False where the token limit cut it.
    tokens:         number of generated tokens, the end token included.
    thought_closed: True where its thought was closed by force, after `think_tokens`.
    """

    prompt_id: str
    task: str
    sample: int
    text: str
    finished: bool
    tokens: int
    thought_closed: bool = False


class Verification(NamedTuple):
    """What a verifier returns for one answer.

    correct: True, False, or None where the verifier could not decide; `reason` then says why.
    answer:  the canonical answer; None if none was parsed or the task has no canonical form.
    """

    correct: bool | None
    answer: str | None
    reason: str | None = None


@dataclass(frozen=True)
class PromptSamples:
    """The K completions of one prompt after verification: the input of every metric.

    outputs: K answer texts, reasoning stripped.
    usable:  K flags. False: empty, cut by the token limit, or a thought that never closed. Metrics leave these out.
    correct: K flags, or None where the prompt has no verifier. An unusable output is never correct.
    answers: K canonical answers (None: nothing could be parsed), or None where the task has no canonical form.
    """

    id: str
    task: str
    outputs: list[str]
    usable: list[bool]
    correct: list[bool] | None = None
    answers: list[str | None] | None = None


@dataclass
class PromptScores:
    """Per-prompt values of one look: `values[key]` has one number per prompt, NaN where it could not be computed.

    Keys are `group/metric`: `diversity/sbert`, `correct_diversity/vendi`, `quality/accuracy`, `pairs/cc_distance` ...
    """

    ids: list[str]
    tasks: list[str]
    values: dict[str, Any] = field(default_factory=dict)
