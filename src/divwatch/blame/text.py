"""The result of blame in words: a table of sources, the check on itself, rows, and the command that trains a better mix."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divwatch.mixes import MixReport


def result_lines(values: dict[str, Any]) -> list[str]:
    """The result for the terminal: sources by effect, the check on itself, the rows at both ends."""
    tasks = list(next(iter(values["sources"].values())))
    ordered = sorted(values["sources"], key=lambda s: values["sources"][s]["all"]["effect"])
    width = max(map(len, [*ordered, "source"]))
    level = values["diversity"]["all"]
    lines = [
        f"Predicted change of diversity by source, over {values['steps']} step{'s' * (values['steps'] != 1)} "
        f"({100 * level:.1f} points at the start); 95 % intervals hold for all sources at once.",
        f"{'source':{width}}  {'points':>8}  {'95 % interval':>20}  {'per cent':>8}  {'if left out':>11}",
    ]
    for name in ordered:
        e = values["sources"][name]["all"]
        interval = f"[{_points(e['ci95'][0])}, {_points(e['ci95'][1])}]"
        mark = "  narrows" if name in values["blamed"] else ""
        lines.append(
            f"{name:{width}}  {_points(e['effect']):>8}  {interval:>20}  {_number(e['percent']):>8}  "
            f"{_points(-e['instead']):>11}{mark}"
        )
    if len(tasks) > 2:
        lines += ["", "By task, points:", f"{'source':{width}}  " + "  ".join(f"{t[:12]:>12}" for t in tasks[1:])]
        for name in ordered:
            cells = [_points(values["sources"][name][t]["effect"]) for t in tasks[1:]]
            lines.append(f"{name:{width}}  " + "  ".join(f"{cell:>12}" for cell in cells))
    e = values["explained"]
    check = f"The whole mix: predicted {_points(e['predicted'])} points"
    if e["observed"] is not None:
        check += f", observed {_points(e['observed'])}"
        check += f"; explained {e['share']:.2f} of it" if e["share"] is not None else ""
    if len(values["checkpoints"]) > 1:
        check += f". The rows' own gradients add up to {_points(e['first_order'])}"
    lines += ["", check + ".", "", "Rows that narrow most (points, if every row were like this one):"]
    half = (len(values["rows"]) + 1) // 2
    lines += [_row_line(row) for row in values["rows"][:half]]
    return [*lines, "Rows that narrow least:", *(_row_line(row) for row in values["rows"][half:])]


def _row_line(row: dict[str, Any]) -> str:
    text = " | ".join(row["text"].split("\n"))
    return f"  {_points(row['effect']):>8}  {row['source']}: {text[:140]}{'...' if len(text) > 140 else ''}"


def _points(value: float | None) -> str:
    if value is None:
        return "-"
    points = 100 * value
    return f"{points:+.2f}" if abs(points) >= 0.1 else f"{points:+.1g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def suggestion_lines(factors: Mapping[str, float] | None, mix: MixReport, config: Path | None) -> list[str]:
    """Mix settings and the command of the recipe that trains with them: factors on top of the weights that `mix` had."""
    if factors is None:
        return ["", "No source narrows the model more than the others do: no change of the mix is suggested."]
    had = mix.selection
    changed = {s: f * had["weight"].get(s, 1.0) for s, f in factors.items() if f != 1}
    weights = [f"{source}={factor:.3g}" for source, factor in {**had["weight"], **changed}.items()]
    settings = ["--mix", mix.given, "--mix_weight", *weights, "--mix_rows", str(mix.taken), "--mix_repeat", "true"]
    for option, sources in (("--mix_only", had["only"]), ("--mix_drop", had["drop"])):
        settings += [option, *sources] if sources else []
    settings += ["--local_data", mix.local_data] if mix.local_data else []
    recipe = "dpo" if mix.kind == "preference" else "sft"
    chosen = ["--config", str(config)] if config else []
    command = ["accelerate", "launch", f"recipes/{recipe}.py", *chosen, *settings]
    return [
        "",
        f"To halve the predicted loss at the same number of rows: mix_weight {' '.join(weights)}",
        f"    {shlex.join(command)}",
        "This counts on a third of the effect that the table gives, as trainings show: measure the new run. Where leaving the "
        "sources out (0) is not enough, the rest of the mix narrows too.",
    ]
