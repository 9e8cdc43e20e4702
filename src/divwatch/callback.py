"""The trainer callback: when to look, on all ranks; what becomes of a look is the recorder's, on rank 0.

sample (all ranks) -> store -> [verify -> score -> assess, in the background] -> log, alert, act
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError, one_line
from divwatch.monitor.recorder import Recorder
from divwatch.monitor.rollouts import watch_rollouts
from divwatch.outputs.terminal import bar_of, say
from divwatch.outputs.tracking import LOGGED_GROUPS
from divwatch.panel import choose, load_panel
from divwatch.panel.form import at_full_length
from divwatch.records import Completion, Prompt
from divwatch.sampling import LookEnds, Sampler
from divwatch.sampling.ranks import LookFailed, Ranks

if TYPE_CHECKING:
    from divwatch.analysis.assess import Assessment

# Seconds after which rank 0 gives the waiting ranks a sign of life: far below any collective's time limit.
HEARTBEAT = 20.0
# Seconds that the end of training waits for scores; what is late is scored when the run is resumed.
FINISH_LIMIT = 600.0


def watch(trainer: Any, **settings: Any) -> DiversityCallback:
    """Attach a monitor to a transformers or TRL trainer of a causal language model; returns the callback.

        divwatch.watch(trainer, every=100)

    Settings are those of `WatchConfig`. Raises DivwatchError for a wrong one, before training starts.
    """
    callback = DiversityCallback(trainer, WatchConfig.from_settings(**settings))
    trainer.add_callback(callback)
    return callback


class DiversityCallback(TrainerCallback):
    """Looks before the first step, every `config.every` steps, and after the last, under any launch.

    Results go to `<output_dir>/divwatch/`, to the trainer's log and to its trackers. Hooks that look are collectives:
    all ranks come to them at the same steps. Between looks no rank waits for another.
    """

    def __init__(self, trainer: Any, config: WatchConfig | None = None, mix: Any = None) -> None:
        self.trainer = trainer
        self.config = config or WatchConfig()
        self.ranks = Ranks.of(trainer.accelerator)
        if trainer.processing_class is None:
            raise DivwatchError("the trainer has no tokenizer: give it one as processing_class")
        name, panel = load_panel(self.config.panel, getattr(trainer, "eval_dataset", None))
        # Twice as many as are watched: what is not held out is replaced.
        self._candidates = choose(panel, 2 * self.config.prompts, self.config.seed)
        self.prompts: list[Prompt] = []
        self.recorder = Recorder(trainer, self.config, name, self._candidates, mix) if self.ranks.main else None
        self._sampler = Sampler(trainer, self.config, self.ranks)
        watch_rollouts(trainer, self.config, self._sampler.encoder)
        self._taken: set[int] = set()
        self._pace = Pace(self.config.max_overhead)
        trainer.callback_handler.callbacks.insert(0, _AheadOfTrackers(self))

    @property
    def assessment(self) -> Assessment | None:
        """What the looks scored so far show; None before the first, and on other ranks than 0."""
        return self.recorder.assessment() if self.recorder else None

    # when

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._every = self.config.steps_between_looks(state.max_steps)
        self._all_wait(lambda recorder: recorder.panel_checked(HEARTBEAT))
        opened = self.ranks.from_main(
            self._on_main(lambda recorder: recorder.open(state, 2 + (state.max_steps - 1) // self._every))
        )
        if isinstance(opened, str):
            raise DivwatchError(opened)
        self.prompts, self._taken = opened
        self._pace.begin()
        if state.global_step not in self._taken:
            self._look(control)
            self._full_look()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps or (
            state.global_step % self._every == 0 and self._may_look(state.global_step)
        ):
            self._look(control)
        else:
            self._on_main(lambda recorder: recorder.report())

    def finish(self, args: Any, state: Any, control: Any) -> None:
        """The last look, if training ended where none was due, and the scores under way."""
        # With load_best_model_at_end the weights are by now another step's.
        if state.global_step not in self._taken and not args.load_best_model_at_end:
            self._look(control)
        if not args.load_best_model_at_end:
            self._full_look()
        until = time.monotonic() + FINISH_LIMIT
        self._all_wait(lambda recorder: recorder.caught_up(HEARTBEAT) or time.monotonic() > until)
        self._on_main(lambda recorder: recorder.finish())

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Makes `metric_for_best_model: correct_diversity/all/sbert` and the like work: evaluate() returns these metrics.

        A look that is not due is taken, and its scores are waited for.
        """
        wanted = (args.metric_for_best_model or "").removeprefix("eval_").split("/")[0]
        if metrics is None or wanted not in LOGGED_GROUPS:
            return
        if state.global_step not in self._taken:
            self._look(control)
        self._all_wait(lambda recorder: recorder.caught_up(HEARTBEAT))
        scalars = self.ranks.from_main(self._on_main(lambda recorder: recorder.scalars_at(state.global_step)))
        metrics.update({f"eval_{name}": value for name, value in (scalars or {}).items()})

    def _may_look(self, step: int) -> bool:
        """Rank 0 decides for all, at steps where a look is due and nowhere else."""
        reason = self.ranks.from_main(self._on_main(lambda recorder: recorder.reason_to_wait(self._pace)))
        if reason is not None:
            self._on_main(lambda recorder: recorder.say_put_off(step, reason))
        return reason is None

    # a look

    def _look(self, control: Any) -> None:
        """A look that fails is recorded with its reason; training goes on."""
        step, started = self.trainer.state.global_step, time.monotonic()
        self._taken.add(step)
        completions, failure = self._sample(self.prompts, self.config)
        sampled = time.monotonic() - started
        if failure is None:
            failure = self._on_main(lambda r: r.keep(step, completions, sampled, self._sampler.embeddings))
        if failure is not None:
            self._on_main(lambda recorder: recorder.failed(step, failure, sampled))
        if self.config.on_collapse in ("save", "stop"):
            self._act(control)
        self._pace.spent(time.monotonic() - started)
        blocked, overhead = time.monotonic() - started, self._pace.overhead
        self._on_main(lambda recorder: recorder.blocked(step, blocked, overhead))
        self._on_main(lambda recorder: recorder.report())
        if failure is not None and self.config.on_error == "raise":
            raise LookFailed(failure)

    def _full_look(self) -> None:
        """The rare look at full length, beside the others: it raises no alarm and decides nothing."""
        if self.config.full_tokens is None:
            return
        step, started = self.trainer.state.global_step, time.monotonic()
        completions, failure = self._sample(at_full_length(self.prompts), self.config.at_full_length())
        seconds = time.monotonic() - started
        self._pace.spent(seconds, recurring=False)
        if failure is None:
            embeddings = self._sampler.embeddings
            failure = self._on_main(lambda r: r.keep(step, completions, seconds, embeddings, full=True))
        if failure is not None:
            self._on_main(lambda recorder: recorder.failed(step, failure, seconds, full=True))

    def _sample(self, prompts: Sequence[Prompt], config: WatchConfig) -> tuple[list[Completion], str | None]:
        step = self.trainer.state.global_step
        total = len(prompts) * config.samples // self.ranks.world
        try:
            with bar_of(f"look at step {step}", total, shown=self.ranks.main) as bar:
                return self._sampler.sample(prompts, config, step, bar.update), None
        except LookEnds as error:
            say(f"divwatch: {error}; the run ends, start it again with resume_from_checkpoint")
            raise
        except LookFailed as error:
            return [], str(error)

    def _act(self, control: Any) -> None:
        """Saves or stops at an alarm, all ranks alike: this look's scores are waited for."""
        self._all_wait(lambda recorder: recorder.caught_up(HEARTBEAT))
        wish = self.ranks.from_main(self._on_main(lambda recorder: recorder.take_wish()))
        control.should_save = control.should_save or bool(wish)
        control.should_training_stop = control.should_training_stop or wish == "stop"

    # rank 0

    def _on_main(self, what: Callable[[Recorder], Any], otherwise: Any = None) -> Any:
        """What rank 0 does. It may fail, but neither ends the training nor leaves the other ranks waiting."""
        if self.recorder is None:
            return otherwise
        try:
            return what(self.recorder)
        except Exception as error:
            if self.config.on_error == "raise":
                raise
            say(f"divwatch: {one_line(error)}; training goes on")
            return otherwise

    def _all_wait(self, done: Callable[[Recorder], bool]) -> None:
        """Until `done` on rank 0, which takes HEARTBEAT at most: a long wait must not look like a dead rank to the others."""
        while not self.ranks.from_main(self._on_main(done, True)):
            pass


class _AheadOfTrackers(TrainerCallback):
    """Stands before the trackers' callbacks, which open their runs as training begins and close them as it ends."""

    def __init__(self, watching: DiversityCallback) -> None:
        self._watching = watching

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._attached and self._watching.recorder is not None:
            self._watching.recorder.start_tracking()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._attached:
            self._watching.finish(args, state, control)

    @property
    def _attached(self) -> bool:
        return self._watching in self._watching.trainer.callback_handler.callbacks


class Pace:
    """How long looks have held training up, and whether one more may: rank 0's clock."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._blocked = self._last = 0.0
        self.begin()

    def begin(self) -> None:
        self._began = time.monotonic()

    def spent(self, seconds: float, recurring: bool = True) -> None:
        """A look has held training up; one that is not `recurring` says nothing of how long the next will."""
        self._blocked += seconds
        self._last = seconds if recurring else self._last

    @property
    def overhead(self) -> float:
        """Share of the time since training began, in [0, 1]."""
        elapsed = time.monotonic() - self._began
        return self._blocked / elapsed if elapsed > 0 else 0.0

    def allows_another(self) -> bool:
        """Whether a look as long as the last would keep the overhead within the limit."""
        elapsed = time.monotonic() - self._began
        return self._blocked + self._last <= self.limit * (elapsed + self._last)
