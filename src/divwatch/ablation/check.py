"""What can be wrong with a plan is said before its first training: settings that no recipe has, sources that no mix has."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from divwatch.ablation.plan import CHECKOUT, Plan
from divwatch.config import WatchArguments, WatchConfig
from divwatch.errors import DivwatchError
from divwatch.files import read_jsonl, read_yaml
from divwatch.mixes.columns import source_name
from divwatch.mixes.definition import check_sources, find_mix, with_selection
from divwatch.mixes.show import described
from divwatch.recipe import MixArguments, selection_in

RECIPES = CHECKOUT / "recipes"
_CONFIGS = {"sft": "SFTConfig", "dpo": "DPOConfig", "grpo": "GRPOConfig"}
_OF_PARSER = {"env"}  # TRL's own key: environment variables


def check_plan(plan: Plan) -> None:
    """Raises DivwatchError for a setting that the recipe does not have, a wrong `watch_...` value, or an unknown source.

    What a script of the user's own reads is not known here.
    """
    if plan.recipe.resolve().parent != RECIPES.resolve():
        return
    base = read_yaml(plan.config)
    _check_names(plan, base)
    watching = {**base, **plan.settings}
    WatchConfig.from_recipe(watching)
    in_file = cache(_sources_in)  # a file is read once, not for each run
    for run in plan.runs():
        _check_sources({**base, **run.settings}, in_file)


def _check_names(plan: Plan, base: Mapping[str, Any]) -> None:
    import trl

    kinds = (MixArguments, getattr(trl, _CONFIGS[plan.recipe.stem]), trl.ModelConfig, WatchArguments)
    known = {field.name for kind in kinds for field in dataclasses.fields(kind)} | _OF_PARSER
    for where, settings in ((plan.config, base), ("the plan", plan.settings)):
        for name in settings:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1, 0.75)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise DivwatchError(f"{where} has {name!r}, which recipe {plan.recipe.stem} does not know{hint}")


def _check_sources(settings: Mapping[str, Any], in_file: Callable[[Path], list[str]]) -> None:
    mix = str(settings.get("mix") or "")
    asked = selection_in(settings)
    if mix.startswith("tiny/"):
        check_sources(asked, [source["name"] for source in described(mix)["sources"]])
    elif mix.endswith((".json", ".jsonl")):
        check_sources(asked, in_file(Path(mix)))
    elif mix:
        with_selection(find_mix(mix), asked)


def _sources_in(file: Path) -> list[str]:
    """The sources that a file of TRL rows names, in the order of their first row."""
    names = dict.fromkeys(source_name(row["source"]) if "source" in row else None for _, row in read_jsonl(file))
    return [file.stem] if set(names) == {None} else list(dict.fromkeys(map(source_name, names)))
