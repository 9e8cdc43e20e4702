"""What sampling tells the user besides errors: each line once in a process, however many batches run into it."""

from __future__ import annotations

import logging
from functools import cache


@cache
def warn_once(line: str) -> None:
    logging.getLogger("divwatch").warning(line)
