"""Rank 0's side of a watched run: a look is stored and handed over for scoring; once scored it is recorded and published.

start -> ready -> open -> (submit | record_failure, poll) for each look -> close
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from divwatch.config import NOT_RECORDED, WatchConfig
from divwatch.errors import DivwatchError, one_line
from divwatch.monitor.background import Background, Inline, Scored
from divwatch.monitor.blame_record import add_blame
from divwatch.monitor.budget import BudgetTimetable
from divwatch.monitor.description import RunDescription
from divwatch.monitor.early_checkpoints import EarlyCheckpoints
from divwatch.monitor.panel_choice import PanelChoice
from divwatch.monitor.record import Record
from divwatch.monitor.score_look import to_numbers
from divwatch.monitor.timetable import EvenTimetable
from divwatch.outputs.names import ALARM
from divwatch.outputs.publisher import Publisher
from divwatch.outputs.terminal import before_line, first_look_line, say, unreadable_line
from divwatch.panel.form import at_full_length
from divwatch.records import Completion, Prompt, RunAssessment, ScoredLook
from divwatch.sampling.ranks import LookFailed
from divwatch.schedule import AUTO, count_looks
from divwatch.store.lineage import steps_before
from divwatch.store.reader import NAME, SCORED
from divwatch.store.run_directory import RunDirectory
from divwatch.store.scored import assess_looks, most_looks, read_scored_looks, replay
from divwatch.verify import check_verifiers

if TYPE_CHECKING:
    from divwatch.analysis.assess import Assessment


class Opened(NamedTuple):
    """A run whose record is open: the prompts to watch, the steps that have a look, the settings, and whether to look now."""

    prompts: list[Prompt]
    steps: set[int]
    config: WatchConfig
    look_now: bool


class Requests(NamedTuple):
    """What the looks ask of the trainer. action: "save" or "stop", after an alarm. keep: a checkpoint in case of a fall."""

    action: str | None = None
    keep: bool = False


class Recorder:
    """Decides whether a look is taken, and carries it from its completions to the outputs. Nothing runs before `start`.

    clock: the time in seconds, from which looks are planned.
    """

    def __init__(
        self,
        trainer: Any,
        config: WatchConfig,
        panel: PanelChoice,
        mix: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trainer, self.config, self.panel, self._clock = trainer, config, panel, clock
        self.run = RunDescription(trainer, config, mix)
        self.publisher = Publisher(trainer)
        self.prompts: list[Prompt] = []
        self._max_looks = 1
        self._begin()

    def _begin(self) -> None:
        """The state of one call of `train()`; a search of hyperparameters makes one for each trial."""
        store = RunDirectory(Path(self.run.output_dir) / NAME)
        self.record = Record(store)
        self.full = Record(RunDirectory(store.path / "full"))  # the rare looks at full length
        self.timetable = (BudgetTimetable if self.config.every == AUTO else EvenTimetable)(self.config, self._clock)
        self._first_look = True
        self._costs: dict[int, tuple[float, float]] = {}  # step -> (seconds that training waited, overhead)
        self._published: tuple[int, dict[str, float]] = (-1, {})  # the last look's step and scalars
        self._latest: tuple[int, RunAssessment] | None = None
        self._requests = Requests()
        self._early = EarlyCheckpoints(self.run.output_dir, self.config.min_drop)
        self._blame_failures: set[str] = set()  # reasons that were logged
        self._unreadable = False  # whether the line about it was printed

    # the run

    def start(self) -> None:
        """Starts the search of the training data and the scoring process.

        Raises DivwatchError if a model that the metrics need cannot be loaded.
        """
        self.panel.search_training_data()
        self._scorer = (Background if self.config.background else Inline)(self.config)

    def stop(self) -> None:
        """Ends the scoring process that `start` has started, and lets others write the record, which stays as it is."""
        self._scorer.close()
        self.record.store.release()

    def start_tracking(self) -> None:
        """Opens the W&B run; called before the trackers' own callbacks open theirs."""
        try:
            lineage = self.run.lineage
        except DivwatchError:  # `open` will raise it
            return
        self.publisher.start_tracking(lineage, self.run.stage)

    def ready(self, seconds: float) -> bool:
        """Waits at most `seconds` until the run can be opened; returns whether it can."""
        return self.panel.searched(seconds)

    def open(self, state: Any) -> Opened:
        """Starts the record, or resumes it.

        Raises DivwatchError if it can do neither.
        """
        try:
            with self.config.errors_as_written():
                return self._open(state)
        except DivwatchError:
            raise
        except OSError as error:
            raise DivwatchError(
                f"cannot create or resume {self.record.store.path} ({one_line(error)}): choose another output_dir"
            ) from error
        except Exception as error:
            raise DivwatchError(
                f"this run cannot be watched ({one_line(error)}): train it without divwatch, and report the error"
            ) from error

    def _open(self, state: Any) -> Opened:
        self._begin()
        store = self.record.store
        self._max_looks = count_looks(self.config.every, state.max_steps, self.config.looks)
        resumed = store.exists and state.global_step > 0
        self.prompts = self.panel.choose(self.run.parent)
        check_verifiers(self.prompts, unsafe_code=self.config.unsafe_code)
        if resumed:
            self._keep_coupling()
            self._resume(state)
            self._early.resume(state.global_step, any(event["task"] == "all" for event in store.events()))
        else:
            self._early.start()
            # The parent's record is in this output directory: its new name must be known before it is recorded.
            if self.run.parent and self.run.parent.path.resolve() == store.path.resolve():
                self.run.parent = store.move_aside()
            tracked = self.publisher.open(store.path, self.config.as_dict())
            self.record.start(self._describe(state, self.prompts, self.config, wandb=tracked))
        self.publisher.texts = {prompt.id: prompt.text for prompt in self.prompts}
        self.publisher.offset = steps_before(store)
        self._scorer.open(store, self.prompts, self.config, self._max_looks)
        unscored = store.unscored()
        for step in unscored:
            self._scorer.submit(store, step, 0.0)
        if self.config.full_tokens is not None:
            self._open_full(state, resumed)
        steps = {look["step"] for look in store.looks()} | set(unscored)
        look_now = self.timetable.open(store, state.global_step, state.max_steps, steps)
        shared = self.config.changed()
        shared.rows = None  # the ranks have them, and a data set need not pickle
        return Opened(self.prompts, steps, shared, look_now)

    def _keep_coupling(self) -> None:
        """A run goes on with the random numbers that it began with, so that its looks have the same noise."""
        began = (NOT_RECORDED | self.record.store.info()["settings"])["coupled"]
        config = self.config.changed(coupled=began)
        if config.coupled != self.config.coupled:
            line = f"divwatch: the run began with watch_coupled {str(began).lower()} and continues with it"
            say(config.as_written(line))
        self.config = config

    def _resume(self, state: Any) -> None:
        """Resumes the record at the checkpoint's step. Looks that were scored after the checkpoint was written are added
        to the log history."""
        store, config = self.record.store, self.config
        self.record.claim(config, self.prompts)
        tracked = self.publisher.open(store.path, config.as_dict(), store.info().get("wandb"), self._scored_looks())
        processes = self.trainer.accelerator.num_processes
        self.record.resume(state.global_step, state.max_steps, config, processes, tracked)
        logged = {entry["step"] for entry in state.log_history if ALARM in entry}
        unlogged = {step: look["tasks"] for step, look in self._scored_looks().items() if step not in logged}
        most = most_looks(store, self._max_looks)
        for step, assessment in replay(read_scored_looks(store), config, most) if unlogged else ():
            if step in unlogged:
                self.publisher.restore(state, step, unlogged[step], to_numbers(assessment))

    def _open_full(self, state: Any, resumed: bool) -> None:
        prompts, config = at_full_length(self.prompts), self.config.at_full_length()
        if not (resumed and self.full.store.exists):
            self.full.start(self._describe(state, prompts, config, wandb=None))
        self._scorer.open(self.full.store, prompts, config, 2)

    def _describe(self, state: Any, prompts: Sequence[Prompt], config: WatchConfig, **more: Any) -> dict[str, Any]:
        panel = self.panel
        return self.run.info(
            state.max_steps, panel.described, prompts, config, form=panel.form, held_out=panel.overlap, **more
        )

    # a look

    def allows_look(self, step: int) -> bool:
        """Whether to look now, at a step at which ranks meet."""
        return self.timetable.allows(step, self._scorer.behind)

    def next_meeting(self, step: int) -> int:
        """The step after `step` at which ranks meet to look; there is a look at the last one in any case."""
        return self.timetable.next_meeting(step)

    def submit(
        self, step: int, completions: Sequence[Completion], embeddings: Any, seconds: float, full: bool = False
    ) -> None:
        """Stores a look, which took `seconds` to sample, and hands it over for scoring.

        embeddings: those that the training devices computed, or None. full: a look at full length. Raises LookFailed
        where the look cannot be stored, after recording that.
        """
        started, record = self._clock(), self.full if full else self.record
        try:
            record.store_look(step, completions, embeddings)
            self._scorer.submit(record.store, step, seconds)
        except Exception as error:
            self.record_failure(step, one_line(error), seconds, full)
            raise LookFailed(one_line(error)) from error
        if self._first_look and not full:
            self._first_look = False
            say(first_look_line(len(self.prompts), [c.tokens for c in completions], seconds))
        self._count(step, seconds + self._clock() - started, full)

    def record_failure(self, step: int, reason: str, seconds: float, full: bool = False) -> None:
        """Records a look that failed after `seconds`."""
        say(f"divwatch: the look at step {step} failed and training continues: {reason}")
        (self.full if full else self.record).add_failure(step, reason, seconds=seconds)
        self._count(step, seconds, full)

    def add_blame(self, step: int, measured: Any, data: Any, seconds: float) -> None:
        """Records and publishes blame at the look of `step`, which took `seconds` more."""
        self._count_blame(step, seconds)
        state, rate = self.trainer.state, float(self.trainer.args.learning_rate)
        line = add_blame(self.record.store, step, measured, data, state.log_history, rate, seconds)
        self.publisher.blame(line)

    def record_blame_failure(self, step: int, reason: str, seconds: float) -> None:
        """Blame failed after `seconds`; the look itself stands. Each reason is logged once."""
        self._count_blame(step, seconds)
        kind = re.sub(r"\d+", "", reason)  # free memory differs from look to look
        if kind not in self._blame_failures:
            self._blame_failures.add(kind)
            say(f"divwatch: no blame at step {step}, and training continues: {reason}")

    def _count_blame(self, step: int, seconds: float) -> None:
        self.timetable.waited(seconds)
        looked, _ = self._costs.get(step, (0.0, 0.0))
        self._costs[step] = (looked + seconds, self.timetable.pace.overhead)

    def _count(self, step: int, seconds: float, full: bool) -> None:
        self.timetable.spent(step, seconds, full)
        if not full:
            self._costs[step] = (seconds, self.timetable.pace.overhead)

    def after_step(self, step: int) -> None:
        """After a step at which ranks do not meet: see `poll`."""
        self.timetable.after_step(step)
        self.poll()

    def poll(self, seconds: float = 0.0) -> bool:
        """Records and publishes the looks that were scored since the last call.

        Waits at most `seconds` for those that are being scored; returns whether none is left.
        """
        started = self._clock()
        for scored in self._scorer.wait(seconds) if seconds else self._scorer.poll():
            self._take(scored)
        if seconds:
            self.timetable.waited(self._clock() - started)
        return not self._scorer.busy

    def _take(self, scored: Scored) -> None:
        step, record = scored.step, self._record_at(scored.path)
        if scored.look is None:
            if self.config.on_error == "raise":
                raise scored.raised or RuntimeError(scored.error)
            say(f"divwatch: the look at step {step} is stored but could not be scored: {scored.error}")
            record.add_failure(step, scored.error)
            return
        try:
            (self._publish_full if record is self.full else self._publish)(scored.look)
        except Exception as error:  # the scores are safely stored
            if self.config.on_error == "raise":
                raise
            say(f"divwatch: the look at step {step} is scored but could not be published: {one_line(error)}")

    def _record_at(self, path: str) -> Record:
        return self.full if path == str(self.full.store.path) else self.record

    def _publish(self, look: ScoredLook) -> None:
        seconds, overhead = self._costs.pop(look.step, (look.sample_seconds, 0.0))
        self.record.add_look(look, seconds)
        self.record.store_training(self.trainer.state.log_history)
        if self.config.background:
            self.timetable.scored(look.score_seconds)
        self._latest = (look.step, look.assessment)
        saves = self.config.on_collapse in ("save", "stop")
        for alarm in self.record.add_alarms(look, self._early.before if saves else None):
            # An alarm of the whole panel alerts, saves or stops, as asked; a task's is recorded and shown.
            whole = alarm.task == "all"
            if not whole and len({prompt.task for prompt in self.prompts}) == 1:  # its alarm is that of the panel
                continue
            self.publisher.alarm(alarm, alert=whole and self.config.on_collapse != "log")
            if whole and saves:
                self._early.alarmed = True
                if self._requests.action is None:  # of the alarms of one look, the first
                    say(before_line(self._early.before(alarm), str(self.run.model)))
                self._requests = Requests(action=self.config.on_collapse)
        if saves and self._early.wants(look):
            self._requests = self._requests._replace(keep=True)
        self._published = (look.step, self.publisher.look(look, self.record.store, seconds, overhead))

        if look.unreadable and not self._unreadable:
            self._unreadable = True
            setting = self.config.as_written("watch_encoder")
            say(unreadable_line(look.unreadable, len(self.prompts), self.config.encoder, setting))

    def _publish_full(self, look: ScoredLook) -> None:
        self.full.add_look(look)
        self.publisher.full_look(look)

    # what the looks show

    def pop_requests(self) -> Requests:
        """What the looks since the last call ask of the trainer."""
        requests, self._requests = self._requests, Requests()
        return requests

    def keep_checkpoint(self, step: int, remove: bool) -> None:
        """Keeps the checkpoint that the trainer has saved at `step`; see `EarlyCheckpoints.keep`."""
        self._early.keep(step, remove)

    def scalars_at(self, step: int) -> dict[str, float] | None:
        """The scalars of the look at `step`; None if it has no scores."""
        at, scalars = self._published
        return dict(scalars) if at == step else None

    def assessment(self) -> Assessment | None:
        """What the looks scored so far show, computed from the record; None if there are none."""
        store = self.record.store
        looks = read_scored_looks(store) if store.exists else {}
        return assess_looks(looks, self.config, most_looks(store, self._max_looks)) if looks else None

    def _final_assessment(self) -> RunAssessment | None:
        """That of the last look; computed again only if an earlier look was the last one to be scored."""
        last = max(self._scored_looks(), default=None)
        if self._latest is None or self._latest[0] != last:
            assessment = self.assessment()
            return None if assessment is None else to_numbers(assessment)
        return self._latest[1]

    def _scored_looks(self) -> dict[int, dict[str, Any]]:
        """step -> line of looks.jsonl."""
        return {look["step"]: look for look in self.record.store.looks() if look["status"] in SCORED}

    def close(self) -> None:
        """Gives up the looks that are still being scored, ends the record, and publishes what the run showed."""
        for late in self._scorer.abandon():
            say(f"divwatch: the look at step {late.step} is stored but not scored: {late.error}")
            self._record_at(late.path).add_failure(late.step, late.error, status="unscored")
        self._scorer.close()
        state = self.trainer.state
        self.timetable.close(state.global_step)
        self.record.store_training(state.log_history)
        self.record.end()
        if self.config.on_collapse in ("save", "stop") and state.global_step >= state.max_steps:
            self._early.end()
        self.publisher.close(self._final_assessment(), self.record.store.path)
