"""Decoding through the model's own `generate`: for a model or cache whose rows cannot be selected safely.

`generate` prepares inputs and cache as the model wants them, virtual tokens of prompt learning included. Each row reads
its prompt itself and stays in the batch to the end: slower, and right for every model that `generate` is right for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from divwatch.sampling.choose import Choices
from divwatch.sampling.entropy import DecodedTokens


def decode_as_generate(
    model: Any, ids: Any, mask: Any, choices: Choices, any_rank: Callable[[bool], bool]
) -> list[DecodedTokens]:
    """New token ids of each row of `ids` [n, L] with attention mask [n, L], left-padded. `any_rank` as for `decode`."""
    import torch
    from transformers import (
        GenerationConfig,
        LogitsProcessor,
        LogitsProcessorList,
        StoppingCriteria,
        StoppingCriteriaList,
    )

    class Choose(LogitsProcessor):
        """Leaves one token per row: the chosen one."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            only = torch.full_like(scores, -torch.inf)
            if choices.steps == choices.how.limit:  # on a GPU `generate` may run one step ahead of its stopping check
                only[:, 0] = 0
                return only
            return only.scatter_(1, choices.choose(scores)[:, None], 0)

    class AllDone(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            done = choices.steps == choices.how.limit or not any_rank(choices.going_on)
            return torch.full((len(input_ids),), done, device=input_ids.device)

    model.generate(
        input_ids=ids,
        attention_mask=mask,
        generation_config=GenerationConfig(
            do_sample=False, max_new_tokens=choices.how.limit, pad_token_id=max(choices.how.stops[0], 0), use_cache=True
        ),
        logits_processor=LogitsProcessorList([Choose()]),
        stopping_criteria=StoppingCriteriaList([AllDone()]),
    )
    return choices.ids()
