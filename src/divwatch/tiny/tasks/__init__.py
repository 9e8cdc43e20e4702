"""The six tasks, by name. Each module has NAME, items(), STRATEGIES, TEMPLATES, wrong() and judge() (None: open-ended)."""

from types import ModuleType

from divwatch.tiny.tasks import expression, formatting, listing, pair, story, word_problem

TASKS: dict[str, ModuleType] = {
    module.NAME: module for module in (pair, expression, listing, word_problem, formatting, story)
}
