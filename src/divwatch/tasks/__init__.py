"""The tasks by name, and the named panels made of them.

Prompts are worded as the paper's public code words them (ckarouzos/where-diversity-collapses @ f193bfa, src/evaluation/
lighteval_*_tasks.py): zero-shot, up to 500 prompts a task, the same words in chat and in plain form. Revisions of the hub
sets are commits pinned in public code (docs/panel.md names where).
"""

from __future__ import annotations

from divwatch.tasks.chat import ALPACA, IFEVAL, NOVELTYBENCH, PRISM, WILDBENCH, WRITINGPROMPTS
from divwatch.tasks.code import CRUXEVAL, HUMANEVAL, MBPP
from divwatch.tasks.reasoning import GSM8K, MATH_ALGEBRA, MATH_GEOMETRY, TRUTHFULQA
from divwatch.tasks.summaries import CNN_DAILYMAIL, TLDR, XSUM
from divwatch.tasks.task import Task

PAPER = (
    TLDR, CNN_DAILYMAIL, XSUM, HUMANEVAL, MBPP, CRUXEVAL, GSM8K, MATH_ALGEBRA, MATH_GEOMETRY, TRUTHFULQA, ALPACA, IFEVAL,
    WRITINGPROMPTS, PRISM, WILDBENCH,
)  # fmt: skip
TASKS: dict[str, Task] = {task.name: task for task in (*PAPER, NOVELTYBENCH)}

PANELS: dict[str, tuple[Task, ...]] = {
    "paper": PAPER,
    "verifiable": (GSM8K, MATH_ALGEBRA, MATH_GEOMETRY, HUMANEVAL, MBPP, CRUXEVAL),
    "open": (TLDR, CNN_DAILYMAIL, XSUM, ALPACA, WRITINGPROMPTS, PRISM, WILDBENCH, NOVELTYBENCH),
}
