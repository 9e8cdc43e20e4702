"""The prompts that a run watched, from its record: for `measure --like`, and for the run that continues it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.panel import EVAL_DATASET, choose, fingerprint, load_panel
from divwatch.panel.form import in_form, in_forms, with_chat
from divwatch.records import Prompt
from divwatch.store.run_directory import RunDirectory


def panel_of_run(run: RunDirectory) -> tuple[dict[str, Any], list[Prompt]]:
    """What run.json says of a run's panel besides its prompts, and the prompts, exactly as the run asked them.

    Records of older versions hold only the texts, so their panel is read again. Raises DivwatchError if that gives others.
    """
    info = run.info()
    theirs, form = info["panel"], info.get("form", "chat")
    about = {name: theirs[name] for name in ("name", "chat") if name in theirs}
    prompts = [Prompt.from_json(prompt) for prompt in theirs["prompts"]]
    if fingerprint(prompts) == theirs["fingerprint"]:
        return about, prompts
    problem = "its record does not hold the eval_dataset's prompts: give both runs the same JSONL file as panel"
    if theirs["name"] != EVAL_DATASET:
        config = WatchConfig.of_record(info["settings"])
        ids = {prompt["id"] for prompt in theirs["prompts"]}  # a run leaves out prompts that are in its training data
        watched = [p for p in load_panel(config.panel)[1] if p.id in ids]
        panel = with_chat(in_form(watched, form), about.get("chat"))
        prompts = in_forms(choose(panel, config.prompts, config.seed), config.thinking)
        problem = f"panel {theirs['name']!r} is not its panel: its prompts have changed since; measure both again"
    if fingerprint(prompts) != theirs["fingerprint"]:
        raise DivwatchError(f"{run.path} cannot be compared with: {problem}")
    return about, prompts


def prompts_to_inherit(parent: RunDirectory) -> tuple[str, list[Prompt]]:
    """(panel's name, prompts) for a run that continues `parent`: each prompt once, with thinking as trained.

    Raises DivwatchError as `panel_of_run`.
    """
    about, prompts = panel_of_run(parent)
    return about["name"], [replace(p, thinking="as-trained") for p in prompts if p.variant_of is None]
