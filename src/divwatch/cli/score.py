"""`divwatch score`: diversity and quality of the outputs in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from divwatch.cli.options import STDOUT, AsJson, write_json
from divwatch.words import counted, signed


def score(
    files: Annotated[
        list[Path],
        typer.Argument(
            help='JSONL; a line: {"id", "prompt", "outputs": [...]} and task, reference, is_correct. Several: compared.'
        ),
    ],
    metrics: Annotated[Optional[str], typer.Option(help="Metrics, separated by commas.")] = None,
    preset: Annotated[
        str, typer.Option(help="paper: each metric exactly as the paper's code computes it; or default.")
    ] = "default",
    encoder: Annotated[Optional[str], typer.Option(help="Sentence encoder: hub name, directory, or minilm.")] = None,
    encoder_max_tokens: Annotated[Optional[int], typer.Option(help="Tokens the encoder reads of an output.")] = None,
    vocab_size: Annotated[int, typer.Option(help="Vocabulary size in EAD.")] = 50257,
    nli_model: Annotated[Optional[str], typer.Option(help="NLI classifier: hub name or directory.")] = None,
    nli_sentences: Annotated[int, typer.Option(help="Aligned sentences a pair for NLI, 0 = all.")] = 3,
    verifier: Annotated[
        Optional[str],
        typer.Option(help="Judge outputs against the reference: gsm8k, math, humaneval, ... (docs/verifiers.md)"),
    ] = None,
    unsafe_code: Annotated[bool, typer.Option(help="Run outputs that are programs without a sandbox.")] = False,
    as_json: AsJson = None,
) -> None:
    """Score the outputs in a file: diversity, correct-answer diversity and quality, with intervals; compare several files.

    Example: divwatch score before.jsonl after.jsonl --metrics ead,sbert --encoder minilm --json scores.json
    """
    from divwatch.metrics.encoder import DEFAULT_ENCODER
    from divwatch.score_file import score_file, score_files

    options: dict[str, Any] = {
        "metrics": None if metrics is None else [m.strip() for m in metrics.split(",") if m.strip()],
        "preset": preset, "encoder": encoder or DEFAULT_ENCODER, "encoder_max_tokens": encoder_max_tokens,
        "vocab_size": vocab_size, "nli_model": nli_model, "nli_sentences": nli_sentences, "verifier": verifier,
        "unsafe_code": unsafe_code,
    }  # fmt: skip
    json_out = None if as_json == STDOUT else as_json
    if len(files) == 1:
        result = score_file(files[0], json_out=json_out, **options)
        if as_json == STDOUT:
            write_json(STDOUT, result, indent=None)
        else:
            show(result)
        _name_repeats(result)
        return
    compared = score_files(files, json_out=json_out, **options)
    if as_json == STDOUT:
        write_json(STDOUT, compared, indent=None)
        return
    for result in compared["scores"].values():
        show(result)
    show_differences(compared)


def _name_repeats(result: dict[str, Any]) -> None:
    if repeats := result["settings"].get("repeated_prompts"):
        fix = "give all outputs of a prompt in one line"
        print(f"{repeats} of {result['n']} prompts repeat another: intervals are too narrow; {fix}", file=sys.stderr)


def show_differences(compared: dict[str, Any]) -> None:
    """How the files differ, a row for each metric, and a sentence for each file."""
    from rich.console import Console
    from rich.table import Table

    from divwatch.outputs.numbers import change, plain

    several = ", simultaneous over files" if len(compared["files"]) > 2 else ""
    table = Table(
        title=f"Difference from {compared['against']} on {counted(compared['prompts'], 'prompt')} [95 %{several}]"
    )
    for name in ("", "metric", "difference", "relative"):
        table.add_column(name, justify="left" if name in ("", "metric") else "right")
    for row in compared["differences"]:
        relative = "" if row["metric"] == "quality/accuracy" else plain(change(row["relative"], *row["relative_ci95"]))
        lo, hi = row["ci95"]
        ends = "" if lo is None else f" [{signed(lo, 4)}, {signed(hi, 4)}]"
        table.add_row(row["file"], row["metric"], f"{signed(row['difference'], 4)}{ends}", relative)
    Console().print(table)
    for line in (*compared["warnings"], *compared["findings"]):
        print(line)


def show(result: dict[str, Any]) -> None:
    """The result as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{counted(result['n'], 'prompt')}, {result['k']} outputs each; mean [95 % interval over prompts]"
    )
    table.add_column("")
    table.add_column("all outputs", justify="right")
    judged = result["correct"]["n_prompts"]
    if judged:
        table.add_column(f"correct outputs ({counted(judged, 'prompt')})", justify="right")
    for name, row in result["metrics"].items():
        cells = [row, result["correct"].get(name)] if judged else [row]
        table.add_row(name, *(_cell(cell) for cell in cells))
    for name, mean in result["quality"].items():
        if mean is not None:
            table.add_row(name, _cell({"mean": mean, "ci95": result["quality_ci95"][name]}))
    for name, row in result["across"].items():
        table.add_row(f"{name} across prompts", _cell(row))
    for name, row in result["outputs"].items():
        table.add_row("unknown tokens" if name == "unknown_tokens" else f"{name} outputs", _cell(row))
    Console().print(table)
    if result.get("unreadable_prompts"):
        from divwatch.outputs.terminal import unreadable_line

        settings = result["settings"]
        counts = result["unreadable_prompts"], result["n"]
        print(unreadable_line(*counts, settings["encoder"], "--encoder", missing=settings["preset"] != "paper"))


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return "-"
    lo, hi = row["ci95"]
    return f"{row['mean']:.4f}" + ("" if lo is None else f" [{lo:.4f}, {hi:.4f}]")
