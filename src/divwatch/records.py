"""What flows from one step of a look to the next: prompts, completions, and completions that were judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """One held-out prompt of the panel.

    `messages` is a conversation that ends with a user turn, or None for a plain prompt, whose text is `text`.
    `verifier` names a function in `divwatch.verify`; without one the prompt's outputs are not judged.
    `question` is what the prompt is about without a task's wording around it (None: the text itself): it is what
    must not be in the training data. `stop` ends a completion in plain form (a chat ends its own turns);
    `max_new_tokens` is the task's own limit, None where it has none. `thinking` is as-trained, or off: the thought is
    prefilled empty.
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


@dataclass(frozen=True)
class Completion:
    """One sampled completion, as the model wrote it (special tokens removed).

    `finished` is False where the token limit cut it; `tokens` counts the generated tokens, the end token included.
    `thought_closed`: its thought was closed by force, after `think_tokens`.
    """

    prompt_id: str
    task: str
    sample: int
    text: str
    finished: bool
    tokens: int
    thought_closed: bool = False


@dataclass(frozen=True)
class PromptSamples:
    """The K completions of one prompt after verification: what every metric is computed from.

    outputs: K answer texts, reasoning stripped.
    usable:  K flags. False: empty, cut by the token limit, or a thought that never closed. Counted, then left out.
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
    """Per-prompt values of one look: `values[key]` has one number a prompt, NaN where it could not be computed.

    Keys are `group/metric`: `diversity/sbert`, `correct_diversity/vendi`, `quality/accuracy`, `pairs/cc_distance` ...
    """

    ids: list[str]
    tasks: list[str]
    values: dict[str, Any] = field(default_factory=dict)
