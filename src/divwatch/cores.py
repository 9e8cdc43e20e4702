"""The CPU cores that divwatch may use, and how its work beside training yields to training."""

from __future__ import annotations

import contextlib
import os
import sys
import threading


def count_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lowest_priority() -> None:
    """Gives the calling thread, and processes that it starts, the lowest priority. On Linux, where threads have their own."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
