"""How a batch is decoded: temperature, stops, limits, and which way of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MODES = ("auto", "eager", "shared", "captured")


@dataclass(frozen=True)
class Decoding:
    """How a batch is decoded.

    stops:      ids of which each ends a completion.
    limit:      new tokens after which the longest completion is cut.
    close_at, close_with: after so many new tokens a thought that is still open is closed with these ids. None: never.
    spare, spare_from: from so many new tokens on, decoding ends early once at most `spare` rows run. Their completions are
                cut there; the caller continues them in another batch (`refill.py`).
    mode:       eager: prompts' keys are repeated for each row, on any model and device. shared: they are stored once.
                captured: also each step runs from a CUDA graph (on a CPU: as shared). auto: captured on a CUDA device,
                eager elsewhere. What a model does not allow falls back, with a line in the log. The tokens are the same.
    """

    temperature: float
    top_p: float
    stops: list[int]
    limit: int
    close_at: int | None = None
    close_with: tuple[int, ...] = ()
    mode: str = "auto"
    spare: int = 0
    spare_from: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"unknown mode {self.mode!r}: choose from {', '.join(MODES)}")

    def mode_on(self, device: Any) -> str:
        """The mode that `auto` selects on a device."""
        if self.mode != "auto":
            return self.mode
        return "captured" if device.type == "cuda" else "eager"

    def goes_on(self, running: int, steps: int) -> bool:
        """Whether a batch with `running` rows after `steps` new tokens is decoded further."""
        return steps < self.limit and running > (self.spare if steps >= self.spare_from else 0)
