"""What a mix is: where its rows come from and which sources they belong to. Mixes are read from YAML.

    name: less_code                  # your own mix
    kind: sft                        # sft, preference or rl
    parts:
      - mix: instruct_sft            # a shipped mix
      - file: forum.jsonl            # beside this YAML, in TRL's format
        source: Forum
    weight: {Evol CodeAlpaca: 0.5}   # defaults, which a run's own settings override
    drop: [FLAN]

The shipped mixes (`configs/mixes/*.yaml`) name a hub set, the column that holds a row's source and, for each source, the
values of that column and the published number of rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.files import read_any_yaml
from divwatch.mixes.draw import Selection

KINDS = ("sft", "preference", "rl")
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class MixSource:
    """One source of a mix: its values in the source column, and its published number of rows (None: not known)."""

    name: str
    values: tuple[str, ...] = ()
    rows: int | None = None
    note: str = ""


@dataclass(frozen=True)
class MixPart:
    """Where rows come from: a hub set (`local`: the file that stands for it under `local_data`) or a file.

    columns: the first of these that has a value names the source; pattern: a regular expression whose first group is the
    part of that value that counts; source: the source of every row if no column names one.
    keep: column -> values; other rows are left out. fill: values for columns that the set lacks.
    """

    hub: str | None = None
    revision: str | None = None
    split: str = "train"
    local: str | None = None
    file: Path | None = None
    columns: tuple[str, ...] = ()
    pattern: str | None = None
    source: str | None = None
    keep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fill: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mix:
    name: str
    kind: str
    parts: tuple[MixPart, ...]
    sources: tuple[MixSource, ...] = ()
    total: int | None = None
    tokens: int | None = None
    title: str = ""
    notes: tuple[str, ...] = ()
    default: Selection = field(default_factory=Selection)

    @property
    def rows(self) -> int | None:
        """Published number of rows; None if neither the total nor that of every source is known."""
        if self.total is not None:
            return self.total
        known = [s.rows for s in self.sources if s.rows is not None]
        return sum(known) if known and len(known) == len(self.sources) else None

    def source_of(self, value: str) -> str:
        """The source's name for a value of the source column; an unlisted value is its own name."""
        return self._by_value().get(value, value)

    def _by_value(self) -> dict[str, str]:
        return {value: s.name for s in self.sources for value in (s.name, *s.values)}


def shipped_folder() -> Path:
    """`configs/mixes` of the checkout, or the copy inside an installed package."""
    installed = Path(__file__).parent / "shipped"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs" / "mixes"


def shipped() -> list[str]:
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def find_mix(name: str, inside: tuple[Path, ...] = ()) -> Mix:
    """The mix of that name, or in that YAML file. `inside`: the files that are being read, to detect a circle.

    Raises DivwatchError, listing the shipped mixes."""
    path = Path(name) if name.endswith(SUFFIXES) else shipped_folder() / f"{name}.yaml"
    if not path.is_file():
        if name.endswith(SUFFIXES):
            raise DivwatchError(f"mix {name!r} is not there: give a YAML file, or one of {', '.join(shipped())}")
        raise DivwatchError(
            f"unknown mix {name!r}: choose from {', '.join(shipped())} or tiny/..., or give a YAML or JSONL file"
        )
    return read_mix(path, inside)


def read_mix(path: Path, inside: tuple[Path, ...] = ()) -> Mix:
    """A mix from YAML. Raises DivwatchError naming the file and the key."""
    if path.resolve() in inside:
        raise DivwatchError(f"{path} includes itself: change 'mix' in its parts")
    spec = read_any_yaml(path)
    if not isinstance(spec, dict) or not isinstance(spec.get("parts"), list) or not spec["parts"]:
        raise DivwatchError(f"{path} has no 'parts': list at least one with hub, file or mix")
    _known(path, spec, "name kind parts sources total tokens title notes weight drop only rows repeat")
    if spec.get("kind") not in KINDS:
        raise DivwatchError(f"{path} has kind {spec.get('kind')!r}: choose from {', '.join(KINDS)}")
    parts: list[MixPart] = []
    sources = [_source(path, str(name), value) for name, value in (spec.get("sources") or {}).items()]
    for part in spec["parts"]:
        _known(path, part, "mix hub revision split local file source columns pattern keep fill")
        if "mix" in part:
            other = find_mix(part["mix"], (*inside, path.resolve()))
            if other.kind != spec["kind"]:
                raise DivwatchError(f"{path} is of kind {spec['kind']}, its part {other.name!r} of kind {other.kind}")
            parts += other.parts
            sources += [s for s in other.sources if s.name not in {known.name for known in sources}]
        else:
            parts.append(_part(path, part))
    return Mix(
        name=spec.get("name", path.stem),
        kind=spec["kind"],
        parts=tuple(parts),
        sources=tuple(sources),
        total=spec.get("total"),
        tokens=spec.get("tokens"),
        title=spec.get("title", ""),
        notes=tuple(spec.get("notes") or ()),
        default=_selection(path, spec),
    )


def with_selection(mix: Mix, requested: Selection) -> Selection:
    """The run's selection over the mix's defaults, each source under its own name.

    Raises DivwatchError for a source that is not in the mix's list of sources.
    """
    merged = replace(
        requested,
        weight={**mix.default.weight, **requested.weight},
        only=requested.only or mix.default.only,
        drop=(*mix.default.drop, *requested.drop),
        rows=requested.rows or mix.default.rows,
        repeat=requested.repeat or mix.default.repeat,
    )
    by_name = replace(
        merged,
        weight={_named(mix, s): w for s, w in merged.weight.items()},
        only=tuple(dict.fromkeys(_named(mix, s) for s in merged.only)),
        drop=tuple(dict.fromkeys(_named(mix, s) for s in merged.drop)),
    )
    listed = all(part.hub or part.source for part in mix.parts) and mix.sources
    if listed:  # before a large set is read; otherwise the data name the sources
        known = [*(s.name for s in mix.sources), *(p.source for p in mix.parts if p.source)]
        check_sources(by_name, list(dict.fromkeys(known)))
    return by_name


def check_sources(selection: Selection, known: list[str]) -> None:
    """Raises DivwatchError, listing the known sources, if the selection names another."""
    for name in (*selection.weight, *selection.only, *selection.drop):
        if name not in known:
            raise DivwatchError(f"unknown source {name!r}: the sources are {', '.join(known)}")


def _named(mix: Mix, source: str) -> str:
    """The mix's own name of a source given by name or by column value, upper or lower case."""
    same = {value.lower(): name for value, name in mix._by_value().items()}
    return same.get(source.lower(), source)


def _known(path: Path, spec: Any, keys: str) -> None:
    if not isinstance(spec, dict):
        raise DivwatchError(f"{path} has {spec!r} where a mapping is needed: write 'key: value'")
    unknown = sorted(set(spec) - set(keys.split()))
    if unknown:
        raise DivwatchError(f"{path} has the unknown key {unknown[0]!r}: the keys are {keys.replace(' ', ', ')}")


def _source(path: Path, name: str, spec: Any) -> MixSource:
    """`NAME: rows`, or `NAME: {rows, values, note}`."""
    if spec is None or isinstance(spec, int):
        return MixSource(name, rows=spec)
    _known(path, spec, "rows values note")
    return MixSource(name, _names(spec.get("values")), spec.get("rows"), spec.get("note", ""))


def _names(value: Any) -> tuple[str, ...]:
    """Sources by name, one or several: YAML reads 3 as a number, a row's source is a text."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(map(str, values))


def _part(path: Path, spec: dict[str, Any]) -> MixPart:
    if ("hub" in spec) == ("file" in spec):
        raise DivwatchError(f"{path} has a part with {sorted(spec)}: give each part one of hub, file and mix")
    columns = spec.get("columns") or ()
    named = next(iter(_names(spec.get("source"))), None)
    pattern = spec.get("pattern")
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise DivwatchError(f"{path} has the pattern {pattern!r}, which is no regular expression: {error}") from None
    return MixPart(
        hub=spec.get("hub"),
        revision=spec.get("revision"),
        split=spec.get("split", "train"),
        local=spec.get("local"),
        file=path.parent / spec["file"] if "file" in spec else None,
        columns=(columns,) if isinstance(columns, str) else tuple(columns),
        pattern=pattern,
        source=named or (Path(spec["file"]).stem if "file" in spec and not columns else None),
        keep={column: tuple(values) for column, values in (spec.get("keep") or {}).items()},
        fill=spec.get("fill") or {},
    )


def _selection(path: Path, spec: dict[str, Any]) -> Selection:
    try:
        return Selection(
            weight={str(s): float(w) for s, w in (spec.get("weight") or {}).items()},
            only=_names(spec.get("only")),
            drop=_names(spec.get("drop")),
            rows=None if spec.get("rows") is None else int(spec["rows"]),
            repeat=bool(spec.get("repeat", False)),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise DivwatchError(f"{path}: weight maps sources to numbers, rows is a whole number ({error})") from None
