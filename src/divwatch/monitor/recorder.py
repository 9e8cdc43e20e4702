"""Rank 0's side of a look: stored, handed over for scoring, and, once scored, logged, alerted and acted upon."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divwatch.config import COMPARABLE, WatchConfig
from divwatch.errors import DivwatchError, one_line
from divwatch.monitor.background import Background, Inline, Scored
from divwatch.monitor.look import describe_run
from divwatch.monitor.scorer import assess_looks, stored_looks
from divwatch.outputs.terminal import say
from divwatch.outputs.tracking import (
    LOGGED_GROUPS,
    WandbLog,
    assessment_scalars,
    log_to_trainer,
    look_scalars,
    remember,
    reports,
    start_wandb_run,
    wandb_run,
)
from divwatch.panel import choose, fingerprint
from divwatch.panel.form import at_full_length, fixed_form, in_forms, within_context
from divwatch.panel.held_out import HeldOutCheck
from divwatch.records import Completion, Prompt
from divwatch.store.lineage import steps_before
from divwatch.store.reader import NAME
from divwatch.store.run_directory import RunDirectory
from divwatch.store.search import find_parent
from divwatch.verify import check_verifiers

if TYPE_CHECKING:
    from divwatch.analysis.assess import Assessment

FEW_PROMPTS = 32  # below it changes of a tenth are lost in the noise of the choice of prompts (a rule of thumb)


class Recorder:
    """What becomes of the looks of one run. Lives on rank 0."""

    def __init__(
        self, trainer: Any, config: WatchConfig, panel_name: str, candidates: Sequence[Prompt], mix: Any
    ) -> None:
        self.trainer, self.config, self.panel_name, self.mix = trainer, config, panel_name, mix
        self.form = fixed_form(config.form, trainer.processing_class)
        self.candidates = candidates
        self.prompts: list[Prompt] = []
        dataset = trainer.train_dataset if config.held_out != "off" else None
        self._check = HeldOutCheck(candidates, dataset, trainer.processing_class)
        self.store = RunDirectory(Path(trainer.args.output_dir) / NAME)
        self.full = RunDirectory(self.store.path / "full")  # the rare looks at full length
        self.max_looks = 1
        self._scorer = (Background if config.background else Inline)(config)
        self._wandb = WandbLog()
        self._alarms: set[tuple[str, str]] = set()
        self._costs: dict[int, tuple[float, float]] = {}  # step -> (seconds blocked, overhead)
        self._scalars: tuple[int, dict[str, float]] = (-1, {})
        self._wish: str | None = None
        self._offset = 0
        self._put_off: set[str] = set()

    # the record

    def panel_checked(self, seconds: float) -> bool:
        """Waits at most so long for the held-out check; whether it has ended."""
        return self._check.done(seconds)

    def open(self, state: Any, max_looks: int) -> tuple[list[Prompt], set[int]] | str:
        """Starts the record, or goes on with it: (prompts to watch, steps that were looked at), or why it cannot."""
        try:
            return self._open(state, max_looks)
        except DivwatchError as error:
            return str(error)
        except Exception as error:  # the other ranks wait for an answer
            return f"{self.store.path} cannot be written or gone on with ({one_line(error)}): choose another output_dir"

    def _open(self, state: Any, max_looks: int) -> tuple[list[Prompt], set[int]]:
        parent = self._find_parent()
        self.max_looks = max_looks
        resumed = self.store.exists and state.global_step > 0
        self.prompts = self._choose(parent)
        check_verifiers(self.prompts, unsafe_code=self.config.unsafe_code)
        settings = self.config.as_dict()
        if resumed:
            self.store.claim()
            self._refuse_what_differs()
            self._note_what_changed(state.global_step)
            self._resume(state)
        else:
            tracked = self._wandb.open(wandb_run(self.trainer), settings)
            self.store.create(self._describe_run(state, parent, self.prompts, self.config, tracked))
        self._info = self.store.info()
        if not reports(self.trainer):
            say(f"divwatch: no tracker in report_to: looks go to {self.store.path} and the trainer's log history alone")
        self._offset = steps_before(self.store)
        self._scorer.open(self.store, self.prompts, self.config, max_looks)
        unscored = self.store.unscored()
        for step in unscored:
            self._scorer.submit(self.store, step, 0.0)
        if self.config.full_tokens is not None:
            self._open_full(state, parent, resumed)
        return self.prompts, {look["step"] for look in self.store.looks()} | set(unscored)

    def _resume(self, state: Any) -> None:
        """Goes on with a record at the checkpoint's step; what the log history had not received yet is put into it."""
        info = self.store.info()
        sent = {look["step"] for look in self.store.looks() if look["status"] in ("ok", "not_comparable")}
        before = info.get("wandb")
        tracked = self._wandb.open(wandb_run(self.trainer), self.config.as_dict(), before, sent)
        if tracked and before != tracked:
            info |= {"wandb": tracked, "wandb_before": [*info.get("wandb_before", []), before]}
        self.store.write_info(info | {"ended": None})
        self.store.resume_at(state.global_step)
        self._alarms = {(event["task"], event["key"]) for event in self.store.events()}
        logged = {entry["step"] for entry in state.log_history if "collapse/alarm" in entry}
        looks = stored_looks(self.store)
        for line in self.store.looks():
            if line["step"] in looks and line["step"] not in logged:
                known = {step: look for step, look in looks.items() if step <= line["step"]}
                assessment = assess_looks(known, self.config, self.max_looks)
                remember(state, line["step"], look_scalars(line["tasks"]) | assessment_scalars(assessment))

    def _choose(self, parent: RunDirectory | None) -> list[Prompt]:
        """What is watched: held-out prompts that fit the model's context, of the parent run's where there is one."""
        config, kept = self.config, list(self.candidates)
        if parent is not None:
            theirs = {prompt["id"] for prompt in parent.info()["panel"]["prompts"]}
            shared = [p for p in kept if p.id in theirs]
            kept = shared or kept
        if self._check.error is not None:
            raise DivwatchError(str(self._check.error))
        if self._check.report is not None and self._check.report.contaminated:
            say(f"divwatch: {self._check.report.line}" + ("; dropped" if config.held_out == "drop" else ""))
            if config.held_out == "drop":
                kept = self._check.report.held_out(kept)
        elif self._check.streamed and config.held_out != "off":
            say(
                "divwatch: a stream of training rows is not searched for the prompts: see divwatch panel check --against"
            )
        tokenizer, context = self.trainer.processing_class, _context(self.trainer.model)
        if context is not None:
            new = config.max_new_tokens + (config.think_tokens or 0)
            kept, left_out = within_context(tokenizer, kept, context, new, config.thinking, self.form)
            if left_out is not None:
                say(f"divwatch: {left_out}")
        chosen = choose(kept, config.prompts, config.seed)
        if len(chosen) < FEW_PROMPTS:
            say(
                f"divwatch: {len(chosen)} prompts tell little, their intervals are wide: {FEW_PROMPTS} or more are better"
            )
        return in_forms(chosen, config.thinking)

    def _refuse_what_differs(self) -> None:
        """A record may only go on with looks that compare with those it holds."""
        info = self.store.info()
        changed = _changed(info["settings"], self.config.as_dict())
        changed.pop("panel", None)  # it may have been moved: its prompts are what counts
        told = [f"watch_{name} {old!r}, now {new!r}" for name, (old, new) in changed.items() if name in COMPARABLE]
        other = fingerprint(self.prompts) != info["panel"]["fingerprint"]
        if told or other:
            raise DivwatchError(
                f"{self.store.path} was watched with {', '.join(told) or 'other prompts or in another form'}: resume with "
                "the settings and the data that it began with, or train into another output_dir"
            )

    def _note_what_changed(self, step: int) -> None:
        """Other settings may change from one start to the next; run.json says which did."""
        info = self.store.info()
        changed = _changed(
            info["settings"] | {"processes": info.get("processes")},
            self.config.as_dict() | {"processes": self.trainer.accelerator.num_processes},
        )
        if changed:
            self.store.write_info(info | {"resumed": [*info.get("resumed", []), {"step": step, "changed": changed}]})

    def _find_parent(self) -> RunDirectory | None:
        if self.config.baseline is None:
            return find_parent(_model_path(self.trainer))
        parent = RunDirectory.of(self.config.baseline)
        if not parent.exists:
            raise DivwatchError(
                f"watch_baseline {self.config.baseline!r} holds no divwatch run: give its output directory"
            )
        return parent

    def _open_full(self, state: Any, parent: RunDirectory | None, resumed: bool) -> None:
        prompts, config = at_full_length(self.prompts), self.config.at_full_length()
        if not (resumed and self.full.exists):
            self.full.create(self._describe_run(state, parent, prompts, config, None))
        self._scorer.open(self.full, prompts, config, 2)

    def start_tracking(self) -> None:
        """Opens the W&B run in the lineage's group, just before the trainer's own callback would open one without."""
        try:
            start_wandb_run(self.trainer, self._lineage(self._find_parent()), self._stage)
        except Exception as error:  # what is wrong with it the trainer's callback will say
            say(f"divwatch: no W&B run could be opened in the lineage's group: {one_line(error)}")

    def _lineage(self, parent: RunDirectory | None) -> str:
        return self.config.lineage or (parent.info()["lineage"] if parent else Path(self.trainer.args.output_dir).name)

    @property
    def _stage(self) -> str:
        return self.config.stage or _stage(self.trainer)

    def _describe_run(
        self, state: Any, parent: RunDirectory | None, prompts: Sequence[Prompt], config: WatchConfig, tracked: Any
    ) -> dict[str, Any]:
        arguments = self.trainer.args
        return describe_run(
            stage=self._stage,
            lineage=self._lineage(parent),
            model=str(_model_path(self.trainer)),
            output_dir=arguments.output_dir,
            parent=parent,
            config=config,
            panel_name=self.panel_name,
            prompts=prompts,
            max_steps=state.max_steps,
            mix=self.mix,
            form=self.form,
            held_out=None if self._check.report is None else self._check.report.as_dict(),
            seeds={"train": arguments.seed, "data": arguments.data_seed, "watch": self.config.seed},
            trainer=type(self.trainer).__name__,
            processes=self.trainer.accelerator.num_processes,
            wandb=tracked,
        )

    # a look

    def keep(
        self, step: int, completions: Sequence[Completion], seconds: float, embeddings: Any, full: bool = False
    ) -> str | None:
        """Stores a look before it is scored, so that a crash loses none. Returns why it could not be."""
        store = self.full if full else self.store
        try:
            if not self.store.exists:  # somebody has removed it
                self.store.create(self._info)
            if embeddings is not None:
                store.write_embeddings(step, *embeddings)
            store.write_completions(step, completions)
            self._scorer.submit(store, step, seconds)
        except Exception as error:
            return one_line(error)
        return None

    def failed(self, step: int, reason: str, seconds: float, full: bool = False) -> None:
        say(f"divwatch: the look at step {step} failed and training goes on: {reason}")
        self._write_failure(self.full if full else self.store, step, reason, {"total": round(seconds, 3)})

    def blocked(self, step: int, seconds: float, overhead: float) -> None:
        """What a look cost the training."""
        self._costs[step] = (seconds, overhead)

    def reason_to_wait(self, pace: Any) -> str | None:
        """Why the look that is due should not be taken now; None: it may be."""
        if self._scorer.behind:
            return "the scoring of earlier looks is behind"
        if pace.limit > 0 and not pace.allows_another():
            return f"looks hold training up for more than {pace.limit:.0%} of its time (watch_max_overhead: 0 takes them all)"
        return None

    def say_put_off(self, step: int, reason: str) -> None:
        """Once a reason."""
        if reason not in self._put_off:
            self._put_off.add(reason)
            say(f"divwatch: the look at step {step} is put off, and later ones may be: {reason}")

    # what a look says

    def report(self) -> None:
        """Logs what has been scored since the last call; returns at once."""
        self._take(self._scorer.poll())

    def _take(self, scored: Sequence[Scored]) -> None:
        for one in scored:
            step, store = one["step"], self.full if one["path"] == str(self.full.path) else self.store
            if "error" in one:
                if self.config.on_error == "raise":
                    raise one.get("raised") or RuntimeError(one["error"])
                say(f"divwatch: the look at step {step} is stored but could not be scored: {one['error']}")
                self._write_failure(store, step, one["error"], {})
                continue
            try:
                log = self._log_full if store is self.full else self._log
                log(step, one["result"])
            except Exception as error:  # the scores themselves are safely stored
                if self.config.on_error == "raise":
                    raise
                say(f"divwatch: the look at step {step} is scored but could not be reported: {one_line(error)}")

    def _log(self, step: int, result: dict[str, Any]) -> None:
        blocked, overhead = self._costs.pop(step, (result["line"]["seconds"]["sample"], 0.0))
        line, scalars = result["line"], result["scalars"]
        line["seconds"]["total"] = round(blocked, 3)
        scalars |= {"watch/seconds": blocked, "watch/overhead": overhead}
        self.store.append_look(line)
        self._scalars = (step, scalars)
        say(f"{result['text']} | {blocked:.1f} s")
        for event in result["alarms"]:
            if (event["task"], event["key"]) not in self._alarms:
                self._alarms.add((event["task"], event["key"]))
                self.store.append_event(event)
                self._alert(event)
        log_to_trainer(self.trainer, step, scalars)
        self._wandb.log(step, self._offset + step, scalars, result["rows"])

    def _log_full(self, step: int, result: dict[str, Any]) -> None:
        """A look at full length: its own record, its levels under `full/`, no alarm."""
        self.full.append_look(result["line"])
        say(f"at full length: {result['text']}")
        levels = {f"full/{name}": v for name, v in result["scalars"].items() if name.split("/")[0] in LOGGED_GROUPS}
        log_to_trainer(self.trainer, step, levels)
        self._wandb.log(step, self._offset + step, levels, [])

    def _alert(self, event: dict[str, Any]) -> None:
        """An alarm of the whole panel alerts, saves or stops, as asked; a task's is recorded and shown."""
        say("divwatch: " + event["message"])
        if event["task"] != "all" or self.config.on_collapse == "log":
            return
        self._wandb.alert(f"Diversity collapse since step {event['onset_step']}", event["message"])
        if self.config.on_collapse in ("save", "stop"):
            self._wish = self.config.on_collapse

    def _write_failure(
        self, store: RunDirectory, step: int, reason: str, seconds: dict[str, float], status: str = "failed"
    ) -> None:
        look = {"step": step, "status": status, "reason": reason, "time": time.time(), "seconds": seconds}
        try:
            store.append_look(look)
        except OSError as unwritable:
            say(f"divwatch: nor could the failure be stored ({unwritable.strerror}): mend {store.path}")

    def caught_up(self, seconds: float) -> bool:
        """Waits at most so long for the scores under way; whether all are there."""
        self._take(self._scorer.wait(seconds))
        return not self._scorer.busy

    def take_wish(self) -> str | None:
        """What an alarm asks for: save, stop, or nothing."""
        wish, self._wish = self._wish, None
        return wish

    def scalars_at(self, step: int) -> dict[str, float] | None:
        """The logged values of the look at `step`; None where it failed or was not comparable."""
        at, scalars = self._scalars
        return dict(scalars) if at == step else None

    def assessment(self) -> Assessment | None:
        looks = stored_looks(self.store) if self.store.exists else {}
        return assess_looks(looks, self.config, self.max_looks) if looks else None

    def finish(self) -> None:
        """Gives up the scores still under way, and says what the run showed."""
        for late in self._scorer.abandon():
            say(f"divwatch: the look at step {late['step']} is stored but not scored: {late['error']}")
            store = self.full if late["path"] == str(self.full.path) else self.store
            self._write_failure(store, late["step"], late["error"], {}, status="unscored")
        self._scorer.close()
        self._note_end()
        self.store.release()
        assessment = self.assessment()
        if assessment is None:
            self._wandb.close()
            return
        verdict = assessment.verdict
        summary = {"divwatch/verdict": verdict.sentence, "divwatch/kind": verdict.kind}
        self._wandb.summarise(summary | {f"divwatch/{k}": v for k, v in assessment_scalars(assessment).items()})
        self._wandb.keep(self.store.path)
        self._wandb.close()
        say(f"divwatch: {verdict.sentence} Record: {self.store.path}")

    def _note_end(self) -> None:
        """So that who follows the run knows that it will look no more, wherever it ended."""
        try:
            self.store.write_info(self.store.info() | {"ended": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
        except (OSError, DivwatchError) as error:
            say(f"divwatch: the end of the run could not be noted: {one_line(error)}")


def _changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[Any]]:
    """name -> [old, new] of what differs; a setting that the old run did not know counts as its default."""
    known = WatchConfig().as_dict() | old
    return {name: [known.get(name), value] for name, value in new.items() if value != known.get(name)}


def _model_path(trainer: Any) -> str | None:
    return getattr(trainer.model, "name_or_path", None) or None


def _context(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _stage(trainer: Any) -> str:
    """sft, dpo or rl, from the trainer's class and those it derives from; else the class's own name."""
    names = " ".join(c.__name__ for c in type(trainer).__mro__)
    known = {"SFTTrainer": "sft", "DPOTrainer": "dpo", "GRPOTrainer": "rl", "RLOOTrainer": "rl"}
    return next((stage for name, stage in known.items() if name in names), type(trainer).__name__)
