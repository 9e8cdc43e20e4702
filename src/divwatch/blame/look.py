"""A look whose tokens are kept: what the gradient of diversity is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divwatch.blame.log_probs import Sampled
from divwatch.blame.weights import PromptDiversity, look_weights, sample_influence
from divwatch.config import WatchConfig
from divwatch.metrics.scoring import TextEncoder
from divwatch.records import Completion, Prompt
from divwatch.sampling.isolation import untouched
from divwatch.verify import verify_completions

if TYPE_CHECKING:
    from divwatch.sampling.request import Request

Floats = NDArray[np.float64]
ERROR_PROMPTS = 4  # of a task: their completions give the error over completions


class BlameLook(NamedTuple):
    """The completions of one look and their weights.

    prompts: diversity of each prompt and its samples' weights in the gradient.
    accuracy: [prompts], share of correct outputs, NaN for a prompt without a verifier.
    sampled: [prompts x K], grouped by prompt.
    """

    tasks: list[str]
    prompts: list[PromptDiversity]
    accuracy: Floats
    sampled: list[Sampled]

    @property
    def values(self) -> Floats:
        """[prompts], NaN for a prompt without a value."""
        return np.array([p.value for p in self.prompts])

    @property
    def weights(self) -> Floats:
        """[prompts, K]."""
        return np.stack([p.weights for p in self.prompts])


def look_at(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: WatchConfig,
    encoder: TextEncoder,
    seed: int,
    correct: bool = False,
) -> BlameLook:
    """Samples `config.samples` completions of each prompt from a whole model and weighs them. Leaves the model untouched.

    seed: of the random streams: with the same one, equal models sample equal tokens.
    """
    import torch

    from divwatch.sampling.in_process import generate
    from divwatch.sampling.plan import Row
    from divwatch.sampling.request import make_request

    request = make_request(model, tokenizer, prompts, config, seed, model.device)
    rows = [Row(i, k) for i in range(len(prompts)) for k in range(config.samples)]
    with untouched(model, model.device), torch.no_grad():
        ids = generate(model, request, rows, lambda done: None)
    completions = [request.completion(row.prompt, row.sample, tokens) for row, tokens in zip(rows, ids, strict=True)]
    sampled = [
        as_sampled(request, row.prompt, tokens, completion)
        for row, tokens, completion in zip(rows, ids, completions, strict=True)
    ]
    samples, _ = verify_completions(prompts, completions, unsafe_code=config.unsafe_code)
    accuracy = np.array([np.nan if s.correct is None else np.mean(s.correct) for s in samples])
    return BlameLook([p.task for p in prompts], look_weights(samples, encoder, correct), accuracy, sampled)


def as_sampled(request: Request, prompt: int, tokens: Sequence[int], completion: Completion) -> Sampled:
    """The tokens of a completion of a prompt of `request`, up to its end."""
    new, at = list(tokens[: completion.tokens]), request.how.close_at
    forced = (
        (at, min(at + len(request.how.close_with), len(new)))
        if completion.thought_closed and at is not None
        else (0, 0)
    )
    return Sampled(list(request.encoded[prompt]), new, forced)


def error_scale(look: BlameLook) -> Floats:
    """[prompts]: above 0 for those whose completions give the error, sqrt(prompts of the task / those read of it)."""
    scale = np.zeros(len(look.prompts))
    for task in dict.fromkeys(look.tasks):
        mine = [i for i, name in enumerate(look.tasks) if name == task and np.isfinite(look.prompts[i].value)]
        read = mine[:: -(-len(mine) // ERROR_PROMPTS)] if mine else []
        scale[read] = np.sqrt(len(mine) / max(1, len(read)))
    return scale


def look_influence(look: BlameLook, scale: Floats, slopes: Floats) -> Floats:
    """[prompts, K, directions]: `sample_influence` on a step against each direction, 0 on prompts of scale 0.

    scale: of `error_scale`; the prompts that are read stand for all of their task. slopes: [completions of the prompts that
    are read, directions], of log p of each completion along each direction.
    """
    k = look.weights.shape[1]
    read = np.flatnonzero(scale)
    influence = np.zeros((len(look.prompts), k, slopes.shape[-1]))
    for i, of_prompt in zip(read, slopes.reshape(len(read), k, -1), strict=True):
        influence[i] = scale[i] * sample_influence(look.prompts[i], -of_prompt)
    return influence
