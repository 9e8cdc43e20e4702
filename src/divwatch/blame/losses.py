"""Losses of single training rows, as TRL's trainer computes them: its own tokenisation and collation, its own loss.

A batch of SFTTrainer has the loss (sum of its rows' token losses) / (number of their tokens). A row's part in it is its
summed token loss over the mean number of tokens of a row, and this is a row's loss here: long rows weigh more, as in
training. DPOTrainer averages over pairs: a pair's loss is its own. Common losses are computed in batches, any other by the
trainer itself, pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divwatch.blame.derivative import gradient_of_sum
from divwatch.errors import DivwatchError

Floats = NDArray[np.float64]
ROWS_AT_ONCE = 32
BATCHED = ("sigmoid", "sigmoid_norm", "ipo", "hinge")


class RowLosses:
    """The losses of the rows of `trainer.train_dataset`, or of its `rows`, under the trainer's model, or `model`, in eval mode.

    mean_tokens: mean number of trained tokens of a row of the mix, which the caller sets (SFT). 1: losses are plain sums.
    """

    def __init__(self, trainer: Any, model: Any = None, rows: Any = None) -> None:
        self.trainer, self.model = trainer, trainer.model if model is None else model
        self.rows = trainer.train_dataset if rows is None else rows
        self._collator = trainer.data_collator
        if getattr(self._collator, "padding_free", False):  # one sequence of all rows, where a row cannot be told apart
            self._collator = replace(self._collator, padding_free=False)
        self.device = trainer.args.device
        self.mean_tokens = 1.0
        self._reference: dict[int, Any] = {}
        self._losses: Callable[[Sequence[int]], Any] = self._pairs if learns_pairs(trainer) else self._supervised
        self.rows_at_once = 1 if self._losses == self._pairs and not in_batches(trainer) else ROWS_AT_ONCE

    def values(self, rows: Sequence[int]) -> Floats:
        """The loss of each row, in nats, [n]."""
        import torch

        values = np.zeros(len(rows))
        with torch.no_grad():
            for places in self._batches(rows):
                values[places] = self._losses([rows[i] for i in places]).double().cpu().numpy()
        return values

    def gradient(self, rows: Sequence[int], parameters: Sequence[Any]) -> list[Any]:
        """The gradient of the mean loss of `rows`: a tensor for each parameter. `.grad` fields are left alone."""
        return gradient_of_sum(self.sums(rows, 1 / len(rows)), parameters)

    def sums(self, rows: Sequence[int], weight: float) -> Iterator[Any]:
        """weight x the sum of the losses of `rows` in parts, a scalar of each batch, ready for a backward pass."""
        for places in self._batches(rows):
            yield self._losses([rows[i] for i in places]).sum() * weight

    def read_reference(self, rows: Sequence[int]) -> None:
        """Has the reference model read `rows` (DPO). Under sharded weights that is a collective in every batch: all ranks
        must call it with equally many rows."""
        for places in self._batches(rows):
            mine = [rows[i] for i in places]
            self._reference_of(mine, self._collate(mine))

    def trained_tokens(self, row: int) -> int:
        """Number of tokens of a row that carry loss (SFT)."""
        batch = self._collate([row])
        return int((batch["labels"][:, 1:] != -100).sum())

    def _batches(self, rows: Sequence[int]) -> list[list[int]]:
        """Places in `rows`, in batches of like length."""
        lengths = [sum(len(v) for k, v in self.rows[i].items() if k.endswith("_ids")) for i in rows]
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        return [order[i : i + self.rows_at_once] for i in range(0, len(order), self.rows_at_once)]

    def _collate(self, rows: Sequence[int]) -> dict[str, Any]:
        batch = self._collator([self.rows[i] for i in rows])
        return {k: v.to(self.device) if hasattr(v, "to") else v for k, v in batch.items()}

    def _supervised(self, rows: Sequence[int]) -> Any:
        batch = self._collate(rows)
        labels = batch.pop("labels")[:, 1:]
        of_tokens = _of_labels(self.model(**batch, use_cache=False).logits[:, :-1], labels)
        if getattr(self.trainer.args, "loss_type", "nll") == "dft":  # as SFTTrainer.compute_loss
            of_tokens = of_tokens * of_tokens.exp().detach()
        return -of_tokens.sum(1) / self.mean_tokens

    def _pairs(self, rows: Sequence[int]) -> Any:
        batch = self._collate(rows)
        if self.rows_at_once == 1:
            return self.trainer.compute_loss(self.model, batch)[None]
        scores = self._of_answers(self.model, batch) - self._reference_of(rows, batch)
        chosen, rejected = scores.chunk(2)
        return _pair_losses(self.trainer, chosen, rejected, *batch["completion_mask"].sum(1).chunk(2))

    def _of_answers(self, model: Any, batch: dict[str, Any]) -> Any:
        """log p [2n] of the chosen, then the rejected answers."""
        ids, mask = batch["input_ids"], batch["completion_mask"]
        logits = model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits[:, :-1]
        return _of_labels(logits, ids.masked_fill(mask == 0, -100)[:, 1:]).sum(1)

    def _reference_of(self, rows: Sequence[int], batch: dict[str, Any]) -> Any:
        """The same under the reference model, kept for later: a nudge does not change it."""
        import contextlib

        import torch

        if any(row not in self._reference for row in rows):
            reference = self.trainer.ref_model
            without = self.model.disable_adapter() if reference is None else contextlib.nullcontext()
            with torch.no_grad(), without:
                values = self._of_answers(self.model if reference is None else reference, batch)
            for row, chosen, rejected in zip(rows, *values.chunk(2), strict=True):
                self._reference[row] = (chosen, rejected)
        return torch.stack([self._reference[row][side] for side in (0, 1) for row in rows])


def _of_labels(logits: Any, labels: Any) -> Any:
    """log p of each label under softmax(`logits`), 0 where the label is -100."""
    chosen = logits.float().gather(-1, labels.clamp(min=0)[..., None])[..., 0] - logits.float().logsumexp(-1)
    return chosen.masked_fill(labels == -100, 0.0)


def learns_pairs(trainer: Any) -> bool:
    """Whether this is TRL's DPOTrainer, or one made from it."""
    return any(kind.__name__ == "DPOTrainer" for kind in type(trainer).__mro__)


def in_batches(trainer: Any) -> bool:
    """Whether `_pair_losses` knows all of a DPOTrainer's loss."""
    return (
        all(kind in BATCHED for kind in trainer.loss_types)
        and trainer.f_divergence_type == "reverse_kl"
        and trainer.ld_alpha is None
        and not trainer.use_weighting
        and not trainer.precompute_ref_logps
        and not trainer.aux_loss_enabled
    )


def _pair_losses(trainer: Any, chosen: Any, rejected: Any, chosen_tokens: Any, rejected_tokens: Any) -> Any:
    """The losses [n] of pairs with these log-ratios, as in DPOTrainer._compute_loss."""
    import torch.nn.functional as F

    per_token = chosen / chosen_tokens.clamp(min=1) - rejected / rejected_tokens.clamp(min=1)
    total = 0.0
    for kind, weight in zip(trainer.loss_types, trainer.loss_weights, strict=True):
        if kind == "sigmoid":
            loss = -F.logsigmoid(trainer.beta * (chosen - rejected))
        elif kind == "hinge":
            loss = (1 - trainer.beta * (chosen - rejected)).relu()
        elif kind == "ipo":
            loss = (per_token - 1 / (2 * trainer.beta)) ** 2
        elif kind == "sigmoid_norm":
            loss = -F.logsigmoid(trainer.beta * per_token)
        else:
            raise DivwatchError(f"loss_type {kind} is not computed in batches")
        total = total + weight * loss
    return total
