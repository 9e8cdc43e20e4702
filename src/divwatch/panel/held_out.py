"""The held-out check beside the start of training: in a thread of its own, whose work is done by child processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any

from divwatch.records import Prompt

if TYPE_CHECKING:
    from divwatch.panel.overlap import OverlapReport

# Rows that are read faster here than a process starts.
FEW_ROWS = 5000


class HeldOutCheck:
    """Looks for the prompts in the training rows from the moment it is made.

    A stream cannot be read twice and is not checked: `report` stays None. `error`: why the check could not be made.
    """

    def __init__(self, prompts: Sequence[Prompt], dataset: Any, tokenizer: Any) -> None:
        self.report: OverlapReport | None = None
        self.error: Exception | None = None
        self.streamed = dataset is None or not isinstance(dataset, Sized)
        self._work = (prompts, dataset, tokenizer)
        self._thread = threading.Thread(target=self._run, daemon=True)
        if not self.streamed:
            self._thread.start()

    def done(self, seconds: float) -> bool:
        """Waits at most so long; whether the check has ended."""
        if not self.streamed:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        from divwatch.panel.overlap import check_held_out

        prompts, dataset, tokenizer = self._work
        workers = 0 if len(dataset) < FEW_ROWS else max(1, (os.cpu_count() or 2) // 2)
        try:
            self.report = check_held_out(prompts, dataset, workers=workers, decode=tokenizer.decode)
        except Exception as error:
            self.error = error
