"""A run directory from a dump: the looks of a run that was never watched.

The chosen completions go through what a live look goes through: stored, verified, scored, assessed, recorded. Only the
verification differs: a completion is correct if its score says so.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.imports.files import Dump
from divwatch.imports.groups import Choice, Spool, choose_groups
from divwatch.monitor.description import describe_run
from divwatch.monitor.record import Record
from divwatch.monitor.score_look import LookScorer, load_models
from divwatch.outputs.terminal import bar_of
from divwatch.records import Completion, Prompt, PromptSamples, ScoredLook
from divwatch.store.pairing import recorded_prompts
from divwatch.store.run_directory import RunDirectory
from divwatch.verify.completions import strip_reasoning
from divwatch.words import counted

CORRECT_ABOVE = 0.5
PANEL = "imported"
Say = Callable[[str], object]


def import_run(
    dump: Dump,
    out: Path,
    config: WatchConfig,
    *,
    stage: str = "imported",
    correct_above: float = CORRECT_ABOVE,
    parent: RunDirectory | None = None,
    samples: int | None = None,
    say: Say = lambda line: None,
) -> tuple[RunDirectory, list[ScoredLook]]:
    """Writes `<out>/divwatch/` and returns it with its looks, one a step.

    config: metrics, encoder, seed, alpha, min_drop, and `prompts`, the most prompts of a look. correct_above: a completion
    is correct if its score is larger. samples: completions of each prompt (default: what nine of ten groups have).
    say: gets a line about what was chosen and left out. Raises DivwatchError if nothing can be compared, or `out` holds a
    run already.
    """
    run = RunDirectory(out / "divwatch")
    if run.exists:
        raise DivwatchError(f"{run.path} holds a run already: choose another --out")
    choice = choose_groups(dump, config.prompts, samples)
    config = replace(config, samples=choice.k)
    with tempfile.TemporaryDirectory(prefix="divwatch-import-") as folder:
        spool = Spool(dump, choice, Path(folder))
        prompts = _prompts(choice, spool, parent)
        for line in describe(dump, choice, len(prompts), correct_above):
            say(line)
        models = load_models(config)
        record = Record(run)
        record.start(
            describe_run(
                stage=stage, lineage=config.lineage or out.name, model=PANEL, output_dir=str(out), parent=parent,
                config=config, panel={"name": PANEL}, prompts=prompts, max_steps=max(choice.steps[-1], 1),
                trainer="import", imported={"files": [str(f) for f in dump.files[:100]], "paired": choice.paired},
            )
        )  # fmt: skip
        scored = _ScoredByFile(correct_above)
        scorer = LookScorer(run, prompts, config, len(choice.steps), models, scored.samples)
        looks = []
        with bar_of("scoring", len(choice.steps)) as bar:
            for step in choice.steps:
                looks.append(_look(record, scorer, scored, spool, prompts, step))
                bar.update(1)
    return run, looks


def _look(
    record: Record, scorer: LookScorer, scored: _ScoredByFile, spool: Spool, prompts: Sequence[Prompt], step: int
) -> ScoredLook:
    rows = sorted(spool.rows(step))
    record.store_look(
        step,
        [
            Completion(prompts[at].id, prompts[at].task, sample, text, finished=True, tokens=0)
            for at, sample, text, _ in rows
        ],
    )
    scored.scores = {(prompts[at].id, sample): score for at, sample, _, score in rows}
    look = scorer.score(step, 0.0)
    record.add_look(look)
    record.add_alarms(look, None)
    return look


def _prompts(choice: Choice, spool: Spool, parent: RunDirectory | None) -> list[Prompt]:
    """A prompt for each place, with the id that `parent` has for it: stages need not have the same prompts.

    Where prompts do not recur, its text says that it stands for another one at each step.
    """
    recorded = recorded_prompts(parent.info()) if parent and choice.paired else {}
    ids = {(prompt.get("task"), prompt.get("text")): id for id, prompt in recorded.items()}
    taken = set(recorded)
    prompts = []
    for at in range(max(len(keys) for keys in choice.groups.values())):
        task = spool.firsts[at].task or PANEL
        text = spool.firsts[at].prompt if choice.paired else "(another prompt at each step)"
        new = (id for n in count(at) if (id := f"{task}/{n}") not in taken)
        prompts.append(Prompt(ids.get((task, text)) or next(new), task, text))
        taken.add(prompts[-1].id)
    return prompts


def describe(dump: Dump, choice: Choice, prompts: int, correct_above: float) -> list[str]:
    """What was read, chosen and left out, a line each."""
    read = f"{counted(len(dump.files), 'file')} ({', '.join(dump.formats)}), {counted(len(choice.steps), 'step')}"
    correct = f"correct means a score above {correct_above:g}" if dump.scored else "none has a score, so none is judged"
    lines = [f"{read}: {counted(prompts, 'prompt')} x {choice.k} completions are compared; {correct}"]
    if choice.small:
        lines.append(
            f"{choice.small:,} groups with fewer than {choice.k} completions are left out (--samples sets the number)"
        )
    if not choice.paired:
        lines.append(
            "prompts do not recur from step to step: means over different prompts are compared, so intervals are wider, and "
            "an ordered curriculum shows as a change"
        )
    if len(dump.rewards) > 1:
        lines.append(f"of the rewards {', '.join(dump.rewards[:8])} the first is the score: --score takes another")
    if dump.filters:
        skipped = dict.fromkeys(name for names in dump.filters.values() for name in names)
        lines.append(
            f"lm-eval wrote each completion once per filter: only {', '.join(dump.filters)} is read, not {', '.join(skipped)}"
        )
    if shared := [step for step in choice.steps if len(dump.shared[step]) > 1]:
        paths = ", ".join(str(dump.paths[place]) for place in sorted(dump.shared[shared[0]])[:4])
        lines.append(
            f"step {shared[0]} holds completions of several paths ({paths}): to compare stages, import each by itself with "
            "--baseline"
        )
    if dump.not_dumps:
        hold = "holds" if dump.not_dumps == 1 else "hold"
        damaged = f" ({len(dump.damaged):,} cannot be read as rows: {dump.damaged[0]})" if dump.damaged else ""
        lines.append(f"{counted(dump.not_dumps, 'other file')} in the folder {hold} no completions{damaged}")
    if dump.left_out:
        lines.append(f"{dump.left_out.total():,} rows are left out ({dump.reasons()})")
    return lines


class _ScoredByFile:
    """In place of verifiers: a completion is correct if its score in the dump is above a threshold."""

    def __init__(self, above: float) -> None:
        self.above = above
        self.scores: dict[tuple[str, int], float | None] = {}

    def samples(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, unsafe_code: bool = False
    ) -> tuple[list[PromptSamples], Counter[str]]:
        return [self._judged(sample) for sample in strip_reasoning(prompts, completions)], Counter()

    def _judged(self, sample: PromptSamples) -> PromptSamples:
        scores = [self.scores[sample.id, k] for k in range(len(sample.outputs))]
        if any(score is None for score in scores):
            return sample
        right = [score is not None and score > self.above for score in scores]
        return replace(sample, correct=[r and u for r, u in zip(right, sample.usable, strict=True)])
