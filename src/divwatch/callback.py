"""The trainer callback: when to look, and what a look does, in this order:

sample -> store completions -> verify -> score -> store scores -> assess -> log, alert, act
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.look import describe_run, load_models, take_look
from divwatch.panel import choose, load_panel
from divwatch.records import PromptSamples, PromptScores
from divwatch.store import NAME, RunDirectory, find_parent, lineage_of
from divwatch.terminal import bar_of, event_message, look_line, say
from divwatch.tracking import LOGGED_GROUPS, WandbLog, assessment_scalars, log_to_trainer, look_scalars, table_rows

if TYPE_CHECKING:
    from divwatch.analysis.assess import Assessment


def watch(trainer: Any, **settings: Any) -> DiversityCallback:
    """Attach a monitor to a transformers or TRL trainer of a causal language model; returns the callback.

        divwatch.watch(trainer, every=100)

    Settings are those of `WatchConfig`. Raises DivwatchError for a wrong one, before training starts.
    """
    callback = DiversityCallback(trainer, WatchConfig.from_settings(**settings))
    trainer.add_callback(callback)
    return callback


class DiversityCallback(TrainerCallback):
    """Looks before the first step, every `config.every` steps, and after the last.

    Results go to `<output_dir>/divwatch/`, to the trainer's log and to its trackers. `assessment` holds the newest verdict.
    """

    def __init__(self, trainer: Any, config: WatchConfig | None = None, mix: str | None = None) -> None:
        self.trainer = trainer
        self.mix = mix
        self.config = config or WatchConfig()
        self.assessment: Assessment | None = None
        if trainer.accelerator.num_processes > 1:
            raise DivwatchError("divwatch watches one process so far: launch with --num_processes 1")
        if trainer.processing_class is None:
            raise DivwatchError("the trainer has no tokenizer: give it one as processing_class")
        self.panel_name, panel = load_panel(self.config.panel, getattr(trainer, "eval_dataset", None))
        self.prompts = choose(panel, self.config.prompts, self.config.seed)
        self.store = RunDirectory(Path(trainer.args.output_dir) / NAME)
        self._models = load_models(self.config, str(trainer.args.device))
        self._wandb = WandbLog()
        self._scores: dict[int, PromptScores] = {}
        self._comparable: dict[int, bool] = {}
        self._alarms: set[tuple[str, str]] = set()
        self._blocked = 0.0
        self._started = time.monotonic()
        self._offset = 0
        self._scalars: dict[str, float] = {}
        self._samples: list[PromptSamples] = []

    # when

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._every = self.config.steps_between_looks(state.max_steps)
        self._max_looks = 2 + (state.max_steps - 1) // self._every
        self._open_store(state)
        self._started = time.monotonic()
        if state.global_step not in self._comparable:
            self._look(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every == 0 or state.global_step >= state.max_steps:
            self._look(control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # With load_best_model_at_end the weights are by now another step's.
        if state.global_step not in self._comparable and not args.load_best_model_at_end:
            self._look(control)
        self._finish()

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Makes `metric_for_best_model: correct_diversity/all/sbert` and the like work: evaluate() returns these metrics."""
        wanted = (args.metric_for_best_model or "").removeprefix("eval_").split("/")[0]
        if metrics is None or wanted not in LOGGED_GROUPS:
            return
        if state.global_step not in self._comparable:
            self._look(control)
        if state.global_step in self._scores:
            metrics.update({f"eval_{name}": value for name, value in self._scalars.items()})

    # the record

    def _open_store(self, state: Any) -> None:
        parent = self._find_parent()
        if self.store.exists and state.global_step > 0:
            self._resume(state.global_step)
        else:
            self.store.create(self._describe_run(state, parent))
        chain = lineage_of(self.store)[:-1]
        self._offset = sum(run.info()["max_steps"] for run in chain)

    def _find_parent(self) -> RunDirectory | None:
        if self.config.baseline is None:
            return find_parent(_model_path(self.trainer))
        parent = RunDirectory.of(self.config.baseline)
        if not parent.exists:
            raise DivwatchError(
                f"watch_baseline {self.config.baseline!r} holds no divwatch run: give its output directory"
            )
        return parent

    def _resume(self, step: int) -> None:
        self.store.forget_after(step)
        for look in self.store.looks():
            self._comparable[look["step"]] = look["status"] == "ok"
            if look["status"] != "failed":
                self._scores[look["step"]] = self.store.scores(look["step"])
        self._alarms = {(event["task"], event["key"]) for event in self.store.events()}

    def _describe_run(self, state: Any, parent: RunDirectory | None) -> dict[str, Any]:
        arguments = self.trainer.args
        return describe_run(
            stage=self.config.stage or _stage(self.trainer),
            lineage=self.config.lineage or (parent.info()["lineage"] if parent else Path(arguments.output_dir).name),
            model=str(_model_path(self.trainer)),
            output_dir=arguments.output_dir,
            parent=parent,
            config=self.config,
            panel_name=self.panel_name,
            prompts=self.prompts,
            max_steps=state.max_steps,
            mix=self.mix,
            seeds={"train": arguments.seed, "data": arguments.data_seed, "watch": self.config.seed},
            trainer=type(self.trainer).__name__,
            wandb=self._wandb.configure(self.config.as_dict()),
        )

    # a look

    def _look(self, control: Any) -> None:
        """A look that fails is recorded with its reason; training goes on."""
        step, started = self.trainer.state.global_step, time.monotonic()
        self._comparable[step] = False
        try:
            look = self._take_look(step)
            self.store.append_look(look)
        except Exception as error:
            if self.config.on_error == "raise":
                raise
            self._record_failure(step, started, error)
            return
        finally:
            self._blocked += time.monotonic() - started
        try:
            self._report(look, control)
        except Exception as error:  # the look itself is safely stored
            if self.config.on_error == "raise":
                raise
            say(f"divwatch: the look at step {step} is stored but could not be reported: {_reason(error)}")

    def _record_failure(self, step: int, started: float, error: Exception) -> None:
        say(f"divwatch: the look at step {step} failed and training goes on: {_reason(error)}")
        self._scores.pop(step, None)
        look = {"step": step, "status": "failed", "reason": _reason(error), "time": time.time()}
        look["seconds"] = {"total": round(time.monotonic() - started, 3)}
        try:
            self.store.append_look(look)
        except OSError as unwritable:
            say(f"divwatch: nor could the failure be stored ({unwritable.strerror}): mend {self.store.path}")

    def _take_look(self, step: int) -> dict[str, Any]:
        from divwatch.analysis.assess import History, assess

        model = self.trainer.accelerator.unwrap_model(self.trainer.model_wrapped)
        tokenizer = self.trainer.processing_class
        with bar_of(f"look at step {step}", len(self.prompts) * self.config.samples) as bar:
            look = take_look(model, tokenizer, self.prompts, self.config, self._models, self.store, step, bar.update)
        self._scores[step], self._comparable[step], self._samples = look.scores, look.comparable, look.samples
        history = History.of([(s, self._scores[s], self._comparable[s]) for s in sorted(self._scores)])
        self.assessment = assess(history, self._max_looks, self.config.alpha, self.config.min_drop)
        verdict = self.assessment.verdict
        return look.line | {"verdict": {"kind": verdict.kind, "sentence": verdict.sentence}}

    # what a look says

    def _report(self, look: dict[str, Any], control: Any) -> None:
        assert self.assessment is not None
        step, elapsed = look["step"], time.monotonic() - self._started
        scalars = look_scalars(look["tasks"]) | assessment_scalars(self.assessment)
        self._scalars = scalars
        scalars["watch/seconds"] = look["seconds"]["total"]
        scalars["watch/overhead"] = self._blocked / elapsed if elapsed > 0 else 0.0
        texts = {p.id: p.text for p in self.prompts}
        say(look_line(look, self.assessment))
        for event in self._new_events(step):
            self.store.append_event(event)
            self._act(event, control)
        log_to_trainer(self.trainer, step, scalars)
        self._wandb.log(step, self._offset + step, scalars, table_rows(step, texts, self._samples))

    def _new_events(self, step: int) -> list[dict[str, Any]]:
        """One event for each series that was not flagged before."""
        assert self.assessment is not None
        events = []
        for task, key, status in self.assessment.alarms:
            if (task, key) in self._alarms:
                continue
            self._alarms.add((task, key))
            event = {"step": step, "kind": self.assessment.verdict.kind, "task": task, "key": key}
            event |= {"onset_step": status.onset_step, "onset_interval": list(status.onset_interval or ())}
            event |= {"change": status.change, "change_interval": list(status.change_interval)}
            event |= {"confirmed": status.confirmed}
            events.append(event | {"message": event_message(event)})
        return events

    def _act(self, event: dict[str, Any], control: Any) -> None:
        """An alarm of the whole panel alerts, saves or stops, as asked; a task's is recorded and shown."""
        say("divwatch: " + event["message"])
        if event["task"] != "all" or self.config.on_collapse == "log":
            return
        self._wandb.alert(f"Diversity collapse since step {event['onset_step']}", event["message"])
        if self.config.on_collapse in ("save", "stop"):
            control.should_save = True
        if self.config.on_collapse == "stop":
            control.should_training_stop = True

    def _finish(self) -> None:
        if self.assessment is None:
            return
        verdict = self.assessment.verdict
        summary = {"divwatch/verdict": verdict.sentence, "divwatch/kind": verdict.kind}
        self._wandb.summarise(summary | {f"divwatch/{k}": v for k, v in assessment_scalars(self.assessment).items()})
        say(f"divwatch: {verdict.sentence} Record: {self.store.path}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _model_path(trainer: Any) -> str | None:
    return getattr(trainer.model, "name_or_path", None) or None


def _stage(trainer: Any) -> str:
    """sft, dpo or rl, from the trainer's class and those it derives from; else the class's own name."""
    names = " ".join(c.__name__ for c in type(trainer).__mro__)
    known = {"SFTTrainer": "sft", "DPOTrainer": "dpo", "GRPOTrainer": "rl", "RLOOTrainer": "rl"}
    return next((stage for name, stage in known.items() if name in names), type(trainer).__name__)
