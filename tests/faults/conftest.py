"""Fixtures of the faults, and what is started rather than collected."""

from tests.faults.test_storage import small_disk, undisturbed_record  # noqa: F401
from tests.faults.undisturbed import bounded, survive, undisturbed  # noqa: F401

collect_ignore = ["program.py", "online.py"]
