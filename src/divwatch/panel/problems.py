"""What is wrong with a panel, in lines for its author: repeated prompts, fields that nothing reads, references that no
verifier can use, and what the chat template drops. `load_panel` runs the first three wherever a panel is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.panel.form import is_chat, prompt_text
from divwatch.panel.rows import COLUMNS, KNOWN_ROLES, turn_texts
from divwatch.records import Prompt
from divwatch.verify.reference import reference_problem
from divwatch.verify.thinking import final_answer

_READ = (*COLUMNS, "completion")


def without_repeats(prompts: Sequence[Prompt]) -> tuple[list[Prompt], str | None]:
    """(each prompt once, one line about the repeats or None). A prompt that counts twice makes intervals too narrow.

    >>> without_repeats([Prompt("a", "t", "Why?"), Prompt("b", "t", "Why? "), Prompt("c", "t", "How?")])[1]
    '1 of 3 prompts repeats another and is left out: b is a'
    """
    first: dict[str, Prompt] = {}
    repeats = []
    for prompt in prompts:
        earlier = first.setdefault(what_is_asked(prompt), prompt)
        if earlier is not prompt:
            repeats.append((prompt.id, earlier.id))
    if not repeats:
        return list(prompts), None
    verb, are = ("repeats", "is") if len(repeats) == 1 else ("repeat", "are")
    example = "{} is {}".format(*repeats[0])
    line = f"{len(repeats)} of {len(prompts)} prompts {verb} another and {are} left out: {example}"
    return list(first.values()), line + (", ..." if len(repeats) > 1 else "")


def what_is_asked(prompt: Prompt) -> str:
    """All of a prompt that the model reads, as a text to compare; spaces and empty fields do not count."""
    turns = prompt.messages or [{"role": "user", "content": prompt.text}]
    turns = [{name: value for name, value in turn.items() if value is not None} for turn in turns]
    asked = [turns, prompt.tools or None, prompt.template_kwargs or None, prompt.thinking, prompt.verifier]
    return json.dumps(_spaced_once(asked), sort_keys=True, default=str)


def _spaced_once(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, Mapping):
        return {name: _spaced_once(part) for name, part in value.items()}
    return [_spaced_once(part) for part in value] if isinstance(value, list | tuple) else value


def unread_fields(rows: Iterable[Mapping[str, Any]], unit: str, close_only: bool = False) -> str | None:
    """One line about the fields that nothing reads, with the one that was probably meant.

    close_only: only fields whose name is close to one that is read; a data set has columns for other purposes.

    >>> unread_fields([{"prompt": "2+2?", "referense": "4"}], "line")
    "nothing reads the field 'referense' (1 line; is it 'reference'?)"
    """
    counts = Counter(name for row in rows for name in row if name not in _READ)
    texts = []
    for name, count in counts.items():
        meant = get_close_matches(str(name).lower(), _READ, 1, 0.75)
        if meant or not close_only:
            where = "" if close_only else f"{count:,} {unit}{'' if count == 1 else 's'}"
            parts = [*([where] if where else []), *([f"is it {meant[0]!r}?"] if meant else [])]
            texts.append(f"{name!r} ({'; '.join(parts)})")
    return f"nothing reads the field{'' if len(texts) == 1 else 's'} {', '.join(texts)}" if texts else None


def unknown_roles(prompts: Sequence[Prompt]) -> str | None:
    """One line about turns whose role is none that chat templates know."""
    roles = Counter(turn.get("role") for p in prompts for turn in p.messages or () if turn["role"] not in KNOWN_ROLES)
    if not roles:
        return None
    listing = ", ".join(f"{role!r} ({count})" for role, count in roles.items())
    return f"turns with a role that chat templates may drop: {listing}; use user, system, assistant or tool"


def unjudged_prompts(prompts: Sequence[Prompt], name: str | None) -> str | None:
    """One line about the prompts whose verifier has no reference to compare with: their answers are not judged.

    name: of the panel. Raises DivwatchError if that is so for every prompt of a verifier, unless the prompts are those of a
    data set, whose columns may have another purpose (name None).
    """
    lines = []
    for verifier in dict.fromkeys(p.verifier for p in prompts if isinstance(p.verifier, str)):
        mine = [p for p in prompts if p.verifier == verifier]
        problems = {p.id: problem for p in mine if (problem := reference_problem(verifier, p.reference))}
        if not problems:
            continue
        first = next(iter(problems))
        found = (
            f"verifier {verifier!r} cannot judge {len(problems)} of {len(mine)} prompts ({first}: {problems[first]})"
        )
        if len(problems) == len(mine) and name is not None:
            raise DivwatchError(f"panel {name!r}: {found}: give 'reference' in each line, or leave 'verifier' out")
        lines.append(f"{found}; their answers count as neither right nor wrong")
    return "; ".join(lines) or None


def dropped_parts(tokenizer: Any, prompts: Sequence[Prompt], form: str) -> str | None:
    """One line about the prompts of which the chat template drops a turn or the tools; None if it drops none."""
    dropped = {p.id: parts for p in prompts if (parts := _dropped(tokenizer, p, form))}
    if not dropped:
        return None
    first, parts = next(iter(dropped.items()))
    return (
        f"the chat template drops a part of {len(dropped)} of {len(prompts)} prompts ({first}: {', '.join(parts)}): "
        "change the template, or take these parts out of the prompts"
    )


def _dropped(tokenizer: Any, prompt: Prompt, form: str) -> list[str]:
    if not is_chat(prompt, form):
        return []
    text = _spaced_once(prompt_text(tokenizer, prompt, form=form))
    parts = []
    for turn in prompt.messages or [{"role": "user", "content": prompt.text}]:
        said = _spaced_once(final_answer("".join(turn_texts(turn))) or "")
        if said and said not in text and json.dumps(said, ensure_ascii=False)[1:-1] not in text:
            parts.append(f"the turn of role {turn['role']!r}")
    names = [tool.get("function", tool).get("name") for tool in prompt.tools or ()]
    return parts + (["the tools"] if any(isinstance(name, str) and name not in text for name in names) else [])
