"""A row of a data set becomes a prompt as TRL's trainers read it: tools, tool calls and template arguments included."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from divwatch.records import Prompt

# The columns that a prompt is made from, and the others that are read.
PROMPT_COLUMNS = ("prompt", "messages", "conversations", "chosen", "rejected")
COLUMNS = (
    *PROMPT_COLUMNS,
    "text",
    "id",
    "task",
    "reference",
    "verifier",
    "tools",
    "chat_template_kwargs",
    "image",
    "images",
)

USER = ("user", "human")
# The names that chat templates know, for those of ShareGPT and others: a template drops a role that it does not know.
_STANDARD = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
KNOWN_ROLES = ("user", "system", "developer", "assistant", "tool", "function", "ipython", "environment", "observation")
# A prompt ends before turns of these roles: the model's own, and instructions that ask nothing by themselves.
_ANSWERS = ("assistant", "gpt", "chatgpt", "bot", "model")
_INSTRUCTIONS = ("system", "developer")


class Unaskable(Exception):
    """A row that gives no prompt: "it has {reason}: {fix}"."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason}: {fix}")
        self.reason, self.fix = reason, fix


NO_PROMPT = ("neither 'prompt' nor 'messages' with a text in it", "add one of them")
NO_USER = ("no user turn", "add one")
BAD_TURN = ("a turn that is no message", "each turn needs the texts 'role' and 'content'")
NOT_TEXT = ("an image or another part that is not text", "give texts only")
NO_UNICODE = ("half a surrogate pair in its text", "write the text as UTF-8")
BAD_TOOLS = ("'tools' that are no list of JSON schemas", "give a list, or a list as a string of JSON")
BAD_ARGUMENTS = ("'chat_template_kwargs' that are no object", "give {name: value}")


def to_prompt(
    row: Mapping[str, Any],
    index: int,
    task: str,
    opening: str | None = None,
    template: Callable[[str], bool] = lambda text: False,
) -> Prompt:
    """The prompt of a row in any of TRL's formats, or in ShareGPT's: a text, or the turns before the last answer.

    Turns stay as they are, because the chat template must get what it gets in training. opening: what the template writes
    before an answer; a row of `text` alone is a prompt up to the last one. template: whether a text goes through the
    chat template, as a user's turn. Raises Unaskable.

    >>> row = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}
    >>> to_prompt(row, 0, "eval").messages
    [{'role': 'user', 'content': 'Why?'}]
    """
    row = {name: value for name, value in row.items() if value is not None}
    if row.get("images") or row.get("image"):
        raise Unaskable(*NOT_TEXT)
    asked: Any = rendered_prompt(row, opening) or _asked(_with_prompt(_as_chatml(row)))
    conversation = not isinstance(asked, str)
    text = _check_turns(asked) if conversation else asked
    if not text.strip():
        raise Unaskable(*NO_PROMPT)
    templated = not conversation and template(text)
    _check_unicode([text] if not conversation else [t for turn in asked for t in turn_texts(turn)])
    return Prompt(
        id=str(row.get("id", f"{task}/{index}")),
        task=str(row.get("task", task)),
        text=text,
        messages=asked if conversation else None,
        reference=row.get("reference"),
        verifier=row.get("verifier"),
        tools=_tools(row.get("tools")) if conversation or templated else None,
        template_kwargs=_template_kwargs(row.get("chat_template_kwargs")) if conversation or templated else None,
        templated=templated,
    )


def rendered_prompt(row: Mapping[str, Any], opening: str | None) -> str | None:
    """The prompt in a conversation that was rendered to `text`, the row's one column; None if it is not one.

    >>> rendered_prompt({"text": "<user>Why?<bot>So."}, "<bot>")
    '<user>Why?<bot>'
    """
    text = row.get("text")
    if not isinstance(text, str) or opening is None or any(row.get(column) for column in PROMPT_COLUMNS):
        return None
    head, opens, _ = text.rpartition(opening)
    return head + opens or None


def turn_texts(turn: Mapping[str, Any]) -> Iterator[str]:
    """The texts of a turn: its content, or the text parts of it."""
    content = turn.get("content", turn.get("value"))
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, Mapping) else part
            if isinstance(text, str):
                yield text


def _as_chatml(row: dict[str, Any]) -> dict[str, Any]:
    """The row with ShareGPT's names (`conversations`, `from`, `value`) changed to `messages`, `role` and `content`."""
    sides = {  # copies, because TRL renames in place
        name: [dict(turn) if isinstance(turn, Mapping) else turn for turn in row[name]]
        for name in PROMPT_COLUMNS
        if isinstance(row.get(name), list)
    }
    renamed = any(isinstance(turn, Mapping) and "from" in turn for turns in sides.values() for turn in turns)
    if not renamed and "conversations" not in sides:
        return row
    from trl.data_utils import maybe_convert_to_chatml

    converted: dict[str, Any] = maybe_convert_to_chatml(sides)
    return {name: value for name, value in row.items() if name != "conversations"} | converted


def _with_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the `prompt` that TRL extracts from a preference pair: what its sides have in common."""
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    beside = isinstance(prompt, str) and isinstance(chosen, list)  # a text beside conversations that hold it
    if not isinstance(chosen, str | list) or type(chosen) is not type(rejected) or (prompt and not beside):
        return row
    if not chosen or not rejected:
        return row
    from trl.data_utils import extract_prompt

    return row | {"prompt": extract_prompt({"chosen": chosen, "rejected": rejected})["prompt"] or prompt}


def _asked(row: dict[str, Any]) -> Any:
    """A text or turns, not empty."""
    asked = row.get("prompt") or _until_answer(row.get("messages"))
    if not asked:
        raise Unaskable(*(NO_USER if row.get("messages") else NO_PROMPT))
    if not isinstance(asked, str | list):
        raise Unaskable(*BAD_TURN)
    return asked


def with_known_roles(prompt: Prompt) -> Prompt:
    """The prompt with the roles that chat templates know in place of ShareGPT's: `human` becomes `user`."""
    if prompt.messages is None:
        return prompt
    turns = [{**turn, "role": _STANDARD.get(turn["role"], turn["role"])} for turn in prompt.messages]
    return replace(prompt, messages=turns)


def _until_answer(messages: Any) -> list[Any] | None:
    """A conversation up to its last turn that waits for an answer: the user's, or a tool's result."""
    if not isinstance(messages, list):
        return None
    waiting = [i for i, turn in enumerate(messages) if _role(turn) not in (*_ANSWERS, *_INSTRUCTIONS)]
    return messages[: waiting[-1] + 1] if waiting else None


def _check_turns(turns: list[Any]) -> str:
    """The text of the last user turn. Raises Unaskable for turns that cannot be rendered as text."""
    text = None
    for turn in turns:
        role, content = _role(turn), turn.get("content")
        if isinstance(content, list) and not all(_is_text(part) for part in content):
            raise Unaskable(*NOT_TEXT)
        if role in USER:
            if not isinstance(content, str | list):
                raise Unaskable(*BAD_TURN)
            text = "".join(turn_texts(turn))
    if text is None:
        raise Unaskable(*NO_USER)
    return text


def _check_unicode(texts: Iterable[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unaskable(*NO_UNICODE) from None


def _role(turn: Any) -> str:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        raise Unaskable(*BAD_TURN)
    return str(turn["role"])


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (
        isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
    )


def _tools(value: Any) -> list[Any] | None:
    """JSON schemas; TRL also reads them from a string of JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise Unaskable(*BAD_TOOLS) from None
    if value is not None and not (isinstance(value, list) and all(isinstance(tool, Mapping) for tool in value)):
        raise Unaskable(*BAD_TOOLS)
    return value


def _template_kwargs(value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise Unaskable(*BAD_ARGUMENTS)
    return dict(value) if value else None
