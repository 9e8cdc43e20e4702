"""What `divwatch score FILE.jsonl` does: check the whole file, then score it in chunks, then write the result at once.

The file is read twice, a line at a time: a mistake in the last line is told before the first text is encoded, and
memory does not grow with the texts.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from divwatch import __version__
from divwatch.analysis.intervals import Interval, bootstrap_mean, bootstrap_means, jackknife
from divwatch.analysis.summary import summarise
from divwatch.errors import DivwatchError
from divwatch.files import read_jsonl, without_nan, write_atomically
from divwatch.metrics import embedding, lexical, nli, paper
from divwatch.metrics.encoder import DEFAULT_ENCODER, load_encoder
from divwatch.metrics.scoring import PLAIN, Metric, TextEncoder, needs_encoder, score_prompts
from divwatch.records import Prompt, PromptSamples, PromptScores
from divwatch.verify import ask
from divwatch.verify.judgement import Judgement, Verifier
from divwatch.verify.thinking import final_answer

DEFAULT_METRICS = {"default": ("ead", "sbert", "vendi", "distinct_answers"), "paper": ("ead", "sbert", "vendi")}
CHUNK = 128  # prompts scored at a time: enough to fill the encoder's batches, few enough to keep memory flat
ACROSS = 1000  # most prompts that outputs are compared across

Advance = Callable[[int], None]


def score_file(
    path: str | Path,
    *,
    metrics: Sequence[str] | None = None,
    preset: str = "default",
    encoder: str = DEFAULT_ENCODER,
    encoder_max_tokens: int | None = None,
    vocab_size: int = lexical.GPT2_VOCABULARY,
    nli_model: str | None = None,
    nli_sentences: int = nli.SENTENCES,
    verifier: str | None = None,
    unsafe_code: bool = False,
    json_out: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Score the outputs in a JSONL file; returns what it writes to `json_out`. Options are those of `divwatch score`.

    The result: `n`, `k`, `metrics` {name: {mean, ci95, per_prompt}}, `correct` {the same over correct outputs,
    n_prompts}, `is_correct` {id: [K]}, `quality` {accuracy_at_1, pass_at_k, majority_at_k}; beside these
    `quality_ci95`, `outputs` (shares usable and looping), `across` (outputs of different prompts), `tasks` (means by
    task, where there are several), `settings`. Without a verifier the text itself is the answer that `distinct_answers`
    and the majority vote go by. Raises DivwatchError, one line, for anything wrong in the options, the file or the
    models; then nothing was written.
    """
    path, out = Path(path), None if json_out is None else _writable(Path(json_out))
    rules = _rules(preset, metrics, vocab_size, nli_model, nli_sentences, verifier, unsafe_code, seed)
    with _bars(progress) as bar:
        file = _check_file(path, rules, bar("checking", path.stat().st_size if path.is_file() else None))
        models = _load_models(rules, encoder, encoder_max_tokens, nli_model)
        scored = _score(path, file, rules, models, bar("scoring", file.n))
    result = _result(scored, file, rules, models)
    result["settings"] |= {
        "encoder": encoder if models.encoder else None,
        "encoder_max_tokens": getattr(models.encoder, "max_tokens", None),
        "nli_model": nli_model,
    }
    if out is not None:
        _write(out, result)
    return result


# what is asked for


@dataclass(frozen=True)
class _Rules:
    """How a line becomes samples and scores, checked."""

    preset: str
    metrics: tuple[str, ...]
    vocab_size: int
    nli_sentences: int
    verifier: str | None
    verify: Verifier | None
    seed: int

    @property
    def paper(self) -> bool:
        return self.preset == "paper"


def _rules(
    preset: str,
    metrics: Sequence[str] | None,
    vocab_size: int,
    nli_model: str | None,
    nli_sentences: int,
    verifier: str | None,
    unsafe_code: bool,
    seed: int,
) -> _Rules:
    if preset not in DEFAULT_METRICS:
        raise DivwatchError(f"unknown preset {preset!r}: choose from {', '.join(DEFAULT_METRICS)}")
    if vocab_size < 2:
        raise DivwatchError(f"vocabulary size is {vocab_size}: give the number of tokens of a vocabulary, at least 2")
    if nli_sentences < 0:
        raise DivwatchError(f"NLI sentences is {nli_sentences}: give a number of sentences, or 0 for all")
    names = DEFAULT_METRICS[preset] + (("nli",) if nli_model else ()) if metrics is None else tuple(metrics)
    names = tuple(dict.fromkeys(name.strip() for name in names))
    if not names:
        raise DivwatchError("no metric is asked for: name one, or leave the option out")
    for name in names:
        Metric.parse(name, PLAIN)
    verify = None
    if verifier is not None:
        from divwatch.verify import get_verifier

        verify = get_verifier(verifier, unsafe_code=unsafe_code)
    return _Rules(preset, names, vocab_size, nli_sentences, verifier, verify, seed)


@dataclass(frozen=True)
class _Models:
    encoder: TextEncoder | None
    nli: nli.PairScorer | None


def _load_models(rules: _Rules, encoder: str, max_tokens: int | None, nli_model: str | None) -> _Models:
    needs_nli = "nli" in rules.metrics
    return _Models(
        load_encoder(encoder, max_tokens) if needs_encoder(rules.metrics) else None,
        nli.load_nli(nli_model or nli.DEFAULT_NLI_MODEL) if needs_nli else None,
    )


# reading


@dataclass(frozen=True)
class _Row:
    """A line that was checked. `where` names it in messages."""

    where: str
    id: str
    task: str
    outputs: list[str]
    prompt: str
    reference: Any
    has_reference: bool
    is_correct: list[bool] | None


def _rows(path: Path, advance: Advance | None = None) -> Iterator[_Row]:
    """The lines of the file, checked one by one; blank ones are passed over. `advance` gets the bytes read."""
    try:
        for number, row in read_jsonl(path, advance):
            yield _row(row, f"{path} line {number}")
    except OSError as error:
        raise DivwatchError(f"cannot read {path} ({error.strerror}): give a JSONL file") from None


def _row(row: dict[str, Any], where: str) -> _Row:
    name, outputs, flags = row.get("id"), row.get("outputs"), row.get("is_correct")
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise DivwatchError(f'{where} has no usable "id": give a string or a whole number')
    if not isinstance(outputs, list):
        raise DivwatchError(f'{where} has no list "outputs": give the K texts sampled for its prompt')
    odd = next((i for i, output in enumerate(outputs) if not isinstance(output, str)), None)
    if odd is not None:
        raise DivwatchError(f"{where} has a {type(outputs[odd]).__name__} as output {odd}: give texts only")
    try:
        "".join(outputs).encode()
    except UnicodeEncodeError:
        raise DivwatchError(f"{where} has an output with half a surrogate pair: write the file as UTF-8") from None
    if len(outputs) < 2:
        raise DivwatchError(f"{where} has {len(outputs)} output(s): diversity needs at least 2 for each prompt")
    if flags is not None and not (
        isinstance(flags, list) and len(flags) == len(outputs) and all(flag in (True, False) for flag in flags)
    ):
        raise DivwatchError(f'{where} has "is_correct" that does not fit: give {len(outputs)} times true or false')
    task = row.get("task")
    return _Row(
        where,
        str(name),
        "" if task is None else str(task),
        outputs,
        str(row.get("prompt") or ""),
        row.get("reference"),
        "reference" in row,
        None if flags is None else [bool(flag) for flag in flags],
    )


@dataclass(frozen=True)
class _File:
    n: int
    k: int
    tasks: int


def _check_file(path: Path, rules: _Rules, advance: Advance) -> _File:
    seen: set[str] = set()
    tasks: set[str] = set()
    k = 0
    for row in _rows(path, advance):
        if row.id in seen:
            raise DivwatchError(f"{row.where} repeats the id {row.id!r}: give every prompt its own")
        if seen and len(row.outputs) != k:
            raise DivwatchError(
                f"{row.where} has {len(row.outputs)} outputs, lines before it {k}: give every prompt the same number"
            )
        if rules.verify is not None and not row.has_reference:
            raise DivwatchError(f'{row.where} has no "reference": verifier {rules.verifier!r} needs one')
        k = len(row.outputs)
        seen.add(row.id)
        tasks.add(row.task)
    if not seen:
        raise DivwatchError(f"{path} holds no prompt: give a line for each")
    return _File(len(seen), k, len(tasks))


def _judge(rows: Sequence[_Row], rules: _Rules) -> list[PromptSamples]:
    """The samples of some lines; the verifier sees them together, each text of a line once."""
    read = [_texts(row, rules) for row in rows]
    if rules.verify is None:
        return [_unverified(row, texts, usable) for row, (texts, usable) in zip(rows, read, strict=True)]
    asked = [(i, text) for i, (texts, _) in enumerate(read) for text in dict.fromkeys(texts)]
    prompts = [Prompt(row.id, row.task, row.prompt, reference=row.reference) for row in rows]
    judged = ask(rules.verify, [text for _, text in asked], [prompts[i] for i, _ in asked])
    found = dict(zip(asked, judged, strict=True))
    samples = []
    for i, (row, (texts, usable)) in enumerate(zip(rows, read, strict=True)):
        of_row = [found[i, text] for text in texts]
        _refuse_all_unsaid(row, of_row, rules)
        correct = [fit and bool(j.correct) for j, fit in zip(of_row, usable, strict=True)]
        answers = [j.answer if fit else None for j, fit in zip(of_row, usable, strict=True)]
        samples.append(PromptSamples(row.id, row.task, texts, usable, correct, answers))
    return samples


def _texts(row: _Row, rules: _Rules) -> tuple[list[str], list[bool]]:
    """Answers and whether they are usable: the paper keeps every output, else one without an answer after its thought
    is not."""
    if rules.paper:
        return [paper.strip_cot(text) for text in row.outputs], [True] * len(row.outputs)
    found = [final_answer(text) for text in row.outputs]
    return [text or raw for text, raw in zip(found, row.outputs, strict=True)], [bool(text) for text in found]


def _unverified(row: _Row, texts: list[str], usable: list[bool]) -> PromptSamples:
    answers = [text if fit else None for text, fit in zip(texts, usable, strict=True)]
    correct = None if row.is_correct is None else [c and u for c, u in zip(row.is_correct, usable, strict=True)]
    return PromptSamples(row.id, row.task, texts, usable, correct, answers)


def _refuse_all_unsaid(row: _Row, judged: Sequence[Judgement], rules: _Rules) -> None:
    """Where a verifier can say nothing of a line, the line is at fault; unless its answers took too long."""
    reason = judged[0].reason or ""
    if all(j.correct is None for j in judged) and not reason.startswith("timed out"):
        raise DivwatchError(f"{row.where}: verifier {rules.verifier!r} failed ({reason}): check the reference")


# scoring


@dataclass
class _Scored:
    """What is kept of the file: numbers a prompt, flags, and the outputs that are compared across prompts."""

    ids: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    chunks: list[dict[str, np.ndarray]] = field(default_factory=list)
    is_correct: dict[str, list[bool]] = field(default_factory=dict)
    across: list[str] = field(default_factory=list)

    def values(self) -> dict[str, np.ndarray]:
        """Every key over all prompts, NaN where a chunk had none of it."""
        keys = dict.fromkeys(key for chunk in self.chunks for key in chunk)
        sizes = [len(chunk["quality/usable"]) for chunk in self.chunks]
        return {
            key: np.concatenate(
                [chunk.get(key, np.full(n, np.nan)) for chunk, n in zip(self.chunks, sizes, strict=True)]
            )
            for key in keys
        }


def _score(path: Path, file: _File, rules: _Rules, models: _Models, advance: Advance) -> _Scored:
    scored = _Scored()
    rng = paper.sentence_rng() if rules.paper else None
    chosen = _choose(file.n, rules.seed)
    rows = _rows(path)
    while chunk := _judge(list(islice(rows, CHUNK)), rules):
        scores = _score_chunk(chunk, rules, models, rng)
        for position, sample in enumerate(chunk, len(scored.ids)):
            if sample.correct is not None:
                scored.is_correct[sample.id] = sample.correct
            first = next((text for text, fit in zip(sample.outputs, sample.usable, strict=True) if fit), None)
            if first is not None and (chosen is None or position in chosen):
                scored.across.append(first)
        scored.ids += scores.ids
        scored.tasks += scores.tasks
        scored.chunks.append(scores.values)
        advance(len(chunk))
    return scored


def _choose(n: int, seed: int) -> set[int] | None:
    """The prompts that are compared with each other; None: all."""
    return None if n <= ACROSS else set(np.random.default_rng(seed).choice(n, ACROSS, replace=False).tolist())


def _score_chunk(chunk: list[PromptSamples], rules: _Rules, models: _Models, rng: random.Random | None) -> PromptScores:
    scores = score_prompts(
        chunk,
        rules.metrics,
        models.encoder,
        models.nli,
        rules.seed,
        subsets=PLAIN,
        vocab_size=rules.vocab_size,
        nli_sentences=rules.nli_sentences,
        nli_rng=rng,
    )
    values = scores.values
    values.pop("across/sbert", None)  # taken over the whole file instead
    if rules.paper:
        _as_in_the_paper(chunk, values)
    return scores


def _as_in_the_paper(chunk: list[PromptSamples], values: dict[str, np.ndarray]) -> None:
    if "diversity/nli" in values:
        values["diversity/nli"] = np.nan_to_num(values["diversity/nli"])  # nothing to compare counts as no diversity
    values["quality/usable"] = np.array([np.mean([bool(text) for text in s.outputs]) for s in chunk])
    for i, sample in enumerate(chunk):
        if sample.correct is not None and sample.answers is not None:
            values["quality/accuracy"][i] = paper.first_is_correct(sample.correct)
            values["quality/majority_at_k"][i] = paper.majority(sample.answers, sample.correct)


# the result

_QUALITY = {"accuracy_at_1": "accuracy", "pass_at_k": "pass_at_k", "majority_at_k": "majority_at_k"}


def _result(scored: _Scored, file: _File, rules: _Rules, models: _Models) -> dict[str, Any]:
    values = scored.values()
    keys = list(values)
    table = np.column_stack([values[key] for key in keys])
    means = dict(zip(keys, bootstrap_means(table, seed=rules.seed), strict=True))
    empty = Interval(float("nan"), float("nan"), float("nan"), 0)
    quality = {name: means.get(f"quality/{key}", empty) for name, key in _QUALITY.items()}

    def group(prefix: str) -> dict[str, Any]:
        found = {}
        for name in rules.metrics:
            if (key := f"{prefix}/{name}") in values:
                per_prompt = dict(zip(scored.ids, values[key].tolist(), strict=True))
                found[name] = _interval(means[key]) | {"per_prompt": per_prompt}
        return found

    at_least_two = np.array([sum(flags) >= 2 for flags in scored.is_correct.values()], dtype=bool)
    result: dict[str, Any] = {
        "n": file.n,
        "k": file.k,
        "metrics": group("diversity"),
        "correct": group("correct_diversity") | {"n_prompts": int(at_least_two.sum())},
        "is_correct": scored.is_correct,
        "quality": {name: interval.mean for name, interval in quality.items()},
        "quality_ci95": {name: _interval(interval)["ci95"] for name, interval in quality.items()},
        "outputs": {name: _interval(means[f"quality/{name}"]) for name in ("usable", "repetition")},
        "across": {name: _interval(interval) for name, interval in _across(scored.across, rules, models).items()},
    }
    if file.tasks > 1:
        result["tasks"] = summarise(PromptScores(scored.ids, scored.tasks, values), seed=rules.seed)
    result["settings"] = {
        "divwatch": __version__,
        "preset": rules.preset,
        "metrics": list(rules.metrics),
        "vocab_size": rules.vocab_size,
        "nli_sentences": rules.nli_sentences,
        "verifier": rules.verifier,
        "seed": rules.seed,
    }
    return without_nan(result)


def _across(texts: list[str], rules: _Rules, models: _Models) -> dict[str, Interval]:
    """Diversity of one output a prompt, the first usable one: how much outputs depend on the prompt."""
    found: dict[str, Interval] = {}
    if len(texts) < 2:
        return found
    if "ead" in rules.metrics:
        found["ead"] = jackknife(lambda at: lexical.ead([texts[i] for i in at], rules.vocab_size), len(texts))
    if models.encoder is not None and {"sbert", "vendi"} & set(rules.metrics):
        rows = models.encoder.encode(texts)
        if "sbert" in rules.metrics:
            found["sbert"] = bootstrap_mean(embedding.across_input_values(rows), seed=rules.seed)
        if "vendi" in rules.metrics:
            found["vendi"] = jackknife(lambda at: _vendi(rows[at]), len(texts))
    return found


def _vendi(rows: np.ndarray) -> float:
    """Vendi score of many outputs [n, d]: with n above d the matrix of second moments has the same spectrum as cosines."""
    return embedding.vendi_of_spectrum(np.linalg.eigvalsh(rows.T.astype(float) @ rows / len(rows)))


def _interval(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "ci95": [interval.lo, interval.hi], "n": interval.n}


def show(result: dict[str, Any]) -> None:
    """The result as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['n']} prompts, {result['k']} outputs each; mean [95 % interval over prompts]")
    table.add_column("")
    table.add_column("all outputs", justify="right")
    judged = result["correct"]["n_prompts"]
    if judged:
        table.add_column(f"correct outputs ({judged} prompts)", justify="right")
    for name, row in result["metrics"].items():
        cells = [row, result["correct"].get(name)] if judged else [row]
        table.add_row(name, *(_cell(cell) for cell in cells))
    for name, mean in result["quality"].items():
        if mean is not None:
            table.add_row(name, _cell({"mean": mean, "ci95": result["quality_ci95"][name]}))
    for name, row in result["across"].items():
        table.add_row(f"{name} across prompts", _cell(row))
    for name, row in result["outputs"].items():
        table.add_row(f"{name} outputs", _cell(row))
    Console().print(table)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return "-"
    lo, hi = row["ci95"]
    return f"{row['mean']:.4f}" + ("" if lo is None else f" [{lo:.4f}, {hi:.4f}]")


# files and bars


def _writable(out: Path) -> Path:
    if out.is_dir() or not out.absolute().parent.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise DivwatchError(f"cannot write {out}: give a file in a folder that exists and can be written")
    return out


def _write(out: Path, result: dict[str, Any]) -> None:
    try:
        write_atomically(out, json.dumps(result, allow_nan=False) + "\n")
    except OSError as error:
        raise DivwatchError(f"cannot write {out} ({error.strerror}): make room, or give another file") from None


@contextlib.contextmanager
def _bars(shown: bool) -> Iterator[Callable[[str, int | None], Advance]]:
    """Progress bars on standard error: `bar(title, total)` gives the function that advances one."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # A bar that nobody watches would leave blank lines before an error.
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:

        def bar(title: str, total: int | None) -> Advance:
            task = progress.add_task(title, total=total)
            return lambda amount: progress.advance(task, amount)

        yield bar
