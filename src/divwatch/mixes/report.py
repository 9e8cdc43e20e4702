"""What happened to a mix's rows: read, dropped and corrected by reason, and trained on, source by source."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from divwatch.words import counted


@dataclass
class SourceReport:
    """read: rows of the source seen. usable: read minus dropped. taken: rows in the training set. dropped, mended:
    rows by reason; a mended row was corrected and kept."""

    read: int = 0
    usable: int = 0
    taken: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    mended: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def correct(self, what: str) -> None:
        self.mended[what] = self.mended.get(what, 0) + 1


@dataclass
class MixReport:
    """Goes into run.json through `as_dict`; `lines` is what a recipe prints.

    given, local_data, max_prompt: what `load_mix` was called with, files and folders by their absolute paths.
    """

    name: str
    kind: str
    seed: int
    places: list[dict[str, Any]] = field(default_factory=list)
    selection: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, SourceReport] = field(default_factory=dict)
    given: str = ""
    local_data: str | None = None
    max_prompt: int | None = None

    def of(self, source: str) -> SourceReport:
        return self.sources.setdefault(source, SourceReport())

    @property
    def taken(self) -> int:
        return sum(s.taken for s in self.sources.values())

    def total(self, what: str) -> Counter[str]:
        """Counts by reason over all sources: `dropped` or `mended`."""
        counts: Counter[str] = Counter()
        for source in self.sources.values():
            counts.update(getattr(source, what))
        return counts

    def lines(self) -> list[str]:
        """One line for the mix, then one for each reason why rows were dropped or corrected, with the sources concerned."""
        read = sum(s.read for s in self.sources.values())
        used = sum(s.taken > 0 for s in self.sources.values())
        lines = [f"mix {self.name}: {counted(self.taken, 'row')} of {counted(used, 'source')} ({read:,} read)"]
        for what, word in (("dropped", "dropped"), ("mended", "corrected")):
            for reason, count in self.total(what).most_common():
                affected = [
                    (n, getattr(s, what)[reason]) for n, s in self.sources.items() if reason in getattr(s, what)
                ]
                affected.sort(key=lambda pair: -pair[1])
                named = ", ".join(f"{name} {n:,}" for name, n in affected[:3]) + (", ..." if len(affected) > 3 else "")
                lines.append(f"  {word} {count:,}: {reason} ({named})")
        return lines

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, report: dict[str, Any]) -> MixReport:
        return cls(**{**report, "sources": {name: SourceReport(**s) for name, s in report["sources"].items()}})
