"""How many new tokens an answer gets: a window where no answer is right or wrong, room for its end where one is.

A look need not sample what nothing reads. The sentence encoder reads the first 384 tokens, so an answer without a verifier
is sampled that far and measured as it stands, cut or not. A verifier needs the final answer, so its task states a limit.
docs/metrics.md compares the window with whole answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from divwatch.records import Prompt
from divwatch.tasks import TASKS

WINDOW = 384  # tokens of an answer without a verifier: what the default encoder reads
ANSWER = 256  # tokens of an answer with a verifier, where its prompt states no limit


def token_limit(prompt: Prompt, most: int | None, room: int | None = None) -> int:
    """New tokens after which an answer to `prompt` is cut; `most`: `watch_max_new_tokens`.

    A limit that the prompt states holds, at most `most`. Where it states none, `most` is the limit. room: tokens that the
    model's context leaves after the prompt. Where nobody stated a limit the window gives way to it, down to ANSWER.

    >>> story, sums = Prompt("1", "story", "Tell a tale."), Prompt("2", "sums", "3 + 4?", verifier="gsm8k")
    >>> [token_limit(p, most) for p in (story, sums) for most in (None, 64, 2048)]
    [384, 64, 2048, 256, 64, 2048]
    >>> [token_limit(replace(sums, max_new_tokens=512), most) for most in (None, 64, 2048)]
    [512, 64, 512]
    >>> [token_limit(story, None, room) for room in (1000, 300, 50)]
    [384, 300, 256]
    """
    if prompt.max_new_tokens is None:
        window = WINDOW if room is None else min(WINDOW, max(room, ANSWER))
        return most or (ANSWER if prompt.needs_end else window)
    return min(prompt.max_new_tokens, most or prompt.max_new_tokens)


def of_the_paper(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts with the limits of the paper's protocol, those of unknown tasks as they are."""
    return [replace(p, max_new_tokens=TASKS[p.task].paper_max_new_tokens) if p.task in TASKS else p for p in prompts]
