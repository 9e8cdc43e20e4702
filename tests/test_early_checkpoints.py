"""Which checkpoint is named as from before a fall."""

import pytest

from divwatch.monitor.early_checkpoints import FOLDER, EarlyCheckpoints
from divwatch.records import Change


@pytest.mark.parametrize(
    ("kept", "onset", "interval", "named"),
    [
        ([40, 60], 50, (45, 60), 40),
        ([20, 40], 50, (45, 60), 40),
        ([5], 0, (0, 5), 5),  # no checkpoint is from before step 0: the earliest one, of the onset's interval
        ([15], 0, (0, 5), None),
        ([], 50, (45, 60), None),
        ([40, 60], 50, None, 40),
    ],
)
def test_the_last_checkpoint_before_the_onset_else_the_first_of_its_interval(tmp_path, kept, onset, interval, named):
    for step in kept:
        (tmp_path / FOLDER / f"checkpoint-{step}").mkdir(parents=True)
    early = EarlyCheckpoints(tmp_path, min_drop=0.05)
    alarm = Change("all", "diversity/sbert", -0.2, (-0.3, -0.1), onset + 9, onset, interval, True)
    assert early.before(alarm) == (named and tmp_path / FOLDER / f"checkpoint-{named}")
    early.resume(30, alarmed=False)
    assert all(step <= 30 for step in early.steps())
    early.start()
    assert not early.steps()
    assert (tmp_path / f"{FOLDER}-1").exists() == bool(kept)
