"""The trainer callback: when to look, on all ranks. What becomes of a look is decided on rank 0, by the `Recorder`.

sample (all ranks) -> store -> [verify -> score -> assess, in the background] -> record, publish, act
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError, one_line
from divwatch.monitor.blame import LiveBlame, start_blame
from divwatch.monitor.panel_choice import PanelChoice
from divwatch.monitor.recorder import Recorder, Requests
from divwatch.monitor.rollouts import unwatch_rollouts, watch_rollouts
from divwatch.outputs.names import LOGGED_GROUPS, PROMPTS
from divwatch.outputs.terminal import bar_of, say
from divwatch.panel.form import at_full_length
from divwatch.panel.sources import quiet
from divwatch.records import Prompt
from divwatch.sampling import LookEnds, Sampler
from divwatch.sampling.ranks import LookFailed, Ranks
from divwatch.sampling.tokens import tokenizer_of, why_endless
from divwatch.sampling.watchable import check_watchable, why_uncoupled

if TYPE_CHECKING:
    from divwatch.analysis.assess import Assessment
    from divwatch.blame.live import KeptLook

# Seconds after which rank 0 answers waiting ranks: far below the time limit of any collective.
HEARTBEAT = 20.0
# Seconds that the end of training waits for scores; looks without scores are scored when the run is resumed.
FINISH_LIMIT = 600.0


def watch(trainer: Any, *, rows: Any = None, **settings: Any) -> DiversityCallback:
    """Attach a monitor to a transformers or TRL trainer of a causal language model; returns the callback.

        divwatch.watch(trainer, every=100)

    Settings are those of `WatchConfig`; rows: see `DiversityCallback`. A monitor that the trainer has already is replaced.
    Raises DivwatchError for a wrong setting, before training starts.
    """
    callback = DiversityCallback(trainer, WatchConfig.from_settings(**settings), rows=rows)
    callback.attach()
    trainer.add_callback(callback)
    return callback


class DiversityCallback(TrainerCallback):
    """Looks before the first step, at the steps that `config.every` asks for, and after the last, under any launch.

    Results go to `<output_dir>/divwatch/`, to the trainer's log and to its trackers. The hooks that look are collectives:
    all ranks reach them at the same steps. Between looks no rank waits for another.

    Add it with `trainer.add_callback`. Until it is attached, which `watch` does at once and the start of training does
    otherwise, it runs nothing and leaves the trainer's reward functions alone. Its one change is a small callback ahead of
    the trackers' callbacks: they open their runs at the start of training before this one is called.

    mix: a description of the training data, for the record. clock: the time in seconds, from which looks are planned.
    rows: the training data before a trainer with `packing` has joined rows of several sources, for `watch_blame`.
    """

    def __init__(
        self,
        trainer: Any,
        config: WatchConfig | None = None,
        mix: Any = None,
        clock: Callable[[], float] = time.monotonic,
        rows: Any = None,
    ) -> None:
        self._rows = rows
        self.trainer = trainer
        self.config = config or WatchConfig()
        self.ranks = Ranks.of(trainer.accelerator)
        self._tokenizer = tokenizer_of(trainer)
        # On all ranks, so that all raise the same error.
        with self.config.errors_as_written():
            panel = PanelChoice(trainer, self.config, self._note if self.ranks.main else quiet)
        self.prompts: list[Prompt] = []
        self.recorder = Recorder(trainer, self.config, panel, mix, clock) if self.ranks.main else None
        self._clock = clock
        self._sampler: Sampler | None = None
        self._blame: LiveBlame | None = None
        self._steps_with_look: set[int] = set()
        self._next_meeting = 0
        # An alarm asked for a checkpoint that is not saved yet: with save_strategy "best" an evaluation cancels the save.
        self._owed = False
        self._keep: tuple[int, bool] | None = None  # a step whose checkpoint is kept, and whether it has no other use
        self._ahead = _AheadOfOthers(self)
        trainer.callback_handler.callbacks.insert(0, self._ahead)

    def attach(self) -> None:
        """Loads the models, starts the scoring process and measures the trainer's rollouts, if it has any.

        Replaces another monitor of the trainer. Does nothing the second time. Raises DivwatchError if a model cannot be
        loaded, and for what cannot be watched.
        """
        if self._sampler is None:
            with self.config.errors_as_written():
                check_watchable(self.trainer, self._tokenizer, self.config)
                for line in (why_endless(self.trainer.model, self._tokenizer), why_uncoupled(self.config)):
                    if line is not None and self.ranks.main:
                        self._note(line)
                sampler = Sampler(self.trainer, self.config, self.ranks)
                if self.recorder is not None:
                    self.recorder.start()
            self._replace_others()
            watch_rollouts(self.trainer, self.config, sampler.encoder)
            self._sampler = sampler

    def detach(self) -> None:
        """Takes the monitor off its trainer and ends its scoring process."""
        handler = self.trainer.callback_handler
        mine = (self, self._ahead)
        # A new list: the handler may be iterating over the old one.
        handler.callbacks = [c for c in handler.callbacks if c not in mine]
        unwatch_rollouts(self.trainer)
        if self._sampler is not None and self.recorder is not None:
            self.recorder.stop()
        self._sampler = None

    def _replace_others(self) -> None:
        others = [
            c for c in self.trainer.callback_handler.callbacks if isinstance(c, DiversityCallback) and c is not self
        ]
        for other in others:
            other.detach()
        if others and self.ranks.main:
            self._note("the trainer was watched already: the new settings replace the old ones")

    @property
    def assessment(self) -> Assessment | None:
        """What the looks scored so far show; None before the first, and on other ranks than 0."""
        return self.recorder.assessment() if self.recorder else None

    # when

    def before_trackers(self) -> None:
        """At the start of training, before the trackers' callbacks open their runs."""
        if self._sampler is None:  # on all ranks
            self._on_all_ranks(self.attach)
        if self.recorder is not None:
            self.recorder.start_tracking()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._sampler is None:  # replaced by another monitor a moment ago
            return
        self._wait_until(lambda recorder: recorder.ready(HEARTBEAT))
        recorder = self.recorder
        opened = self._on_all_ranks(lambda: recorder.open(state) if recorder else None)
        self.prompts, self._steps_with_look, self.config = opened.prompts, opened.steps, opened.config
        self._blame = start_blame(self.trainer, self.config, self.ranks, self._load_encoder, self._rows, self._note)
        if opened.look_now:
            self._look(control)
            self._look_at_full_length()
        self._agree_on_next_meeting(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = control.should_save or self._owed
        if state.global_step >= state.max_steps:
            self._look(control)
        elif state.global_step == self._next_meeting:
            if self._may_look(state.global_step):
                self._look(control)
            self._agree_on_next_meeting(state)
        else:
            self._on_main(lambda recorder: recorder.after_step(state.global_step))

    def before_trackers_close(self, args: Any, state: Any, control: Any) -> None:
        """Takes the last look, if none was due when training ended, and waits for the scores."""
        # With load_best_model_at_end the weights are by now those of another step.
        if state.global_step not in self._steps_with_look and not args.load_best_model_at_end:
            self._look(control)
        if not args.load_best_model_at_end:
            self._look_at_full_length()
        until = time.monotonic() + FINISH_LIMIT
        self._wait_until(lambda recorder: recorder.poll(HEARTBEAT) or time.monotonic() > until)
        self._on_main(lambda recorder: recorder.close())

    def add_to_metrics(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None) -> None:
        """Adds the scalars to evaluate()'s metrics if `metric_for_best_model` is one of them: correct_diversity/all/sbert.

        Takes a look even if none is due, and waits for its scores.
        """
        asked = (args.metric_for_best_model or "").removeprefix("eval_")
        watching = self._sampler is not None and self.prompts  # not before training
        if metrics is None or asked.split("/")[0] not in LOGGED_GROUPS or not watching:
            return
        if state.global_step not in self._steps_with_look:
            self._look(control)
        self._wait_until(lambda recorder: recorder.poll(HEARTBEAT))
        scalars = self.ranks.from_main(self._on_main(lambda recorder: recorder.scalars_at(state.global_step)))
        metrics.update({f"eval_{name}": value for name, value in (scalars or {}).items()})
        if f"eval_{asked}" not in metrics and self._may_have(asked):
            metrics[f"eval_{asked}"] = float("nan")  # never the best; without it the trainer ends the run
            if self.ranks.main:
                self._note(f"step {state.global_step} has no value of {asked}, by which the best model is chosen")

    def _may_have(self, name: str) -> bool:
        """Whether `name`, group/task/metric, can be a value of some look: a misspelled one is the trainer's to refuse."""
        group, task, metric = (*name.split("/"), "", "")[:3]
        known = metric.removesuffix(PROMPTS) in self.config.metrics or "diversity" not in group
        return known and task in {"all", *(prompt.task for prompt in self.prompts)}

    def _may_look(self, step: int) -> bool:
        """Rank 0 decides for all, only at steps at which ranks meet."""
        return bool(self.ranks.from_main(self._on_main(lambda recorder: recorder.allows_look(step), True)))

    def _agree_on_next_meeting(self, state: Any) -> None:
        """All ranks learn the step at which they meet next, so that they exchange nothing until then."""
        step = self._on_main(lambda recorder: recorder.next_meeting(state.global_step), state.max_steps)
        self._next_meeting = self.ranks.from_main(step)

    # a look

    def _look(self, control: Any) -> None:
        """A look that fails is recorded with its reason, and training continues."""
        step = self.trainer.state.global_step
        self._steps_with_look.add(step)
        kept = self._blame.keeps(step) if self._blame is not None else None
        failure = self._take_look(kept=kept)
        if kept is not None and self.ranks.from_main(failure is None):
            failure = self._blame_rows(step, kept)
        if self.config.on_collapse in ("save", "stop"):
            self._act(control)
        self._on_main(lambda recorder: recorder.poll())
        if failure is not None and self.config.on_error == "raise":
            raise failure

    def _look_at_full_length(self) -> None:
        """The rare look at full length, beside the others: it raises no alarm."""
        if self.config.full_tokens is not None:
            self._take_look(full=True)

    def _blame_rows(self, step: int, kept: KeptLook) -> LookFailed | None:
        """Blame at the look that was just taken, on all ranks; returns the failure, if there was one."""
        assert self._blame is not None
        started, data = self._clock(), self._blame.data
        try:
            measured = self._blame.measure(self.prompts, kept)
        except LookEnds as error:
            self._say_end(error)
            raise
        except LookFailed as error:
            reason, seconds = str(error), self._clock() - started
            self._on_main(lambda recorder: recorder.record_blame_failure(step, reason, seconds))
            return error
        seconds = self._clock() - started
        self._on_main(lambda recorder: recorder.add_blame(step, measured, data, seconds))
        return None

    def _load_encoder(self) -> Any:
        from divwatch.metrics.encoder import load_encoder

        own = self._sampler.encoder() if self._sampler is not None else None
        return own or load_encoder(self.config.encoder, device=str(self.trainer.args.device))

    def _take_look(self, full: bool = False, kept: KeptLook | None = None) -> LookFailed | None:
        """Samples on all ranks and hands the look to the recorder; returns the failure, if there was one.

        kept: gets what blame needs of the look.
        """
        assert self._sampler is not None
        step, started = self.trainer.state.global_step, self._clock()
        config = self.config.at_full_length() if full else self.config
        prompts = at_full_length(self.prompts) if full else self.prompts
        total = len(prompts) * config.samples // self.ranks.world
        try:
            with bar_of(f"look at step {step}", total, shown=self.ranks.main) as bar:
                sampled = self._sampler.sample(prompts, config, step, bar.update, kept.keep if kept else None)
        except LookEnds as error:
            self._say_end(error)
            raise
        except Exception as error:
            if not isinstance(error, LookFailed):  # only LookFailed is raised on all ranks
                if self.ranks.world > 1:
                    raise
                error = LookFailed(one_line(error))
            reason, seconds = str(error), self._clock() - started
            self._on_main(lambda recorder: recorder.record_failure(step, reason, seconds, full))
            return error
        if self.recorder is None:
            return None
        if kept is not None:
            kept.completions, kept.embeddings = sampled
        try:
            seconds = self._clock() - started
            self.recorder.submit(step, *sampled, seconds, full)
        except LookFailed as error:  # it could not be stored
            return error
        return None

    def _say_end(self, error: LookEnds) -> None:
        say(f"divwatch: {error}; the run ends; start it again with resume_from_checkpoint")

    def _act(self, control: Any) -> None:
        """Saves or stops as the looks ask, on all ranks. Waits for the scores of this look."""
        self._wait_until(lambda recorder: recorder.poll(HEARTBEAT))
        asked = self.ranks.from_main(self._on_main(lambda recorder: recorder.pop_requests(), Requests()))
        step, last = self.trainer.state.global_step, self.trainer.state.max_steps
        if asked.keep and 0 < step < last:
            arguments = self.trainer.args
            # A checkpoint of the best model is the trainer's, and is decided on only after this.
            best = arguments.load_best_model_at_end or arguments.save_strategy == "best"
            due = control.should_save or asked.action is not None or bool(arguments.save_total_limit) or best
            self._keep = (step, not due)
            control.should_save = True
        self._owed = self._owed or asked.action is not None
        control.should_save = control.should_save or self._owed
        control.should_training_stop = control.should_training_stop or asked.action == "stop"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keeps the checkpoint that a look has asked for, once all ranks have written their parts."""
        self._owed = False
        keep, self._keep = self._keep, None
        if keep is not None and keep[0] == state.global_step:
            self.ranks.share(None)
            self._on_main(lambda recorder: recorder.keep_checkpoint(*keep))

    def _note(self, line: str) -> None:
        say(f"divwatch: {self.config.as_written(line)}")

    # ranks

    def _on_main(self, work: Callable[[Recorder], Any], otherwise: Any = None) -> Any:
        """Runs `work` on rank 0. An error there neither ends training nor leaves the other ranks waiting."""
        if self.recorder is None:
            return otherwise
        try:
            return work(self.recorder)
        except Exception as error:
            if self.config.on_error == "raise":
                raise
            say(f"divwatch: {one_line(error)}; training continues")
            return otherwise

    def _on_all_ranks(self, work: Callable[[], Any]) -> Any:
        """Rank 0's result of `work`. A DivwatchError of any rank is raised on all ranks."""
        result = error = None
        try:
            result = work()
        except DivwatchError as raised:
            error = raised
        errors = [e for e in self.ranks.share(error) if e is not None]
        if errors:
            raise errors[0]
        return self.ranks.from_main(result)

    def _wait_until(self, done: Callable[[Recorder], bool]) -> None:
        """Waits until `done` returns True on rank 0. A call takes at most HEARTBEAT, so that rank 0 never seems dead."""
        while not self.ranks.from_main(self._on_main(done, True)):
            pass


class _AheadOfOthers(TrainerCallback):
    """Runs before all other callbacks: trackers open their runs when training begins and close them when it ends, and early
    stopping reads the metrics of an evaluation."""

    def __init__(self, watching: DiversityCallback) -> None:
        self._watching = watching

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._added:
            self._watching.before_trackers()

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        if self._added:
            self._watching.add_to_metrics(args, state, control, metrics)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._added:
            self._watching.before_trackers_close(args, state, control)

    @property
    def _added(self) -> bool:
        return self._watching in self._watching.trainer.callback_handler.callbacks
