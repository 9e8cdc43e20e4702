"""The trainer callback: when to look, and what a look does, in this order:

    sample -> store completions -> verify -> score -> store scores -> assess -> log, alert, act
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.panel import choose, load_panel
from divwatch.records import PromptSamples, PromptScores
from divwatch.store import RunDirectory, find_parent, lineage_of
from divwatch.tracking import WandbLog, log_to_trainer, look_scalars, table_rows

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
        self.store = RunDirectory.of(Path(trainer.args.output_dir) / "divwatch")
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
            raise DivwatchError(f"watch_baseline {self.config.baseline!r} holds no divwatch run: give its output directory")
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
        step, started = self.trainer.state.global_step, time.monotonic()
        try:
            look = self._take_look(step, started)
        except Exception as error:  # a failing look never fails training
            if self.config.on_error == "raise":
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            look = {"step": step, "status": "failed", "reason": reason, "time": time.time()}
            look["seconds"] = {"total": round(time.monotonic() - started, 3)}
            self._comparable[step] = False
            _say(f"divwatch: the look at step {step} failed and training goes on: {reason}")
        self._blocked += time.monotonic() - started
        try:
            self.store.append_look(look)
        except OSError as error:
            _say(f"divwatch: the look at step {step} could not be stored ({error.strerror}); training goes on")
        if look["status"] != "failed":
            self._report(look, control)

    def _take_look(self, step: int, started: float) -> dict[str, Any]:
        from divwatch.analysis.assess import History, assess
        from divwatch.sampling import sample
        from divwatch.scoring import score_prompts, summarise
        from divwatch.verify import judge_samples

        model = self.trainer.accelerator.unwrap_model(self.trainer.model_wrapped)
        seed = self.config.seed * 1_000_003 + step  # samples of two looks are independent
        with _bar(f"look at step {step}", len(self.prompts) * self.config.samples) as bar:
            completions = sample(model, self.trainer.processing_class, self.prompts, self.config, seed, bar.update)
        sampled = time.monotonic()
        self.store.write_completions(step, completions)
        samples = judge_samples(self.prompts, completions)
        scores = score_prompts(samples, self.config.metrics, encoder=self._encoder, seed=self.config.seed)
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
            "finished_share": sum(c.finished for c in completions) / len(completions),
            "verdict": {"kind": self.assessment.verdict.kind, "sentence": self.assessment.verdict.sentence},
            "tasks": summarise(scores, seed=self.config.seed),
        }
