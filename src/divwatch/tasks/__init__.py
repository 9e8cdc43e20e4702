"""The tasks by name, and the named panels made of them.

A task is one object in one of the family modules: every `Task` there is found here. Prompts are worded as in the paper's
public code (ckarouzos/where-diversity-collapses @ f193bfa, src/evaluation/lighteval_*_tasks.py): zero-shot, up to 500
prompts per task, the same words in chat and in plain form. Revisions of the hub sets are commits pinned in public code
(docs/panel.md has the sources).
"""

from __future__ import annotations

from divwatch.tasks import chat, code, reasoning, summaries
from divwatch.tasks.code import CRUXEVAL, HUMANEVAL, MBPP
from divwatch.tasks.reasoning import GSM8K, MATH_ALGEBRA, MATH_GEOMETRY
from divwatch.tasks.task import Task

TASKS: dict[str, Task] = {
    task.name: task
    for family in (summaries, code, reasoning, chat)
    for task in vars(family).values()
    if isinstance(task, Task)
}
PAPER = tuple(task for task in TASKS.values() if task.published)
PANELS: dict[str, tuple[Task, ...]] = {
    "paper": PAPER,
    "verifiable": (GSM8K, MATH_ALGEBRA, MATH_GEOMETRY, HUMANEVAL, MBPP, CRUXEVAL),
    "open": tuple(task for task in TASKS.values() if task.verifier is None),
}


def find_task(name: str) -> Task | None:
    """The task with this name or alias, ignoring case and punctuation; None if there is none.

    >>> find_task("MATH-Alg").name, find_task("CNN/DM").name, find_task("my_task")
    ('math_algebra', 'cnn_dailymail', None)
    """
    return _BY_PLAIN_NAME.get(_plain(name))


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


_BY_PLAIN_NAME = {_plain(name): task for task in TASKS.values() for name in (task.name, *task.aliases)}
