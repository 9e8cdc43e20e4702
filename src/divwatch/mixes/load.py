"""From a mix to a training set: rows are read, adapted, drawn and written to disk once, with a report of what happened.

If whole sources are taken, one pass over the rows is enough. A draw of fewer or more rows takes two: the first counts the
usable rows of each source, the second writes the chosen ones. Memory holds about 50 bytes a row and no texts; disk holds
the chosen rows. `mix_rows` on the 36 GB of Think SFT therefore reads them twice from the hub and keeps only the draw.

The result is cached under a key of everything it depends on: an ablation that returns to a selection finds it there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.mixes.adapters import ADAPTERS, COLUMNS, TOO_LONG, Dropped, Row
from divwatch.mixes.columns import kind_of, source_labels
from divwatch.mixes.definition import Mix, MixPart, check_sources, find_mix, with_selection
from divwatch.mixes.draw import Selection, choose
from divwatch.mixes.limit import Limit
from divwatch.mixes.prepared import prepared
from divwatch.mixes.report import MixReport
from divwatch.mixes.rows import Place, find_rows, iterate


def load_mix(
    name: str,
    seed: int = 0,
    rows: int | None = None,
    *,
    selection: Selection | None = None,
    local_data: str | None = None,
    kind: str | None = None,
    limit: Limit | None = None,
) -> tuple[Any, MixReport]:
    """(datasets.Dataset in TRL's format with a column `source`, MixReport) of a mix by name.

    name: a shipped mix, a YAML file, `tiny/...`, or a JSONL file in TRL's format.
    rows: short for `selection.rows`. seed: of the draw.
    kind: sft, preference or rl; a mix of another kind raises an error.
    limit: drops rows that leave no room for an answer.
    Raises DivwatchError for what a user can fix.
    """
    selection = selection or Selection()
    selection = replace(selection, rows=rows) if rows is not None else selection
    if name.startswith("tiny/") or name.endswith((".jsonl", ".json")):
        dataset, report = _in_memory(name, seed, selection, kind, limit)
    else:
        dataset, report = _from_yaml(name, seed, selection, local_data, kind, limit)
    report.given = str(Path(name).resolve()) if Path(name).is_file() else name
    report.local_data = str(Path(local_data).resolve()) if local_data else None
    report.max_prompt = limit.tokens if limit else None
    return dataset, report


def _from_yaml(
    name: str, seed: int, selection: Selection, local_data: str | None, kind: str | None, limit: Limit | None
) -> tuple[Any, MixReport]:
    mix = find_mix(name)
    if kind is not None and mix.kind != kind:
        raise DivwatchError(f"mix {name!r} is of kind {mix.kind}, this recipe trains on {kind}: choose another mix")
    selection = with_selection(mix, selection)
    places = [find_rows(part, local_data) for part in mix.parts]
    key = _key(mix, places, selection, seed, limit)
    return prepared(key, lambda folder: _write(folder, mix, places, selection, seed, limit))


# mixes of the embedded world, and files in TRL's own format


def _in_memory(
    name: str, seed: int, selection: Selection, kind: str | None, limit: Limit | None
) -> tuple[Any, MixReport]:
    """Rows as they are; the column `source`, if there is one, names their sources: as a text, also where it has none."""
    dataset, place = _tiny(name, seed) if name.startswith("tiny/") else _json(name)
    actual = kind_of(dataset.column_names)
    if kind is not None and actual != kind:
        raise DivwatchError(
            f"mix {name!r} has the columns {', '.join(dataset.column_names)}, which are of kind {actual or 'unknown'}: "
            f"this recipe trains on {kind}"
        )
    report = MixReport(name, actual or "unknown", seed, [place], asdict(selection))
    labels = source_labels(dataset, name)
    if "source" in dataset.column_names and labels != list(dataset["source"]):
        dataset = dataset.remove_columns("source").add_column("source", labels)
    usable = []
    for position, (label, row) in enumerate(zip(labels, dataset if limit else labels, strict=True)):
        source = report.of(label)
        source.read += 1
        if limit and not limit.fits(row):
            source.drop(TOO_LONG)
            continue
        source.usable += 1
        usable.append(position)
    check_sources(selection, list(report.sources))
    wanted = [p for p in usable if selection.wants(labels[p])]
    chosen = [wanted[i] for i in choose([labels[p] for p in wanted], selection, seed)] if wanted else []
    if not chosen:
        raise DivwatchError(_nothing_left(report, selection))
    if chosen != list(range(len(dataset))):
        dataset = dataset.select(chosen)
    for position in chosen:
        report.of(labels[position]).taken += 1
    return dataset, report


def _tiny(name: str, seed: int) -> tuple[Any, dict[str, Any]]:
    from datasets import Dataset

    from divwatch.tiny import mixes

    short = name.removeprefix("tiny/")
    if short not in mixes.MIXES:
        raise DivwatchError(f"unknown mix {name!r}: choose from {', '.join('tiny/' + m for m in mixes.MIXES)}")
    return Dataset.from_list(list(mixes.rows(short, seed))), {"tiny": short}


def _json(name: str) -> tuple[Any, dict[str, Any]]:
    from datasets import Dataset

    place = find_rows(MixPart(file=Path(name)), None)
    if next(iterate(place), None) is None:
        raise DivwatchError(f"{name} has no rows: write at least one JSON object")
    # The reader takes the columns' types from the first 10 MB, where a column may be all null: then from the whole file.
    for more in ({}, {"chunksize": Path(name).stat().st_size}):
        try:
            return Dataset.from_json(name, **more), place.describe()
        except Exception as error:  # the reader has its own error for each way to be wrong
            problem = one_line(error.__cause__ or error)
    for _ in iterate(place):  # the error of the first line that is wrong by itself
        pass
    raise DivwatchError(f"{name} is not JSON lines of one form ({problem}): give each column values of one type")


# mixes from YAML


def _adapted(mix: Mix, place: Place, report: MixReport, selection: Selection, limit: Limit | None) -> Iterator[Row]:
    """The usable rows of one part, in order, each with its source; the report counts what is dropped or corrected."""
    adapt, part, checked = ADAPTERS[mix.kind], place.part, False
    for raw in iterate(place):
        row = {**part.fill, **{k: v for k, v in raw.items() if v is not None}}
        if not checked:
            _check_columns(mix, place, row, raw)
            checked = True
        if any(not set(_values(row.get(column))) & set(values) for column, values in part.keep.items()):
            continue
        name = mix.source_of(_source_value(part, row))
        source = report.of(name)
        if not selection.wants(name):
            continue
        source.read += 1
        corrections: list[str] = []
        try:
            adapted = adapt(row, corrections.append)
            if limit and not limit.fits(adapted):
                raise Dropped(TOO_LONG)
        except Dropped as dropped:
            source.drop(str(dropped))
            continue
        for what in corrections:
            source.correct(what)
        source.usable += 1
        yield adapted | {"source": name}


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _source_value(part: MixPart, row: Row) -> str:
    value = next((_values(row[c])[0] for c in part.columns if row.get(c) not in (None, "", [])), None)
    if value is None:
        return part.source or "unknown"
    if part.pattern is None:
        return str(value)
    match = re.match(part.pattern, str(value))
    return match.group(1) if match else str(value)


def _check_columns(mix: Mix, place: Place, row: Row, raw: Row) -> None:
    needed = [c for c in COLUMNS[mix.kind] if c not in row and c not in raw]
    if mix.kind == "sft" and {"prompt", "completion"} <= set(raw):
        needed = []
    has_source = not place.part.columns or place.part.source or any(c in row or c in raw for c in place.part.columns)
    needed += [] if has_source else [" or ".join(place.part.columns)]
    if needed:
        where = place.file or place.part.hub
        raise DivwatchError(f"{where} has no column {needed[0]}: its columns are {', '.join(raw)}")


def _write(
    folder: Path, mix: Mix, places: list[Place], selection: Selection, seed: int, limit: Limit | None
) -> MixReport:
    from datasets.arrow_writer import ArrowWriter

    report = _empty_report(mix, places, selection, seed)
    copies = None if selection.takes_all else _copies(mix, places, selection, seed, limit)
    with ArrowWriter(path=str(folder / "rows.arrow"), features=features(mix.kind)) as writer:
        position = 0
        for place in places:
            for row in _adapted(mix, place, report, selection, limit):
                for _ in range(1 if copies is None else copies[position]):
                    writer.write(row)
                    report.of(row["source"]).taken += 1
                position += 1
        check_sources(selection, _sources(mix, report))
        if report.taken == 0:
            raise DivwatchError(_nothing_left(report, selection))
        writer.finalize()
    return report


def _copies(mix: Mix, places: list[Place], selection: Selection, seed: int, limit: Limit | None) -> Any:
    """How often each usable row is taken: a first pass that keeps only the source of each row."""
    import numpy as np

    report = _empty_report(mix, places, selection, seed)
    labels = [row["source"] for place in places for row in _adapted(mix, place, report, selection, limit)]
    check_sources(selection, _sources(mix, report))
    if not labels:
        raise DivwatchError(_nothing_left(report, selection))
    return np.bincount(choose(labels, selection, seed), minlength=len(labels))


def _empty_report(mix: Mix, places: list[Place], selection: Selection, seed: int) -> MixReport:
    return MixReport(mix.name, mix.kind, seed, [p.describe() for p in places], asdict(selection))


def _sources(mix: Mix, report: MixReport) -> list[str]:
    return list(dict.fromkeys([*(s.name for s in mix.sources), *report.sources]))


def _nothing_left(report: MixReport, selection: Selection) -> str:
    """Why no row is taken, and what to change."""
    wanted = [s for name, s in report.sources.items() if selection.wants(name)]
    read, usable = sum(s.read for s in wanted), sum(s.usable for s in wanted)
    lost: Counter[str] = sum((Counter(s.dropped) for s in wanted), Counter())
    why, fix = "", f"the sources in the data are {', '.join(report.sources) or 'none'}"
    if usable:
        why, fix = " (less than half a row of each source)", "raise mix_weight"
    elif lost:
        [(reason, _)] = lost.most_common(1)
        why = f" (all {read:,} were dropped, most for: {reason})"
        fix = "raise max_length, or mix_max_prompt if it is set" if reason == TOO_LONG else fix
    return f"mix {report.name!r} leaves no rows to train on{why}: {fix}"


def features(kind: str) -> Any:
    """The columns of a prepared mix. Tool turns keep the fields that Olmo's chat template reads."""
    from datasets import Features, List, Value

    text = Value("string")
    turn = {"role": text, "content": text}
    columns: dict[str, Any] = {
        "sft": {"messages": List({**turn, "functions": text, "function_calls": text})},
        "preference": {"prompt": List(turn), "chosen": List(turn), "rejected": List(turn)},
        "rl": {"prompt": List(turn), "dataset": text, "verifier": text, "reference": text},
    }[kind]
    return Features({**columns, "source": text})


def _key(mix: Mix, places: list[Place], selection: Selection, seed: int, limit: Limit | None) -> str:
    """A change of the mix, the data, the selection or this package's own code gives another key."""
    code = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
    parts = [
        asdict(mix),
        [p.describe() for p in places],
        asdict(selection),
        seed,
        limit.describe() if limit else None,
        code,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
