"""The chat templates of the Olmo 3 stages, to train with.

Each renders what Ai2's own renders (tests/mixes/rendered.json holds texts of theirs) and marks the assistant turns, closing
token included, for TRL's `assistant_only_loss`. The files also work without divwatch, as TRL's `chat_template_path`.

| name | stages | answers begin | without a system message |
|---|---|---|---|
| olmo3_think_sft | Think SFT | `<think>` is learned | Olmo's identity |
| olmo3_think | Think DPO and RL | after `<think>`, a part of the prompt | "You are a helpful AI assistant." |
| olmo3_instruct | all Instruct stages | at once | a function-calling assistant without functions |
| olmo3_rl_zero, olmo3_rl_zero_code | RL-Zero | plain text, no turns | none |
"""

from __future__ import annotations

from pathlib import Path

from divwatch.errors import DivwatchError

FOLDER = Path(__file__).parent


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.jinja"))


def chat_template(name: str) -> str:
    """The template of that name, or in that file. Raises DivwatchError, listing the known ones."""
    path = FOLDER / f"{name}.jinja" if name in names() else Path(name)
    if not path.is_file():
        raise DivwatchError(f"unknown chat_template {name!r}: choose from {', '.join(names())}, or give a .jinja file")
    return path.read_text(encoding="utf-8")
