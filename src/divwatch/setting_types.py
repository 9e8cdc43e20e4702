"""A setting's value as the type of its annotation: one line with the fix where it is of another type."""

from __future__ import annotations

import dataclasses
import math
import operator
import os
import re
from collections.abc import Callable, Mapping
from numbers import Real
from types import NoneType
from typing import Any, NamedTuple, get_args

from divwatch.errors import DivwatchError


def as_type(name: str, value: Any, kind: Any, default: Any = dataclasses.MISSING) -> Any:
    """The value of the setting `name` as `kind`: str, bool, int, float, list[str], or one of them or None; `float | str` is a
    number or auto.

    Nothing is guessed: a string is no number and a number no flag. Names may stand in one text with commas, as in YAML.
    Raises DivwatchError, which names the default.

    >>> as_type("metrics", "ead, sbert", list[str]), as_type("prompts", 8, int), as_type("alpha", 1, float)
    (['ead', 'sbert'], 8, 1)
    """
    optional = NoneType in get_args(kind)
    if optional and value is None:
        return None
    reader = _READERS[next(k for k in get_args(kind) if k is not NoneType) if optional else kind]
    try:
        return reader.read(value)
    except (TypeError, ValueError, OverflowError):
        fix = reader.wanted + (", or null for the default" if optional else "")
        known = default is not None and default is not dataclasses.MISSING
        usual = f" (default: {str(default).lower() if isinstance(default, bool) else default})" if known else ""
        raise DivwatchError(f"{name} is {shown(value)}: give {fix}{usual}") from None


def panel_rows(value: Any) -> Any:
    """The rows of a panel that is given itself: a Dataset, or a list of texts, conversations or rows; None for a name.

    A list of single words is one of names. Raises DivwatchError for a list of anything else.
    """
    if isinstance(value, list | tuple):
        words = all(isinstance(part, str | os.PathLike) and not re.search(r"\s", os.fspath(part)) for part in value)
        if not value or not all(isinstance(part, str | os.PathLike | Mapping | list | tuple) for part in value):
            raise DivwatchError(f"watch_panel is {shown(value)}: give texts, conversations or rows, at least one")
        return None if words else [_row(part) for part in value]
    is_dataset = not isinstance(value, Mapping) and hasattr(value, "column_names") and hasattr(value, "__iter__")
    return value if is_dataset else None


def _row(prompt: Any) -> Any:
    return prompt if isinstance(prompt, Mapping) else {"prompt": list(prompt) if isinstance(prompt, tuple) else prompt}


def shown(value: Any) -> str:
    """A wrong value in a message: one line, not long.

    >>> shown(["a", "b"]), len(shown("x" * 1000))
    ("['a', 'b']", 60)
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise TypeError
    text = os.fspath(value)
    if not isinstance(text, str) or "\0" in text:  # no path, no name
        raise TypeError
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)  # NumPy's whole numbers too


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise TypeError
    return value if isinstance(value, int | float) else float(value)


def _names(value: Any) -> list[str]:
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise TypeError
    return [name.strip() for part in parts for name in _text(part).split(",")]


def _number_or_auto(value: Any) -> float | str:
    return "auto" if isinstance(value, str) and value == "auto" else _number(value)


class _Reader(NamedTuple):
    read: Callable[[Any], Any]
    wanted: str


_READERS: dict[Any, _Reader] = {
    str: _Reader(_text, "a text"),
    bool: _Reader(_flag, "true or false"),
    int: _Reader(_whole, "a whole number"),
    float: _Reader(_number, "a number"),
    float | str: _Reader(_number_or_auto, "auto or a number"),
    list[str]: _Reader(_names, "names in a list or with commas"),
}


def number_of(config: Mapping[str, Any], name: str, default: float = 0.0) -> float:
    """A setting of a config. Texts are numbers too: YAML reads 1e-3 as a text, and a recipe's parser takes it.

    Raises DivwatchError for what is no finite number.
    """
    value = config.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DivwatchError(f"{name} is {shown(value)}: give a number")
    return number


def whole_of(config: Mapping[str, Any], name: str, default: int = 0) -> int:
    value = number_of(config, name, default)
    if not value.is_integer():
        raise DivwatchError(f"{name} is {shown(config[name])}: give a whole number")
    return int(value)


def whole_if_set(config: Mapping[str, Any], name: str) -> int | None:
    return whole_of(config, name) if config.get(name) is not None else None
