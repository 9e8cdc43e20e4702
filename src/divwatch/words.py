"""Numbers of things and differences as people write them, in ASCII. Levels and changes: `outputs/numbers.py`."""

from __future__ import annotations

from typing import Any


def counted(count: Any, noun: str) -> str:
    """A number of things: how many, or what is said of their number, and the noun that agrees with it.

    >>> counted(1, "prompt"), counted(1200, "row"), counted(2, "batch"), counted(0, "process")
    ('1 prompt', '1,200 rows', '2 batches', '0 processes')
    """
    plural = noun + ("es" if noun.endswith(("ch", "s", "x")) else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def signed(value: float, digits: int = 0) -> str:
    """A difference; one that rounds to nothing has no sign.

    >>> signed(-0.412, 2), signed(0.3), signed(-0.00004, 4), signed(3.2)
    ('-0.41', '0', '0.0000', '+3')
    """
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]
