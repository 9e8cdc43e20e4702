"""The trainer callback: when to look, and what a look does, in this order:

sample -> store completions -> verify -> score -> store scores -> assess -> log, alert, act
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.panel import choose, load_panel
from divwatch.records import PromptScores
from divwatch.store import NAME, RunDirectory, find_parent, lineage_of
from divwatch.terminal import bar_of, event_message, look_line, say
from divwatch.tracking import WandbLog, assessment_scalars, log_to_trainer, look_scalars, table_rows

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
        self._encoder = self._load_encoder()
        self._wandb = WandbLog()
        self._scores: dict[int, PromptScores] = {}
        self._comparable: dict[int, bool] = {}
        self._alarms: set[tuple[str, str]] = set()
        self._blocked = 0.0
        self._started = time.monotonic()
        self._offset = 0

    def _load_encoder(self) -> Any:
        if not {"sbert", "vendi"} & set(self.config.metrics):
            return None
        from divwatch.metrics.encoder import load_encoder

        return load_encoder(self.config.encoder)

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

    # the record

    def _open_store(self, state: Any) -> None:
        parent = self._find_parent()
        if self.store.exists and state.global_step > 0:
            self._resume(state.global_step)
        else:
            self.store.create(self._describe_run(state, parent))
        chain = lineage_of(self.store)[:-1]
        self._offset = sum(run.info()["max_steps"] for run in chain)
        self._base = chain[0] if chain else None

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
        from divwatch.panel import fingerprint

        output = Path(self.trainer.args.output_dir)
        inherited = parent.info()["lineage"] if parent else None
        return {
            "divwatch": _version("divwatch"),
            "stage": self.config.stage or _stage(self.trainer),
            "lineage": self.config.lineage or inherited or output.name,
            "model": str(_model_path(self.trainer)),
            "output_dir": str(output),
            "parent": str(parent.path.resolve()) if parent else None,
            "mix": self.mix,
            "settings": self.config.as_dict(),
            "panel": {
                "name": self.panel_name,
                "fingerprint": fingerprint(self.prompts),
                "prompts": [{"id": p.id, "task": p.task, "text": p.text} for p in self.prompts],
            },
            "versions": {name: _version(name) for name in ("torch", "transformers", "trl", "accelerate", "wandb")},
            "seeds": {"train": self.trainer.args.seed, "data": self.trainer.args.data_seed, "watch": self.config.seed},
            "trainer": type(self.trainer).__name__,
            "max_steps": state.max_steps,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "wandb": self._wandb.configure(self.config.as_dict()),
        }

    # a look

    def _look(self, control: Any) -> None:
        """A look that fails is recorded with its reason; training goes on."""
        step, started = self.trainer.state.global_step, time.monotonic()
        self._comparable[step] = False
        try:
            look = self._take_look(step, started)
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

    def _take_look(self, step: int, started: float) -> dict[str, Any]:
        from divwatch.analysis.assess import History, assess
        from divwatch.sampling import sample
        from divwatch.scoring import score_prompts, summarise
        from divwatch.verify import judge_samples

        model = self.trainer.accelerator.unwrap_model(self.trainer.model_wrapped)
        seed = self.config.seed * 1_000_003 + step  # samples of two looks are independent
        with bar_of(f"look at step {step}", len(self.prompts) * self.config.samples) as bar:
            completions = sample(model, self.trainer.processing_class, self.prompts, self.config, seed, bar.update)
        sampled = time.monotonic()
        self.store.write_completions(step, completions)
        samples = judge_samples(self.prompts, completions)
        finished = np.reshape([c.finished for c in completions], (len(samples), -1))
        scores = score_prompts(
            samples, self.config.metrics, encoder=self._encoder, seed=self.config.seed, finished=finished.tolist()
        )
        self.store.write_judged(step, completions, samples)
        self.store.write_scores(step, scores)
        usable = sum(map(sum, (s.usable for s in samples))) / len(completions)
        self._scores[step], self._comparable[step] = scores, usable >= self.config.min_usable
        history = History.of([(s, self._scores[s], self._comparable[s]) for s in sorted(self._scores)])
        self.assessment = assess(history, self._max_looks, self.config.alpha, self.config.min_drop)
        self._samples = samples
        return {
            "step": step,
            "status": "ok" if self._comparable[step] else "not_comparable",
            "reason": None if self._comparable[step] else f"{usable:.0%} of the outputs are finished and readable",
            "time": time.time(),
            "seconds": {
                "sample": round(sampled - started, 3),
                "score": round(time.monotonic() - sampled, 3),
                "total": round(time.monotonic() - started, 3),
            },
            "usable_share": usable,
            "finished_share": float(finished.mean()),
            "verdict": {"kind": self.assessment.verdict.kind, "sentence": self.assessment.verdict.sentence},
            "tasks": summarise(scores, seed=self.config.seed),
        }

    # what a look says

    def _report(self, look: dict[str, Any], control: Any) -> None:
        assert self.assessment is not None
        step, elapsed = look["step"], time.monotonic() - self._started
        scalars = look_scalars(look["tasks"]) | assessment_scalars(self.assessment)
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


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
