"""Which prompts a run watches: held out from its training data, within the model's context, shared with its parent run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from divwatch.analysis.alarm import missing_alarms
from divwatch.analysis.history import ALARM_METRICS
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError, one_line
from divwatch.monitor.description import RunDescription
from divwatch.monitor.panel_of_run import prompts_to_inherit
from divwatch.outputs.terminal import asked_line, say
from divwatch.panel import choose, load_panel
from divwatch.panel.form import (
    answer_opening,
    fixed_form,
    in_form,
    in_forms,
    prompt_text,
    refusals,
    with_chat,
    within_context,
)
from divwatch.panel.held_out import HeldOutCheck
from divwatch.panel.problems import dropped_parts
from divwatch.panel.sources import Note, quiet
from divwatch.records import Prompt
from divwatch.sampling.memory import context_length
from divwatch.sampling.tokens import tokenizer_of
from divwatch.store.pairing import asks_the_same, recorded_prompts
from divwatch.store.run_directory import RunDirectory
from divwatch.words import counted

FEW_PROMPTS = 32  # a rule of thumb: with fewer, the choice of prompts moves a mean more than a change of a tenth does


class PanelChoice:
    """Candidates from the panel, and the choice among them once the training data has been searched.

    note: gets a line about what of the panel is left out. Raises DivwatchError if the panel cannot be read or asked.
    """

    def __init__(self, trainer: Any, config: WatchConfig, note: Note = quiet) -> None:
        self.trainer, self.config = trainer, config
        # Twice as many as are watched: they replace those that are not held out.
        count = 2 * config.prompts
        self.tokenizer = tokenizer_of(trainer)
        self.form = fixed_form(config.form, self.tokenizer)
        self.name, panel = self._inherited(note) or self._own(count, note)
        self.chat = chat_of(trainer)
        panel = with_chat(in_form(panel, self.form), self.chat)
        self.candidates = choose(panel, count, config.seed)
        if refusals(self.tokenizer, self.candidates, self.form):
            self.candidates = choose(self._without_refused(panel, note), count, config.seed)
        if (dropped := dropped_parts(self.tokenizer, self.candidates, self.form)) is not None:
            note(dropped)
        self._check: HeldOutCheck | None = None

    def _own(self, count: int, note: Note) -> tuple[str, list[Prompt]]:
        dataset, opening = getattr(self.trainer, "eval_dataset", None), answer_opening(self.tokenizer)
        spec = self.config.panel if self.config.rows is None else self.config.rows
        return load_panel(spec, dataset, count, note, opening)

    def _inherited(self, note: Note) -> tuple[str, list[Prompt]] | None:
        """The panel of the run that this one continues, if the settings name no other; None without such a run."""
        try:
            parent = RunDescription(self.trainer, self.config).parent
        except DivwatchError:  # a wrong `baseline`, which opening the run reports
            return None
        if parent is None or self.config.panel is not None or self.config.rows is not None:
            return None
        try:
            name, prompts = prompts_to_inherit(parent)
        except (DivwatchError, OSError, KeyError, TypeError) as error:
            note(f"cannot ask the prompts of the run before, {parent.path} ({one_line(error, kind=False)})")
            return None
        note(f"asks the prompts of the run before, {parent.path} (panel {name}); watch_panel names others")
        return name, prompts

    def _without_refused(self, panel: Sequence[Prompt], note: Note) -> list[Prompt]:
        refused = refusals(self.tokenizer, panel, self.form)
        first = next(iter(refused.values()))
        if len(refused) == len(panel):
            raise first
        note(f"{len(refused)} of {counted(len(panel), 'prompt')} are left out: {first}")
        return [p for p in panel if p.id not in refused]

    def search_training_data(self) -> None:
        """Starts the search of the training data for the candidates, in the background."""
        dataset = self.trainer.train_dataset if self.config.held_out != "off" else None
        self._check = HeldOutCheck(self.candidates, dataset, self.tokenizer)

    def searched(self, seconds: float) -> bool:
        """Waits at most `seconds` for the search; returns whether it is done."""
        return self._check is None or self._check.done(seconds)

    @property
    def described(self) -> dict[str, Any]:
        """What run.json says of the panel besides its prompts."""
        return {"name": self.name} | ({} if self.chat is None else {"chat": self.chat})

    @property
    def overlap(self) -> dict[str, Any] | None:
        """The result of the search for run.json; None if nothing was searched."""
        return self._check.report.as_dict() if self._check is not None and self._check.report is not None else None

    def choose(self, parent: RunDirectory | None) -> list[Prompt]:
        """The prompts to watch, each in every form that `thinking` asks for."""
        config, prompts = self.config, self._held_out(self._shared_with(parent))
        context = context_length(self.trainer.model)
        if context is not None:
            prompts, warning = within_context(
                self.tokenizer, prompts, context, config.max_new_tokens, config.thinking, self.form, config.think_tokens
            )
            if warning is not None:
                say(f"divwatch: {warning}")
        chosen = choose(prompts, config.prompts, config.seed)
        if len(chosen) < FEW_PROMPTS:
            say(f"divwatch: only {counted(len(chosen), 'prompt')}: intervals will be wide; use {FEW_PROMPTS} or more")
        if note := missing_alarms([prompt.task for prompt in chosen]):
            say(f"divwatch: {note}")
        if not set(ALARM_METRICS) & set(config.metrics):
            note = f"watch_metrics has none of {', '.join(ALARM_METRICS)}, so no alarm can be raised"
            say(f"divwatch: {config.as_written(note)}")
        asked = in_forms(chosen, config.thinking)
        say(asked_line(prompt_text(self.tokenizer, asked[0], asked[0].thinking, self.form), self.form, len(asked)))
        return asked

    def _shared_with(self, parent: RunDirectory | None) -> list[Prompt]:
        """The candidates that the parent run watched, so that stages can be compared; all if it watched none."""
        if parent is None:
            return list(self.candidates)
        theirs = recorded_prompts(parent.info())
        shared = [p for p in self.candidates if p.id in theirs and asks_the_same(p.to_json(), theirs[p.id])]
        if not shared:
            line = (
                f"divwatch: panel {self.name} shares no prompt with the run before, {parent.path}: this run is not compared "
                "with it; name the same watch_panel in both, or none here"
            )
            say(self.config.as_written(line))
        return shared or list(self.candidates)

    def _held_out(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Without the prompts that overlap the training data, if `held_out` says so."""
        check, drop = self._check, self.config.held_out == "drop"
        if check is None:
            return list(prompts)
        if check.error is not None:
            raise DivwatchError(str(check.error))
        if check.report is not None and check.report.contaminated:
            say(f"divwatch: {check.report.line}" + ("; dropped" if drop else ""))
            return check.report.held_out(prompts) if drop else list(prompts)
        if check.streamed and self.config.held_out != "off":
            say(
                "divwatch: streamed training data is not searched for the prompts; "
                "use divwatch panel check --against to search a copy"
            )
        return list(prompts)


def chat_of(trainer: Any) -> dict[str, Any] | None:
    """The `tools` and `template_kwargs` that a trainer renders every prompt with, whatever its row says (GRPO, RLOO).

    None: the rows decide (SFT, DPO).
    """
    if not hasattr(trainer, "chat_template_kwargs"):
        return None
    from transformers.utils import get_json_schema

    tools = [get_json_schema(tool) if callable(tool) else tool for tool in getattr(trainer, "tools", None) or ()]
    return {"tools": tools or None, "template_kwargs": trainer.chat_template_kwargs or None}
