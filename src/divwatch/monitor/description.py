"""What a run is: its stage, its lineage and its parent run, and all that run.json says of it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from divwatch.blame.run_settings import recorded_settings
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.panel import fingerprint
from divwatch.records import Prompt
from divwatch.store.run_directory import RunDirectory
from divwatch.store.search import find_parent

# Stages by a part of the trainer's name; all others are named after their method.
KNOWN = {"SFTTrainer": "sft", "DPOTrainer": "dpo", "GRPOTrainer": "rl", "RLOOTrainer": "rl"}


class RunDescription:
    """The description of a trainer's run, from the settings or else from the trainer.

    mix: the training data, for run.json.
    """

    def __init__(self, trainer: Any, config: WatchConfig, mix: Any = None) -> None:
        self.trainer, self.config, self.mix = trainer, config, mix

    @cached_property
    def parent(self) -> RunDirectory | None:
        """The run that trained the model which this one starts from. Raises DivwatchError for a wrong `baseline`."""
        if self.config.baseline is None:
            return find_parent(self.model)
        parent = RunDirectory.of(self.config.baseline)
        if not parent.exists:
            raise DivwatchError(
                f"watch_baseline {self.config.baseline!r} holds no divwatch run: give the output directory of one"
            )
        return parent

    @property
    def output_dir(self) -> str:
        """Where the trainer writes; in a search of hyperparameters, the trial's own directory."""
        if not self._in_trial:
            return str(self.trainer.args.output_dir)
        return str(self.trainer._get_output_dir(self.trainer._trial))

    @property
    def _in_trial(self) -> bool:
        return bool(self.trainer.state.is_hyper_param_search) and hasattr(self.trainer, "_trial")

    @property
    def lineage(self) -> str:
        inherited = self.parent.info()["lineage"] if self.parent else Path(self.trainer.args.output_dir).name
        return self.config.lineage or inherited

    @property
    def stage(self) -> str:
        """The method of the trainer's class or of a base of it: sft, dpo, rl, kto, online-dpo, ...; else training."""
        kinds = type(self.trainer).__mro__
        names = " ".join(kind.__name__ for kind in kinds)
        methods = (_method(kind) for kind in kinds)
        default = next((stage for name, stage in KNOWN.items() if name in names), None) or next(
            filter(None, methods), None
        )
        return self.config.stage or default or "training"

    @property
    def model(self) -> str | None:
        """Where the model that training starts from was loaded from; None if it was not loaded."""
        return getattr(self.trainer.model, "name_or_path", None) or None

    def info(
        self, max_steps: int, panel: Mapping[str, Any], prompts: Sequence[Prompt], config: WatchConfig, **more: Any
    ) -> dict[str, Any]:
        """The content of run.json for looks at `prompts` with the settings `config`."""
        arguments = self.trainer.args
        return describe_run(
            stage=self.stage,
            lineage=self.lineage,
            model=str(self.model),
            output_dir=self.output_dir,
            parent=self.parent,
            config=config,
            panel=panel,
            prompts=prompts,
            max_steps=max_steps,
            mix=self.mix,
            seeds={"train": arguments.seed, "data": arguments.data_seed, "watch": config.seed},
            trainer=type(self.trainer).__name__,
            processes=self.trainer.accelerator.num_processes,
            arguments=recorded_settings(arguments),
            **({"trial": self.trainer.state.trial_params} if self._in_trial else {}),
            **more,
        )


def _method(kind: type) -> str | None:
    """The method that a trainer of TRL is named after; None for a base of trainers, and for a class of somebody else."""
    name = kind.__name__.removesuffix("Trainer")
    if kind.__module__.split(".")[0] != "trl" or name == kind.__name__ or name.startswith("_"):
        return None
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def describe_run(
    *,
    stage: str,
    lineage: str,
    model: str,
    output_dir: str | Path,
    parent: RunDirectory | None,
    config: WatchConfig,
    panel: Mapping[str, Any],
    prompts: Sequence[Prompt],
    max_steps: int,
    **more: Any,
) -> dict[str, Any]:
    """The content of run.json: what is watched, with which settings, and which run came before.

    panel: its `name`, and `chat` if the trainer renders every prompt with arguments of its own.
    """
    packages = ("torch", "transformers", "trl", "accelerate", "wandb")
    return {
        "divwatch": _version("divwatch"),
        "stage": stage,
        "lineage": lineage,
        "model": model,
        "output_dir": str(output_dir),
        "parent": str(parent.path.resolve()) if parent else None,
        "settings": config.as_dict(),
        "panel": {
            **panel,
            "fingerprint": fingerprint(prompts),
            "prompts": [prompt.to_json() for prompt in prompts],
        },
        "versions": {name: _version(name) for name in packages},
        "max_steps": max_steps,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **more,
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
