"""Checkpoints from before a collapse, for `on_collapse: save` and `stop`: an onset is known only at a later look.

While nothing falls, the trainer is asked for a checkpoint at every second look, and the last two are kept as hard links in
`<output_dir>/_before_collapse/`, where no rotation of checkpoints finds them. The underscore keeps them out of a push to the
hub. An alarm ends this: what is there stays.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from divwatch.records import Change, ScoredLook

FOLDER = "_before_collapse"
KEPT = 2
BETWEEN = 2  # looks from one checkpoint to the next, so that the older one is not of the fall's first looks either


class EarlyCheckpoints:
    """The checkpoints of one run that are kept in case diversity falls, on rank 0.

    min_drop: the loss that counts as a collapse. alarmed: whether the run has had its alarm, after which nothing is kept.
    """

    def __init__(self, output_dir: str | Path, min_drop: float) -> None:
        self.output_dir, self.min_drop = Path(output_dir), min_drop
        self.folder = self.output_dir / FOLDER
        self.alarmed = False
        self._looks = BETWEEN  # since the last one that was kept

    def start(self) -> None:
        """A new run: checkpoints of an earlier one in the same output_dir are moved aside."""
        if self.folder.exists():
            number = next(n for n in range(1, 10_000) if not self.folder.with_name(f"{FOLDER}-{n}").exists())
            self.folder.rename(self.folder.with_name(f"{FOLDER}-{number}"))

    def resume(self, step: int, alarmed: bool) -> None:
        """Continues at `step`: what was kept later is removed."""
        self.alarmed = alarmed
        for later in [s for s in self.steps() if s > step]:
            shutil.rmtree(self._path(later))

    def steps(self) -> list[int]:
        """The steps of the kept checkpoints, the oldest first."""
        names = [path.name.removeprefix("checkpoint-") for path in self.folder.glob("checkpoint-*")]
        return sorted(int(name) for name in names if name.isdigit())

    def wants(self, look: ScoredLook) -> bool:
        """Whether the model of this look should be kept: not every one, and none of a fall, but for the first look's."""
        self._looks += 1
        first = not self.steps()
        due = self._looks >= BETWEEN and not is_falling(look, self.min_drop)
        return not self.alarmed and look.step > 0 and (first or due)

    def keep(self, step: int, remove: bool) -> None:
        """Keeps the checkpoint that the trainer has saved at `step`. remove: the trainer would not have saved it itself."""
        saved, target = self.output_dir / f"checkpoint-{step}", self._path(step)
        draft = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(saved, draft, copy_function=_link)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
        if remove:
            shutil.rmtree(saved, ignore_errors=True)
        for old in self.steps()[:-KEPT]:
            shutil.rmtree(self._path(old), ignore_errors=True)
        self._looks = 0

    def before(self, alarm: Change) -> Path | None:
        """The last kept checkpoint from before the fall that `alarm` found, or the first one from its onset's interval.

        None: the fall began before there was one.
        """
        onset = [alarm.onset_step or 0, *(alarm.onset_interval or ())]
        early = [step for step in self.steps() if step <= min(onset)]
        within = [step for step in self.steps() if step <= max(onset)]
        return self._path((early[-1:] or within)[0]) if within else None

    def end(self) -> None:
        """The run is complete: without an alarm nothing is worth keeping."""
        if not self.alarmed:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"


def is_falling(look: ScoredLook, min_drop: float) -> bool:
    """Whether the whole panel may have begun to fall: its loss is certain, or half of what counts as a collapse.

    A look that is not comparable shows nothing and counts as falling.
    """
    whole = [c for c in look.assessment.changes if c.task == "all" and c.change == c.change]
    return look.status != "ok" or any(c.change_interval[1] < 0 or c.change < -min_drop / 2 for c in whole)


def _link(source: str, target: str) -> None:
    """A second name for a file, which takes no room; a copy where the file system has no links."""
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)
