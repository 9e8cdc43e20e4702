"""The new tokens of a batch, chosen step by step from the model's logits: drawn, or forced when a thought is closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.sampling.decoding import Decoding
from divwatch.sampling.entropy import DecodedTokens, decoded, token_entropy
from divwatch.sampling.nucleus import draw


class Choices:
    """The completions of a batch so far.

    rows:    [n] which completions the batch still holds.
    running: [n] whether each of them is still decoding.
    """

    def __init__(
        self, seeds: Any, limits: Sequence[int], how: Decoding, still_open: Callable[[int, list[int]], bool]
    ) -> None:
        """seeds: [N, how.limit, 2], one for each token; the other arguments as `decode` takes them."""
        import torch

        self.how, self.still_open, self.seeds, self.steps = how, still_open, seeds, 0
        count, device = len(limits), seeds.device
        self.rows = torch.arange(count, device=device)
        self.running = torch.ones(count, dtype=torch.bool, device=device)
        self._written = torch.zeros((count, how.limit), dtype=torch.long, device=device)
        self._entropies = torch.zeros((count, how.limit), device=device)
        self._length = torch.tensor(limits, device=device)
        self._stops = torch.tensor(how.stops, device=device)
        self._closing: Any = None

    def choose(self, logits: Any) -> Any:
        """The next token of each row, [n], from `logits` [n, vocabulary]."""
        import torch

        t, how = self.steps, self.how
        tokens = draw(logits, self.seeds[self.rows, t], how.temperature, how.top_p)
        if how.close_at is not None and how.close_at <= t < how.close_at + len(how.close_with):
            if self._closing is None:
                self._closing = self._unclosed(t)
            tokens = torch.where(self._closing[self.rows], how.close_with[t - how.close_at], tokens)
        self._written[self.rows, t] = tokens
        self._entropies[self.rows, t] = token_entropy(logits)
        stopped = self.running & torch.isin(tokens, self._stops)
        self._length[self.rows[stopped]] = t + 1
        self.running = self.running & ~stopped & (self._length[self.rows] > t + 1)
        self.steps = t + 1
        return tokens

    @property
    def left(self) -> int:
        """Rows still decoding; none once the limit is reached."""
        return int(self.running.sum()) if self.steps < self.how.limit else 0

    @property
    def going_on(self) -> bool:
        """Whether this batch, for its own sake, is decoded further."""
        return self.how.goes_on(self.left, self.steps)

    def keep(self, places: Any) -> None:
        """Drops all rows of the batch but those at `places`."""
        self.rows, self.running = self.rows[places], self.running[places]

    def ids(self) -> list[DecodedTokens]:
        """New token ids of each completion, its stop token included, and their mean entropy."""
        return decoded(self._written, self._entropies, self._length.clamp(max=self.steps))

    def _unclosed(self, t: int) -> Any:
        """Flags of all completions: still writing, and inside a thought."""
        import torch

        flags = torch.zeros(len(self._written), dtype=torch.bool)
        for row in self.rows[self.running].tolist():
            flags[row] = self.still_open(row, self._written[row, :t].tolist())
        return flags.to(self._written.device)


def last_logits(output: Any) -> Any:
    """The logits of the last token, [n, vocabulary], of a model's output."""
    import torch

    logits = getattr(output, "logits", None)
    if type(logits).__name__ == "EmptyLogits" or callable(logits):
        raise DivwatchError(
            "Unsloth returns no logits: set os.environ['UNSLOTH_RETURN_LOGITS'] = '1' before the model is loaded"
        )
    if not isinstance(logits, torch.Tensor):
        raise DivwatchError(f"the model's output ({type(output).__name__}) has no logits: give a model with an LM head")
    return logits[:, -1]
