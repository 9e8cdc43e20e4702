"""Entropy of the distributions that a model's tokens are drawn from: a decode step knows them, and looks record their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from divwatch.sampling.nucleus import rows_at_once

# Log-probabilities below the largest by more than this count as this: e**-80 of a token adds nothing, and 0 x inf is NaN.
LOWEST = -80.0


class DecodedTokens(list[int]):
    """New token ids of a completion. entropy: the mean over them of `token_entropy`, in nats."""

    def __init__(self, ids: Sequence[int], entropy: float) -> None:
        super().__init__(ids)
        self.entropy = entropy

    def continued_by(self, more: DecodedTokens) -> DecodedTokens:
        """The completion continued: tokens of both, and the mean over both."""
        total = len(self) * self.entropy + len(more) * more.entropy
        return DecodedTokens([*self, *more], total / max(1, len(self) + len(more)))


def decoded(written: Any, entropies: Any, lengths: Any) -> list[DecodedTokens]:
    """Completions of `lengths` [n] tokens (at least one) from `written` and `entropies` [n, limit]."""
    rows = zip(written.tolist(), entropies.tolist(), lengths.tolist(), strict=True)
    return [DecodedTokens(ids[:n], sum(values[:n]) / n) for ids, values, n in rows]


def token_entropy(logits: Any) -> Any:
    """H = -sum p log p in nats, [n], of the model's own distribution p = softmax(`logits` [n, vocabulary]), at temperature 1.

    Waits for nothing, so that a CUDA graph can hold it.

    >>> import torch
    >>> token_entropy(torch.tensor([[1.0, 1.0, -torch.inf], [0.0, 99.0, 0.0]])).exp().round(decimals=3).tolist()
    [2.0, 1.0]
    """
    import torch

    parts = []
    for part in logits.split(rows_at_once(logits)):
        below = part.float()
        below = (below - below.amax(-1, keepdim=True)).clamp_(min=LOWEST)
        weights = below.exp()
        total = weights.sum(-1)
        parts.append(total.log() - (weights * below).sum(-1) / total)
    return torch.cat(parts)
