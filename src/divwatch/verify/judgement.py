"""What a verifier says of one answer."""

from __future__ import annotations

from typing import NamedTuple


class Judgement(NamedTuple):
    """`correct`: True, False, or None where it cannot be said. `answer`: the canonical answer, None if none was parsed."""

    correct: bool | None
    answer: str | None
