"""The completions in one row of another tool's file: a function for each format, and how the format is recognised.

verl       rollout and validation dumps of verl, `<step>.jsonl`: input, output, gts, score, step
trl        GRPOTrainer with log_completions, `completions_<step>.parquet`: step, prompt, completion, rewards, advantage
lm-eval    lm-evaluation-harness with --log_samples, `samples_<task>_<date>.jsonl`: doc, arguments, resps, metrics
lighteval  lighteval with --save-details, `details_<task>_<date>.parquet`: doc, model_response, metric
plain      NoveltyBench's generations.jsonl, a table of W&B, one's own: prompt, one text or several, score, step, task
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from divwatch.panel.rows import turn_texts

PROMPT = ("prompt", "input", "query", "question")
TEXT = ("completion", "output", "response", "generation", "answer_text")
TEXTS = ("completions", "outputs", "responses", "generations")
LAST_STEP = 2**53  # whole numbers up to here are the same as floats
SCORE = ("score", "reward", "correct", "is_correct", "exact_match", "acc", "pass")


class Unreadable(Exception):
    """A row that holds no completion; the text says what is missing."""


@dataclass(frozen=True)
class Output:
    """One completion. step: None if the row names none. score: None if it was not scored."""

    prompt: str
    text: str
    score: float | None
    step: int | None
    task: str | None


Row = Mapping[str, Any]
Reader = Callable[[Row, str | None], list[Output]]


def read_verl(row: Row, score: str | None) -> list[Output]:
    return [_output(row, row["input"], row["output"], _number(row.get(score or "score")))]


def read_trl(row: Row, score: str | None) -> list[Output]:
    names = reward_names(row)
    name = score or (names[0] if names else None)
    return [_output(row, row["prompt"], row["completion"], _number(row.get(name)) if name else None)]


def reward_names(row: Row) -> list[str]:
    """The columns of a TRL row that hold rewards: numbers between the completion and the advantage, in their order."""
    columns = list(row)
    end = columns.index("advantage") if "advantage" in columns else len(columns)
    between = columns[columns.index("completion") + 1 : end]
    return [name for name in between if _number(row[name]) is not None or row[name] is None]


def read_lm_eval(row: Row, score: str | None) -> list[Output]:
    texts = [text for response in row["resps"] for text in (response if isinstance(response, list) else [response])]
    name = score or next((n for n in row.get("metrics") or () if n in row), None)
    value = _number(row.get(name)) if name else _first(row, SCORE)
    # A metric of several responses is their mean or a vote: it says of none whether it is correct.
    return [_output(row, _lm_eval_prompt(row["arguments"]), text, value if len(texts) == 1 else None) for text in texts]


def _lm_eval_prompt(arguments: Any) -> Any:
    """The first argument of the first request: [[prompt, ...]], or {"gen_args_0": {"arg_0": prompt, ...}}."""
    first = (list(arguments.values()) if isinstance(arguments, Mapping) else arguments)[0]
    prompt = first.get("arg_0") if isinstance(first, Mapping) else first[0]
    if isinstance(prompt, str) and prompt.startswith("[{"):  # a conversation, written as JSON
        try:
            return json.loads(prompt)
        except ValueError:
            return prompt
    return prompt


def read_lighteval(row: Row, score: str | None) -> list[Output]:
    doc, response, metric = (_lighteval_part(row, name) for name in LIGHTEVAL)
    texts = response.get("text") or []
    texts = [texts] if isinstance(texts, str) else list(texts)
    value = (
        _number(metric.get(score)) if score else next((v for v in map(_number, metric.values()) if v is not None), None)
    )
    task = str(doc.get("task_name") or row.get("task") or "") or None
    outputs = [_output(row, doc.get("query"), text, value if len(texts) == 1 else None) for text in texts]
    return [Output(o.prompt, o.text, o.score, o.step, task or o.task) for o in outputs]


def _lighteval_part(row: Row, name: str) -> Mapping[str, Any]:
    return _struct(row[f"__{name}__"] if f"__{name}__" in row else row.get(name))


LIGHTEVAL = ("doc", "model_response", "metric")


def read_plain(row: Row, score: str | None) -> list[Output]:
    prompt = next((row[name] for name in PROMPT if row.get(name)), None)
    if prompt is None and row.get("messages"):
        prompt = row["messages"]
    many = next((row[name] for name in TEXTS if _is_list(row.get(name)) and not _is_turns(row[name])), None)
    one = next((row[name] for name in TEXT if row.get(name) is not None), None)
    texts = list(many) if many is not None else [one]
    scores: Any = row.get(score) if score else next((row[n] for n in (*SCORE, "scores", "rewards") if n in row), None)
    each = list(scores) if _is_list(scores) else [scores] * len(texts)
    if len(each) != len(texts) or (many is not None and not _is_list(scores) and len(texts) > 1):
        each = [None] * len(texts)
    return [_output(row, prompt, text, _number(value)) for text, value in zip(texts, each, strict=True)]


def _is_verl(row: Row) -> bool:
    return isinstance(row.get("input"), str) and isinstance(row.get("output"), str) and "score" in row


def _is_trl(row: Row) -> bool:
    return {"step", "prompt", "completion", "advantage"} <= set(row)


def _is_lm_eval(row: Row) -> bool:
    return {"arguments", "resps"} <= set(row)


def _is_lighteval(row: Row) -> bool:
    return any({left + name + right for name in LIGHTEVAL} <= set(row) for left, right in (("", ""), ("__", "__")))


def _is_plain(row: Row) -> bool:
    return any(name in row for name in (*PROMPT, "messages")) and any(name in row for name in (*TEXT, *TEXTS))


# The first that fits is taken.
FORMATS: dict[str, tuple[Callable[[Row], bool], Reader]] = {
    "trl": (_is_trl, read_trl),
    "lm-eval": (_is_lm_eval, read_lm_eval),
    "lighteval": (_is_lighteval, read_lighteval),
    "verl": (_is_verl, read_verl),
    "plain": (_is_plain, read_plain),
}


def format_of(row: Row) -> str | None:
    """The format that a row is in; None if it is in none."""
    return next((name for name, (fits, _) in FORMATS.items() if fits(row)), None)


def read_row(row: Row, form: str, score: str | None) -> list[Output]:
    """The completions of a row in the format `form`. Raises Unreadable for a row that is not in it."""
    try:
        return FORMATS[form][1](row, score)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise Unreadable(f"no {form} row ({type(error).__name__}: {error})") from None


def score_columns(row: Row, form: str) -> dict[str, bool]:
    """The columns of a row that may be named as its score, and whether each holds a number."""
    if form == "lighteval":
        row = _lighteval_part(row, "metric")
    return {
        str(name): any(_number(part) is not None for part in (value if _is_list(value) else [value]))
        for name, value in row.items()
    }


def _output(row: Row, prompt: Any, text: Any, score: float | None) -> Output:
    asked, answer = _as_text(prompt), _as_text(text, answer=True)
    if asked is None or not asked.strip():
        raise Unreadable("no prompt")
    if answer is None:
        raise Unreadable("no completion")
    task = row.get("task")
    return Output(asked, answer, score, _step(row.get("step")), str(task) if task else None)


def _step(value: Any) -> int | None:
    """A row's step; None if it names none.

    >>> _step("3"), _step(2.0), _step(None), _step(float("nan"))
    (3, 2, None, None)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    step = None if isinstance(value, bool) else _number(value)
    if step is None or step != int(step) or not 0 <= step <= LAST_STEP:
        raise Unreadable("a step that is no whole number from 0")
    return int(step)


def _as_text(value: Any, answer: bool = False) -> str | None:
    """A text; the turns of a conversation as JSON, or of an answer the texts of its turns."""
    if isinstance(value, str):
        text = value
    elif _is_turns(value):
        turns = [dict(turn) for turn in value]
        text = "\n".join(t for turn in turns for t in turn_texts(turn)) if answer else json.dumps(turns, default=str)
    else:
        return None
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_turns(value: Any) -> bool:
    return _is_list(value) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _struct(value: Any) -> Mapping[str, Any]:
    """A struct of a parquet file, which some versions write as a text of JSON."""
    read = json.loads(value) if isinstance(value, str) else value
    return read if isinstance(read, Mapping) else {}


def _first(row: Row, names: Sequence[str]) -> float | None:
    return next((value for name in names if (value := _number(row.get(name))) is not None), None)


def _number(value: Any) -> float | None:
    """A finite number; flags and texts of numbers count."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
