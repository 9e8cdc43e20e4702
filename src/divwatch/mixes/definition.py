"""What a mix is: where its rows come from and which sources they are of. Read from YAML, the shipped ones or one's own.

    name: less_code                  # a mix of one's own
    kind: sft                        # sft, preference or rl
    parts:
      - mix: instruct_sft            # a shipped mix
      - file: forum.jsonl            # beside this YAML, in TRL's format
        source: Forum
    weight: {Evol CodeAlpaca: 0.5}   # what a run asks for where its own settings say nothing
    drop: [FLAN]

The shipped ones (`configs/mixes/*.yaml`) name a hub set, the column that tells a row's source and, for each source, the
values of that column and the published number of rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.mixes.draw import Selection

KINDS = ("sft", "preference", "rl")
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Source:
    """One source of a mix: the values of the source column that mean it, and its published number of rows (or None)."""

    name: str
    values: tuple[str, ...] = ()
    rows: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Part:
    """Where rows come from: a hub set (`local`: the file that stands for it under `local_data`) or a file.

    columns: the columns of which the first that has a value tells the source; pattern: what of that value counts
    (the regular expression's first group); source: the source of every row where no column tells.
    keep: column -> values; other rows are not of this mix. fill: values for columns that the set lacks.
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
    parts: tuple[Part, ...]
    sources: tuple[Source, ...] = ()
    total: int | None = None
    tokens: int | None = None
    title: str = ""
    notes: tuple[str, ...] = ()
    default: Selection = field(default_factory=Selection)

    @property
    def rows(self) -> int | None:
        """Published rows in all; None where neither they nor those of every source are known."""
        if self.total is not None:
            return self.total
        known = [s.rows for s in self.sources if s.rows is not None]
        return sum(known) if known and len(known) == len(self.sources) else None

    def source_of(self, value: str) -> str:
        """The name of the source that a value of the source column means; a value nobody listed is its own name."""
        return self._by_value().get(value, value)

    def _by_value(self) -> dict[str, str]:
        return {value: s.name for s in self.sources for value in (s.name, *s.values)}


def shipped_folder() -> Path:
    """`configs/mixes` of the checkout, or the copy inside an installed package."""
    installed = Path(__file__).parent / "shipped"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs" / "mixes"


def shipped() -> list[str]:
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def find(name: str, inside: tuple[Path, ...] = ()) -> Mix:
    """The mix of that name or in that YAML file, of which `inside` are made. Raises DivwatchError, naming the shipped ones."""
    path = Path(name) if name.endswith(SUFFIXES) else shipped_folder() / f"{name}.yaml"
    if not path.is_file():
        if name.endswith(SUFFIXES):
            raise DivwatchError(f"mix {name!r} is not there: give a YAML file, or one of {', '.join(shipped())}")
        raise DivwatchError(
            f"unknown mix {name!r}: choose from {', '.join(shipped())} or tiny/..., or give a YAML or JSONL file"
        )
    return read(path, inside)


def read(path: Path, inside: tuple[Path, ...] = ()) -> Mix:
    """A mix from YAML. Raises DivwatchError naming the file and the key."""
    import yaml

    if path.resolve() in inside:
        raise DivwatchError(f"{path} is a part of itself: mend 'mix' in its parts")
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DivwatchError(f"{path} is not YAML ({one_line(error, kind=False)}): mend it") from None
    if not isinstance(told, dict) or not isinstance(told.get("parts"), list) or not told["parts"]:
        raise DivwatchError(f"{path} has no 'parts': list at least one with hub, file or mix")
    _known(path, told, "name kind parts sources total tokens title notes weight drop only rows repeat")
    if told.get("kind") not in KINDS:
        raise DivwatchError(f"{path} has kind {told.get('kind')!r}: choose from {', '.join(KINDS)}")
    parts: list[Part] = []
    sources = [_source(path, name, value) for name, value in (told.get("sources") or {}).items()]
    for part in told["parts"]:
        _known(path, part, "mix hub revision split local file source columns pattern keep fill")
        if "mix" in part:
            other = find(part["mix"], (*inside, path.resolve()))
            if other.kind != told["kind"]:
                raise DivwatchError(f"{path} is of kind {told['kind']}, its part {other.name!r} of kind {other.kind}")
            parts += other.parts
            sources += [s for s in other.sources if s.name not in {known.name for known in sources}]
        else:
            parts.append(_part(path, part))
    return Mix(
        name=told.get("name", path.stem),
        kind=told["kind"],
        parts=tuple(parts),
        sources=tuple(sources),
        total=told.get("total"),
        tokens=told.get("tokens"),
        title=told.get("title", ""),
        notes=tuple(told.get("notes") or ()),
        default=_selection(path, told),
    )


def with_selection(mix: Mix, asked: Selection) -> Selection:
    """What a run asks for, over the mix's own defaults, each source by its name.

    Raises DivwatchError for a source that a mix with a list of sources does not have.
    """
    merged = replace(
        asked,
        weight={**mix.default.weight, **asked.weight},
        only=asked.only or mix.default.only,
        drop=(*mix.default.drop, *asked.drop),
        rows=asked.rows or mix.default.rows,
        repeat=asked.repeat or mix.default.repeat,
    )
    named = replace(
        merged,
        weight={_named(mix, s): w for s, w in merged.weight.items()},
        only=tuple(_named(mix, s) for s in merged.only),
        drop=tuple(_named(mix, s) for s in merged.drop),
    )
    listed = all(part.hub or part.source for part in mix.parts) and mix.sources
    if listed:  # before a large set is read; else the data tell the sources
        known = [*(s.name for s in mix.sources), *(p.source for p in mix.parts if p.source)]
        check_sources(named, list(dict.fromkeys(known)))
    return named


def check_sources(selection: Selection, known: list[str]) -> None:
    """Raises DivwatchError, naming the known sources, where another is asked for."""
    for asked in (*selection.weight, *selection.only, *selection.drop):
        if asked not in known:
            raise DivwatchError(f"unknown source {asked!r}: the sources are {', '.join(known)}")


def _named(mix: Mix, source: str) -> str:
    """The mix's own name of a source that was given by name or column value, in any case."""
    same = {value.lower(): name for value, name in mix._by_value().items()}
    return same.get(source.lower(), source)


def _known(path: Path, told: Any, keys: str) -> None:
    if not isinstance(told, dict):
        raise DivwatchError(f"{path} has {told!r} where a mapping is needed: write 'key: value'")
    unknown = sorted(set(told) - set(keys.split()))
    if unknown:
        raise DivwatchError(f"{path} has the unknown key {unknown[0]!r}: the keys are {keys.replace(' ', ', ')}")


def _source(path: Path, name: str, told: Any) -> Source:
    """`NAME: rows`, or `NAME: {rows, values, note}`."""
    if told is None or isinstance(told, int):
        return Source(name, rows=told)
    _known(path, told, "rows values note")
    return Source(name, tuple(told.get("values") or ()), told.get("rows"), told.get("note", ""))


def _part(path: Path, told: dict[str, Any]) -> Part:
    if ("hub" in told) == ("file" in told):
        raise DivwatchError(f"{path} has a part with {sorted(told)}: give each part one of hub, file and mix")
    columns = told.get("columns") or ()
    pattern = told.get("pattern")
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise DivwatchError(f"{path} has the pattern {pattern!r}, which is no regular expression: {error}") from None
    return Part(
        hub=told.get("hub"),
        revision=told.get("revision"),
        split=told.get("split", "train"),
        local=told.get("local"),
        file=path.parent / told["file"] if "file" in told else None,
        columns=(columns,) if isinstance(columns, str) else tuple(columns),
        pattern=pattern,
        source=told.get("source") or (Path(told["file"]).stem if "file" in told and not columns else None),
        keep={column: tuple(values) for column, values in (told.get("keep") or {}).items()},
        fill=told.get("fill") or {},
    )


def _selection(path: Path, told: dict[str, Any]) -> Selection:
    try:
        return Selection(
            weight={str(s): float(w) for s, w in (told.get("weight") or {}).items()},
            only=tuple(told.get("only") or ()),
            drop=tuple(told.get("drop") or ()),
            rows=None if told.get("rows") is None else int(told["rows"]),
            repeat=bool(told.get("repeat", False)),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise DivwatchError(f"{path}: weight maps sources to numbers, rows is a whole number ({error})") from None
