"""Rows of the Olmo 3 data sets become TRL's rows: pure functions, one for each kind of stage.

A row becomes a TRL row or raises `Dropped` with the reason; each correction on the way is reported by name. All problems
handled here occur in the released data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Report = Callable[[str], None]
Adapter = Callable[[Row, Report], Row]


class Dropped(Exception):
    """A row that cannot be trained on; the message is the reason it is counted under."""


# reasons
NO_MESSAGE = "a turn is no message"
NO_CONTENT = "a turn has no content"
NO_ANSWER = "no assistant turn"
EMPTY_ANSWER = "an assistant turn is empty"
IDENTICAL = "chosen and rejected are identical"
DIFFERENT_PROMPTS = "chosen and rejected answer different prompts"
PICKLED = "test cases are pickled, and nothing is unpickled"
SEVERAL_VERIFIERS = "several verifiers"
NO_REFERENCE = "no readable ground truth"
TOO_LONG = "no room for an answer within the token limit"

# corrections
EXTRA_FIELDS = "message fields beyond role and content left out"
CUT_AFTER_ANSWER = "turns after the last answer left out"
STRING_PROMPT = "the prompt beside the conversations left out"
ROLE_PREFIX = "the prefix 'user: ' taken off the prompt"
TURNS_SPLIT = "a prompt of several turns split into messages"


def supervised(row: Row, report: Report) -> Row:
    """SFT: `messages`, tool turns with the `functions` and `function_calls` that Olmo's template renders.

    A tool call may have no content, and functions stand on the system (or user) message; TRL's `tools` column is another
    form and is not used.
    """
    turns = _turns_of(row, "messages") or [*_turns_of(row, "prompt"), *_turns_of(row, "completion")]
    messages = [_message(m, tools=True) for m in turns]
    last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=None)
    if last is None:
        raise Dropped(NO_ANSWER)
    for message in messages[: last + 1]:
        text = message["content"] or message["function_calls"]
        if message["role"] == "assistant" and not (text and text.strip()):
            raise Dropped(EMPTY_ANSWER)
    if last + 1 < len(messages):
        report(CUT_AFTER_ANSWER)
    return {"messages": messages[: last + 1]}


def preference(row: Row, report: Report) -> Row:
    """DPO: one prompt as messages, and the last turn of each conversation as the answer.

    Think DPO holds the prompt a second time as a string, beside which TRL would not split the conversations; Instruct DPO
    holds some 24 more fields in each message and some pairs whose sides are the same.
    """
    if any(isinstance(m, dict) and len(m) > 2 for side in ("chosen", "rejected") for m in _turns_of(row, side)):
        report(EXTRA_FIELDS)
    if isinstance(row.get("prompt"), str):
        report(STRING_PROMPT)
    before = _turns_of(row, "prompt")  # TRL's own form
    chosen, rejected = ([_message(m) for m in [*before, *_turns_of(row, side)]] for side in ("chosen", "rejected"))
    if not chosen or not rejected or not chosen[-1]["role"] == rejected[-1]["role"] == "assistant":
        raise Dropped(NO_ANSWER)
    if chosen[:-1] != rejected[:-1] or not chosen[:-1]:
        raise Dropped(DIFFERENT_PROMPTS)
    if chosen == rejected:
        raise Dropped(IDENTICAL)
    if not chosen[-1]["content"].strip() or not rejected[-1]["content"].strip():
        raise Dropped(EMPTY_ANSWER)
    return {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


# Value of `dataset` -> (name of its verifier in divwatch.verify, reader of the reference from ground truth and prompt).
# Programs that read and write have no verifier. The ground truth of general-quality is not an answer to compare with.
RL_DATASETS: dict[str, tuple[str | None, Callable[[Any, str], Any]]] = {
    "math": ("math", lambda truth, prompt: _plain_answer(truth)),
    "code": ("mbpp", lambda truth, prompt: {"test_list": _tests(truth)}),
    "code_stdio": (None, lambda truth, prompt: _tests(truth)),
    "ifeval": ("ifeval", lambda truth, prompt: {"prompt": prompt, **_constraints(truth)}),
    "general-quality": ("judge", lambda truth, prompt: None),
    "general-quality_ref": ("judge", lambda truth, prompt: _plain_answer(truth)),
}


def reinforcement(row: Row, report: Report) -> Row:
    """RL: the prompt as messages, `dataset`, the name of the `verifier` and, as JSON, the `reference` that it compares with.

    `prompt` is a string of turns, each after its role ('user: ...'); `ground_truth` and `dataset` are lists of one.
    """
    messages = [_message(m) for m in _turns_of(row, "messages")] or _split(row.get("prompt"), report)
    if messages[-1]["role"] == "assistant":  # rows made from conversations hold the answer too
        messages = messages[:-1]
    if not messages or not messages[-1]["content"].strip():
        raise Dropped(NO_CONTENT)
    names, truths = _listed(row.get("dataset")), _listed(row.get("ground_truth"))
    if len(names) != 1 or len(truths) != 1 or not isinstance(names[0], str):
        raise Dropped(SEVERAL_VERIFIERS if len(names) > 1 else NO_REFERENCE)
    reference = reference_of(names[0], truths[0], messages[-1]["content"])
    return {
        "prompt": messages,
        "dataset": names[0],
        "verifier": RL_DATASETS[names[0]][0] if names[0] in RL_DATASETS else None,
        "reference": json.dumps(reference),
    }


def reference_of(dataset: str, ground_truth: Any, prompt: str = "") -> Any:
    """The ground truth in the form that the verifier takes. Raises Dropped if it cannot be read.

    >>> reference_of("code", '["assert f(1) == 2"]')
    {'test_list': ['assert f(1) == 2']}
    >>> reference_of("ifeval", "[{'instruction_id': ['detectable_format:title'], 'kwargs': [None]}]", "Write.")
    {'prompt': 'Write.', 'instruction_id_list': ['detectable_format:title'], 'kwargs': [{}]}
    """
    if dataset not in RL_DATASETS:
        return _plain_answer(ground_truth)
    return RL_DATASETS[dataset][1](ground_truth, prompt)


def _plain_answer(ground_truth: Any) -> str:
    if isinstance(ground_truth, bool) or not isinstance(ground_truth, (str, int, float)):
        raise Dropped(NO_REFERENCE)
    return str(ground_truth)


ADAPTERS: dict[str, Adapter] = {"sft": supervised, "preference": preference, "rl": reinforcement}
COLUMNS = {"sft": ("messages",), "preference": ("chosen", "rejected"), "rl": ("prompt", "ground_truth")}


def _turns_of(row: Row, column: str) -> list[Any]:
    value = row.get(column)
    return value if isinstance(value, list) else []


def _message(message: Any, tools: bool = False) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Dropped(NO_MESSAGE)
    content = message.get("content")
    calls = _text(message.get("function_calls")) if tools else None
    if not isinstance(content, str) and not (content is None and calls):
        raise Dropped(NO_CONTENT)
    turn = {"role": message["role"], "content": content}
    return turn | {"functions": _text(message.get("functions")), "function_calls": calls} if tools else turn


def _text(value: Any) -> str | None:
    """Functions and calls are text in the released rows; a structured form is written as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


_TURN = re.compile(r"(?:^|\n)(system|user|assistant): ")


def _split(prompt: Any, report: Report) -> list[dict[str, Any]]:
    """The messages of 'user: ...\\nassistant: ...\\nuser: ...'. Roles that do not alternate are words of one user turn."""
    if not isinstance(prompt, str):
        raise Dropped(NO_CONTENT)
    parts = _TURN.split(prompt)
    roles, texts = parts[1::2], parts[2::2]
    if parts[0] or not roles:
        return [{"role": "user", "content": prompt}]
    talk = roles[1:] if roles[0] == "system" else roles
    alternate = all(role == ("user", "assistant")[i % 2] for i, role in enumerate(talk))
    if len(roles) == 1 or not alternate or talk[-1:] != ["user"]:
        report(ROLE_PREFIX)
        return [{"role": "user", "content": prompt.removeprefix("user: ")}]
    report(TURNS_SPLIT)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _constraints(text: Any) -> dict[str, Any]:
    """IFEval's constraints: a Python literal in the data, IFEval's own names and no empty arguments here."""
    import ast

    try:
        value = ast.literal_eval(text)
        entry = value[0] if isinstance(value, list) else value
        entry = json.loads(entry) if isinstance(entry, str) else entry
        names, arguments = list(entry["instruction_id"]), list(entry["kwargs"])
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, RecursionError):
        raise Dropped(NO_REFERENCE) from None
    if len(names) != len(arguments) or not names:
        raise Dropped(NO_REFERENCE)
    kwargs = [{k: v for k, v in (a or {}).items() if v is not None} for a in arguments]
    return {"instruction_id_list": names, "kwargs": kwargs}


def _tests(text: Any) -> list[Any]:
    """Test cases: assert statements, or {"input", "output"} for programs that read and write.

    Some rows hold base64 of a zlib stream of a pickle instead. A pickle can run code when it is read, so these are dropped.
    """
    try:
        tests = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        raise Dropped(PICKLED if _is_compressed(text) else NO_REFERENCE) from None
    if not isinstance(tests, list) or not tests:
        raise Dropped(NO_REFERENCE)
    return tests


def _is_compressed(text: str) -> bool:
    import base64
    import binascii

    try:
        start = base64.b64decode(text[:64], validate=True)
    except (binascii.Error, ValueError):
        return False
    return start[:1] == b"\x78"  # the first byte of a zlib stream
