"""The six tasks by name, one module each.

A module has NAME, `items()` (all prompts), STRATEGIES and TEMPLATES (the ways to answer), `core()` (the content of one
answer), `thought()` (its reasoning), `wrong()` (a corrupted core) and `check()` (the verifier; None if open-ended).
"""

from types import ModuleType

from divwatch.tiny.tasks import expression, formatting, listing, pair, story, word_problem

TASKS: dict[str, ModuleType] = {
    module.NAME: module for module in (pair, expression, listing, word_problem, formatting, story)
}
