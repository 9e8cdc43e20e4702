"""Which prompts two runs share: those with the same id that ask the same. Two eval_datasets both have an `eval/0`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from divwatch.records import PromptScores

Info = Mapping[str, Any]


def recorded_prompts(info: Info) -> dict[str, dict[str, Any]]:
    """Prompt id -> prompt, as run.json holds them; empty if it does not say."""
    panel = info.get("panel")
    prompts = panel.get("prompts") if isinstance(panel, Mapping) else None
    rows = prompts if isinstance(prompts, list) else []
    return {str(prompt["id"]): prompt for prompt in rows if isinstance(prompt, dict) and "id" in prompt}


def asks_the_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two recorded prompts ask the same. Records of older versions hold the text of a prompt alone.

    >>> asks_the_same({"text": "Why?"}, {"text": "Why?", "messages": []}), asks_the_same({"text": "Why?"}, {"text": "How?"})
    (True, False)
    """
    known = [name for name in ("text", "messages", "tools") if name in one and name in other]
    return all(_present(one[name]) == _present(other[name]) for name in known)


def _present(value: Any) -> Any:
    """A conversation without the empty fields that a table pads its turns with."""
    if isinstance(value, Mapping):
        return {name: _present(part) for name, part in value.items() if part is not None}
    return [_present(part) for part in value] if isinstance(value, list) else value


def other_prompts(info: Info, earlier: Info) -> set[str]:
    """The ids that two runs share although they ask something else under them."""
    mine, theirs = recorded_prompts(info), recorded_prompts(earlier)
    return {id for id in mine.keys() & theirs.keys() if not asks_the_same(mine[id], theirs[id])}


def shares_no_prompt(info: Info, earlier: Info) -> bool:
    """Whether two runs, both of which say what they ask, share no prompt: nothing of them can be compared."""
    mine, theirs = recorded_prompts(info), recorded_prompts(earlier)
    return bool(mine and theirs) and not (mine.keys() & theirs.keys()) - other_prompts(info, earlier)


def ids_to_pair(runs: Sequence[Info]) -> list[dict[str, str]]:
    """For each run of a lineage, oldest first: recorded id -> id to pair by, of the ids that ask something new.

    >>> first, second = ({"panel": {"prompts": [{"id": "eval/0", "text": text}]}} for text in ("Why?", "How?"))
    >>> ids_to_pair([first, second, second])
    [{}, {'eval/0': 'eval/0 (2)'}, {'eval/0': 'eval/0 (2)'}]
    """
    known: dict[str, list[Mapping[str, Any]]] = {}
    renamed: list[dict[str, str]] = []
    for info in runs:
        names = {}
        for id, prompt in recorded_prompts(info).items():
            seen = known.setdefault(id, [])
            number = next((n for n, earlier in enumerate(seen) if asks_the_same(prompt, earlier)), len(seen))
            if number == len(seen):
                seen.append(prompt)
            if number:
                names[id] = f"{id} ({number + 1})"
        renamed.append(names)
    return renamed


def without(scores: PromptScores, ids: set[str]) -> PromptScores:
    """The scores without the prompts `ids`."""
    rows = [i for i, id in enumerate(scores.ids) if id not in ids]
    columns = {key: column[rows] for key, column in scores.values.items()}
    return PromptScores([scores.ids[i] for i in rows], [scores.tasks[i] for i in rows], columns)
