"""Blame at a look of a running training: the method of `offline`, on a copy of the model, shared out over the ranks.

Each rank reads the completions that it sampled and its part of the rows; sums of gradients and values of all ranks meet
after each pass. Nothing of the training is written: `shadow` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divwatch.blame.data import TrainingData
from divwatch.blame.derivative import agreeing_size, difference, norm
from divwatch.blame.log_probs import Sampled, all_log_probs, weighted_sums
from divwatch.blame.look import BlameLook, as_sampled, error_scale, look_influence
from divwatch.blame.losses import RowLosses, learns_pairs
from divwatch.blame.offline import PROBES, Measured, pad_token, set_mean_tokens
from divwatch.blame.shadow import Shadow, holds_second_moments, why_not_copied
from divwatch.blame.trace import Checkpoint
from divwatch.blame.weights import look_weights, prompt_shares
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError, one_line, reason_of
from divwatch.metrics.scoring import TextEncoder
from divwatch.records import Completion, Prompt
from divwatch.sampling.isolation import untouched
from divwatch.sampling.memory import release
from divwatch.sampling.plan import Row
from divwatch.sampling.ranks import LookFailed, Ranks, raise_if_failed
from divwatch.sampling.request import Request
from divwatch.sampling.sampler import Embeddings, LookEnds
from divwatch.sampling.tokens import tokenizer_of
from divwatch.sampling.weights import Source
from divwatch.verify.completions import strip_reasoning

Floats = NDArray[np.float64]
Compute = Callable[[Sequence[int]], dict[int, float]]  # places -> the values of those that this rank owns


class KeptLook:
    """What blame needs of a look. places, sampled: prompt and sample of each completion of this rank, and its tokens.

    completions, embeddings: of all ranks, on rank 0, as `Sampler.sample` returns them.
    """

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        self.sampled: list[Sampled] = []
        self.completions: list[Completion] = []
        self.embeddings: Embeddings | None = None

    def keep(self, request: Request, rows: Sequence[Row], ids: Sequence[Sequence[int]]) -> None:
        """What `Sampler.sample` calls on each rank."""
        for row, new in zip(rows, ids, strict=True):
            completion = request.completion(row.prompt, row.sample, new)
            self.places.append((row.prompt, row.sample))
            self.sampled.append(as_sampled(request, row.prompt, new, completion))


def blame_look(
    trainer: Any,
    data: TrainingData,
    prompts: Sequence[Prompt],
    kept: KeptLook,
    config: WatchConfig,
    encoder: Callable[[], TextEncoder],
    ranks: Ranks,
) -> Measured | None:
    """Blame at a look that was just sampled; on other ranks than 0, None. A collective.

    data: of `rows_of_training`. encoder: returns it, on rank 0.
    Raises LookFailed on every rank where one fails, and LookEnds on a rank that fails inside a collective.
    """
    source = Source(trainer.model_wrapped, trainer.accelerator)
    with untouched(source.unwrapped, source.device):
        look = ranks.from_main(_attempt(lambda: _weigh(prompts, kept.completions, encoder()) if ranks.main else None))
        raise_if_failed([look[1]])
        if not holds_second_moments(trainer.optimizer):
            raise LookFailed("the optimizer holds no second moments of the gradient: train with AdamW")
        ranks.agree(why_not_copied(source, ranks))
        try:
            return _Pass(trainer, source, data, look[0], kept, config, ranks).measured()
        except LookFailed:
            raise
        except Exception as error:
            if ranks.world == 1:
                raise LookFailed(reason_of(error)) from error
            reason = f"rank {ranks.rank} failed where the others wait for it: {one_line(error)}"
            raise LookEnds(reason) from error
        finally:
            release(source.device)


def _weigh(prompts: Sequence[Prompt], completions: Sequence[Completion], encoder: TextEncoder) -> BlameLook:
    diversity = look_weights(strip_reasoning(prompts, completions), encoder)
    look = BlameLook([p.task for p in prompts], diversity, np.full(len(prompts), np.nan), [])
    if not prompt_shares(look.tasks, look.values):
        raise DivwatchError("no prompt has three usable outputs")
    return look


def _attempt(work: Callable[[], Any]) -> tuple[Any, str | None]:
    """(result, None), or (None, the reason why there is none)."""
    try:
        return work(), None
    except Exception as error:
        return None, reason_of(error)


class _Pass:
    """One computation of blame, on all ranks in step."""

    def __init__(
        self,
        trainer: Any,
        source: Source,
        data: TrainingData,
        look: BlameLook,
        kept: KeptLook,
        config: WatchConfig,
        ranks: Ranks,
    ) -> None:
        self.data, self.look, self.kept, self.ranks = data, look, kept, ranks
        self.shadow = Shadow(source, trainer.optimizer, trainer.state.global_step, ranks)
        self.losses = RowLosses(trainer, self.shadow.model, data.rows)
        self.how = (config.temperature, config.top_p, pad_token(tokenizer_of(trainer)), source.device)
        own = Checkpoint("", 0, trainer.state.log_history, None).clipping(trainer.args.max_grad_norm or 0.0)
        self.scale = ranks.from_main(own)

    def measured(self) -> Measured | None:
        rows = range(len(self.data.labels))
        self._read_references()
        self._alone(lambda: set_mean_tokens(self.losses, self.data))
        by_task: dict[str, Floats] = {}
        for task, share in prompt_shares(self.look.tasks, self.look.values).items():
            if task != "all":
                direction = self._direction(partial(self._of_look, share))
                slopes, _ = self._slopes(direction, self._row_losses, rows)
                by_task[task] = -slopes
        influence = self._influence()
        return Measured(self.look, by_task, influence) if self.ranks.main else None

    def _influence(self) -> Floats:
        scale = error_scale(self.look)
        count = self.look.weights.shape[1]
        order = {(int(i), k): at * count + k for at, i in enumerate(np.flatnonzero(scale)) for k in range(count)}
        mine = {order[place]: s for place, s in zip(self.kept.places, self.kept.sampled, strict=True) if place in order}
        length, slopes = None, []
        for source in self.data.sources:
            of_source = [i for i, label in enumerate(self.data.labels) if label == source]
            direction = self._direction(partial(self._of_rows, of_source))
            column, length = self._slopes(direction, partial(self._log_probs, mine), range(len(order)), length)
            slopes.append(column)
        return look_influence(self.look, scale, np.stack(slopes, axis=-1))

    # gradients: each rank's part of a sum

    def _of_look(self, share: Floats) -> Iterator[Any]:
        weights = [float(share[i] * self.look.weights[i, k]) for i, k in self.kept.places]
        return weighted_sums(self.shadow.model, self.kept.sampled, weights, *self.how)

    def _of_rows(self, rows: Sequence[int]) -> Iterator[Any]:
        return self.losses.sums(self._own(rows), 1 / len(rows))

    def _direction(self, sums: Callable[[], Iterator[Any]]) -> list[Any]:
        def backward() -> None:
            with self.shadow.computing():
                for value in sums():
                    value.backward()

        self._alone(backward)
        return self.shadow.direction(self.scale)

    # values: each rank computes some of them

    def _slopes(
        self, direction: Sequence[Any], compute: Compute, places: Any, length: Any = None
    ) -> tuple[Floats, Any]:
        """[places]: derivatives along `direction` of the values that `compute` returns on the ranks that own them.

        length: of a nudge; None: the longest one at which half of it gives the same. It is returned too.
        """
        long = self.ranks.from_main(norm(direction))
        if not long:
            return np.zeros(len(places)), length
        probes = list(places[:: max(1, len(places) // PROBES)])
        with self.shadow.along(direction) as move:
            if length is None:
                largest = self.ranks.from_main(self.shadow.largest_size(direction))
                length = long * agreeing_size(lambda: self._values(compute, probes), move, largest)
            return difference(lambda: self._values(compute, list(places)), move, length / long), length

    def _values(self, compute: Compute, places: list[int]) -> Floats:
        def mine() -> dict[int, float]:
            with self.shadow.computing():
                return compute(places)

        values: dict[int, float] = {}
        for part in self._alone(mine):
            values |= part
        return np.array([values[place] for place in places])

    def _row_losses(self, places: Sequence[int]) -> dict[int, float]:
        mine = self._own(places)
        return dict(zip(mine, self.losses.values(mine).tolist(), strict=True))

    def _log_probs(self, sampled: dict[int, Sampled], places: Sequence[int]) -> dict[int, float]:
        """Without the nucleus: enough for an error."""
        temperature, _, pad, device = self.how
        mine = [place for place in places if place in sampled]
        values = all_log_probs(self.shadow.model, [sampled[i] for i in mine], temperature, 1.0, pad, device)
        return dict(zip(mine, values.tolist(), strict=True))

    # ranks

    def _alone(self, work: Callable[[], Any]) -> list[Any]:
        """What each rank's own `work` returns, by rank. Raises LookFailed on every rank where one fails."""
        results = self.ranks.share(_attempt(work))
        raise_if_failed([reason for _, reason in results])
        return [result for result, _ in results]

    def _read_references(self) -> None:
        """DPO: the reference model reads every rank's rows. Its weights may be sharded: all ranks read equally many."""
        if learns_pairs(self.losses.trainer):
            rows = self._own(range(len(self.data.labels)))
            most = -(-len(self.data.labels) // self.ranks.world)
            with self.shadow.computing():
                self.losses.read_reference([*rows, *[0] * (most - len(rows))])

    def _own(self, rows: Sequence[int]) -> list[int]:
        return [i for i in rows if i % self.ranks.world == self.ranks.rank]
