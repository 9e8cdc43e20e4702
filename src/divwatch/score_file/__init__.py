"""`divwatch score FILE.jsonl`: check the whole file, then score it in chunks, then write the result at once.

The file is read twice, a line at a time: a mistake in the last line is reported before the first text is encoded, and
memory does not grow with the texts.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.files import write_atomically
from divwatch.metrics import lexical, nli
from divwatch.metrics.encoder import DEFAULT_ENCODER
from divwatch.score_file.result import make_result
from divwatch.score_file.rows import Advance, check_file
from divwatch.score_file.rules import DEFAULT_METRICS, load_models, make_rules
from divwatch.score_file.scoring import score_rows


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
    rules = make_rules(preset, metrics, vocab_size, nli_model, nli_sentences, verifier, unsafe_code, seed)
    with _bars(progress) as bar:
        file = check_file(path, rules.verifier, bar("checking", path.stat().st_size if path.is_file() else None))
        models = load_models(rules, encoder, encoder_max_tokens, nli_model)
        scored = score_rows(path, file, rules, models, bar("scoring", file.n))
    result = make_result(scored, file, rules, models)
    result["settings"] |= {
        "encoder": encoder if models.encoder else None,
        "encoder_max_tokens": getattr(models.encoder, "max_tokens", None),
        "nli_model": nli_model,
    }
    if file.repeats:
        result["settings"]["repeated_prompts"] = file.repeats
    if out is not None:
        _write(out, result)
    return result


def score_files(paths: Sequence[str | Path], *, json_out: str | Path | None = None, **options: Any) -> dict[str, Any]:
    """Scores several files and compares them, paired by prompt. options: those of `score_file`.

    The result: `files`, `against` (the first), `prompts`, `differences` [{file, metric, difference, ci95, relative,
    relative_ci95, p, prompts}], `findings` (a sentence for each file), `warnings`, `scores` {file: the result of
    `score_file`}. Raises DivwatchError as `score_file` does, and if the files have no prompt in common.
    """
    from divwatch.score_file.compare import common_metrics, compare_scores

    files, out = [Path(path) for path in paths], None if json_out is None else _writable(Path(json_out))
    ks = [check_file(path, None, lambda amount: None).k for path in files]
    given = options.pop("metrics", None)
    metrics = given or (
        *DEFAULT_METRICS[options.get("preset", "default")],
        *(["nli"] if options.get("nli_model") else []),
    )
    results = [score_file(path, metrics=common_metrics(metrics, ks), **options) for path in files]
    compared = compare_scores(files, results, options.get("seed", 0))
    compared["scores"] = {str(path): result for path, result in zip(files, results, strict=True)}
    if out is not None:
        _write(out, compared)
    return compared


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
