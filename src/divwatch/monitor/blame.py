"""`watch_blame` on all ranks: which rows are read, what a look keeps for it, and blame at that look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from divwatch.blame.live import KeptLook, blame_look
from divwatch.blame.live_data import rows_of_training
from divwatch.errors import DivwatchError, reason_of
from divwatch.records import Prompt
from divwatch.sampling.isolation import untouched
from divwatch.sampling.ranks import Ranks

if TYPE_CHECKING:
    from divwatch.blame.offline import Measured
    from divwatch.config import WatchConfig


class LiveBlame:
    """Blame of one training. encoder: loads the one of the metrics; called once, on rank 0. unpacked: see `rows_of_training`.

    Raises DivwatchError, one line with the fix, if this training cannot be blamed while it runs.
    """

    def __init__(
        self, trainer: Any, config: WatchConfig, ranks: Ranks, encoder: Callable[[], Any], unpacked: Any
    ) -> None:
        self.trainer, self.config, self.ranks = trainer, config, ranks
        self._load_encoder = encoder
        self._encoder: Any = None
        with untouched(trainer.model, trainer.args.device):
            self.data = rows_of_training(trainer, config.blame_rows, config.seed, unpacked)

    def keeps(self, step: int) -> KeptLook | None:
        """What the look at `step` fills; None before the first step: the optimizer has seen no gradient."""
        return KeptLook() if step else None

    def measure(self, prompts: Sequence[Prompt], look: KeptLook) -> Measured | None:
        """Blame at a look, on rank 0; see `blame_look`. A collective."""
        return blame_look(self.trainer, self.data, prompts, look, self.config, self._encode_with(look), self.ranks)

    def _encode_with(self, look: KeptLook) -> Callable[[], Any]:
        def encoder() -> Any:
            if self._encoder is None:
                self._encoder = self._load_encoder()
            if look.embeddings is not None:
                self._encoder.remember(*look.embeddings)
            return self._encoder

        return encoder


def start_blame(
    trainer: Any,
    config: WatchConfig,
    ranks: Ranks,
    encoder: Callable[[], Any],
    unpacked: Any,
    note: Callable[[str], None],
) -> LiveBlame | None:
    """Blame as the settings ask for it; None, and a note, where it cannot be computed: training continues without it."""
    if not config.blame:
        return None
    blame, reason = None, None
    try:
        blame = LiveBlame(trainer, config, ranks, encoder, unpacked)
    except Exception as error:
        # The trainer's own preparation of rows, which may raise anything, has barriers: a rank that failed in there must not
        # meet the others elsewhere.
        if ranks.world > 1 and not isinstance(error, DivwatchError):
            raise
        reason = reason_of(error)
    reasons = [r for r in ranks.share(reason) if r is not None]
    if reasons and ranks.main:
        note(f"watch_blame is off: {reasons[0]}")
    return None if reasons else blame
