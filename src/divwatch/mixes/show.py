"""A mix as plain values: what `divwatch mix` prints and a report can use."""

from __future__ import annotations

from typing import Any

from divwatch.errors import DivwatchError
from divwatch.mixes.definition import Mix, find_mix, shipped


def listed() -> list[dict[str, Any]]:
    """All named mixes: the shipped ones and those of the embedded world."""
    from divwatch.tiny.mixes import MIXES

    return [described(name) for name in shipped()] + [_tiny(name) for name in MIXES]


def described(name: str) -> dict[str, Any]:
    """`name, kind, title, rows, tokens, notes, parts: [{from, revision}], sources: [{name, rows, share, note}]`.

    Rows and tokens are the published ones, None if they are not known; a share is of the known rows of the whole mix.
    """
    if not name.startswith("tiny/"):
        return _described(find_mix(name))
    from divwatch.tiny.mixes import MIXES

    short = name.removeprefix("tiny/")
    if short not in MIXES:
        raise DivwatchError(f"unknown mix {name!r}: choose from {', '.join('tiny/' + m for m in MIXES)}")
    return _tiny(short)


def _described(mix: Mix) -> dict[str, Any]:
    return {
        "name": mix.name,
        "kind": mix.kind,
        "title": mix.title,
        "rows": mix.rows,
        "tokens": mix.tokens,
        "notes": list(mix.notes),
        "parts": [{"from": part.hub or str(part.file), "revision": part.revision} for part in mix.parts],
        "sources": [
            {"name": s.name, "rows": s.rows, "share": _share(s.rows, mix.rows), "note": s.note} for s in mix.sources
        ],
    }


def _tiny(short: str) -> dict[str, Any]:
    from divwatch.tiny.mixes import MIXES

    sources = MIXES[short]
    total = sum(s.rows for s in sources)
    return {
        "name": f"tiny/{short}",
        "kind": _tiny_kind(sources),
        "title": "embedded world",
        "rows": total,
        "tokens": None,
        "notes": [],
        "parts": [{"from": "made by divwatch.tiny", "revision": None}],
        "sources": [{"name": s.name, "rows": s.rows, "share": _share(s.rows, total), "note": ""} for s in sources],
    }


def _tiny_kind(sources: list[Any]) -> str:
    if all(s.author is None for s in sources):
        return "rl"
    return "sft" if all(s.rejected is None for s in sources) else "preference"


def _share(rows: int | None, total: int | None) -> float | None:
    return None if rows is None or not total else round(rows / total, 6)
