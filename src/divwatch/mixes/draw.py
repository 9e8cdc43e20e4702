"""Which rows of a mix a run trains on: seeded, stratified by source, nested, each row at most once unless `repeat` is set.

`allocate` turns weights into numbers of rows a source, `choose` picks that many. Both are pure and look at no row:
a row is known by its source and by its place among that source's rows.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from divwatch.errors import DivwatchError


@dataclass(frozen=True)
class Selection:
    """Which rows of a mix to take. The default takes every row once.

    weight: source -> factor on its number of rows (0 or more; 1 is as published).
    only:   the sources to keep, or none to keep all. drop: those to leave out.
    rows:   the number of rows of the whole draw; the sources keep their shares.
    repeat: a source with too few rows gives them more than once. Without it that is an error.
    """

    weight: Mapping[str, float] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    rows: int | None = None
    repeat: bool = False

    @property
    def takes_all(self) -> bool:
        """True if every source is taken or left as a whole: no row has to be counted first."""
        return self.rows is None and all(w in (0, 1) for w in self.weight.values())

    def wants(self, source: str) -> bool:
        included = not self.only or source in self.only
        return included and source not in self.drop and self.weight.get(source, 1.0) > 0


def allocate(counts: Mapping[str, int], selection: Selection) -> dict[str, int]:
    """Rows to take of each source that has `counts` rows.

    Without `rows` a source gives weight x its rows, rounded. With `rows`, shares are proportional to weight x rows and
    the numbers add up to `rows`, each within one row of its share.

    >>> allocate({"a": 60, "b": 40}, Selection(weight={"b": 0.5}))
    {'a': 60, 'b': 20}
    >>> allocate({"a": 60, "b": 40}, Selection(weight={"b": 0.5}, rows=10))
    {'a': 8, 'b': 2}
    """
    mass = {s: n * selection.weight.get(s, 1.0) for s, n in counts.items() if selection.wants(s)}
    if not sum(mass.values()) > 0:
        raise DivwatchError(f"the selection leaves no rows: the sources are {', '.join(counts)}")
    rows_of = {s: round(m) for s, m in mass.items()} if selection.rows is None else _quota(mass, selection.rows)
    for source, wanted in rows_of.items():
        if wanted > counts[source] and not selection.repeat:
            raise DivwatchError(
                f"source {source!r} has {counts[source]} rows, {wanted} were asked for: lower its mix_weight or mix_rows, "
                "or let rows repeat with --mix_repeat true"
            )
    return rows_of


def _quota(mass: Mapping[str, float], rows: int) -> dict[str, int]:
    """The quota method of Balinski and Young (1975): within one row of every share, and growing with `rows`.

    Largest remainders keep the shares too, but a source can lose a row when `rows` grows (the Alabama paradox), and then
    draws would not be nested. Here row number h goes to the source that may have one more (its count is below its share of
    h) and is due first ((count + 1) / share is smallest). O(rows log sources).
    """
    total = sum(mass.values())
    share = {s: m / total for s, m in mass.items() if m > 0}
    rows_of = dict.fromkeys(mass, 0)
    waiting = [(0.0, s) for s in share]  # (h above which the source may have one more row, source)
    due: list[tuple[float, str]] = []
    heapq.heapify(waiting)
    for h in range(1, rows + 1):
        while waiting and waiting[0][0] < h - 1e-9 * h:
            source = heapq.heappop(waiting)[1]
            heapq.heappush(due, ((rows_of[source] + 1) / share[source], source))
        source = heapq.heappop(due)[1]
        rows_of[source] += 1
        heapq.heappush(waiting, (rows_of[source] / share[source], source))
    return rows_of


def choose(sources: Sequence[str], selection: Selection, seed: int) -> list[int]:
    """Positions in `sources` (the source of each row, in order) of the rows to train on, in order; repeats are neighbours.

    A source's rows are ranked by a hash of (seed, source, place within the source) and the first are taken, so a
    smaller draw is a part of a larger one, and the draw of one source does not depend on the others.
    """
    places: dict[str, list[int]] = {}
    for position, source in enumerate(sources):
        places.setdefault(source, []).append(position)
    rows_of = allocate({s: len(p) for s, p in places.items()}, selection)
    chosen: list[int] = []
    for source, count in rows_of.items():
        mine = places[source]
        whole, part = divmod(count, len(mine))
        chosen += mine * whole
        if part:
            ranked = sorted(range(len(mine)), key=lambda i, s=source: _rank(seed, s, i))  # type: ignore[misc]
            chosen += [mine[i] for i in ranked[:part]]
    return sorted(chosen)


def _rank(seed: int, source: str, place: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{source}/{place}".encode(), digest_size=16).digest()
