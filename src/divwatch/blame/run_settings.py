"""What blame must know of a run besides its data: what a row's loss and a step depend on, from run.json and a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.setting_types import number_of, whole_if_set

ROWS = 256  # of each source, by default: with 64, the order of the sources is less reliable (docs/blame.md)

# Of SFTConfig and DPOConfig.
LOSS = (
    "max_length max_prompt_length truncation_mode completion_only_loss assistant_only_loss loss_type beta label_smoothing "
    "loss_weights f_divergence_type f_alpha_divergence_coef ld_alpha use_weighting dataset_text_field eos_token pad_token"
).split()


@dataclass(frozen=True)
class RunSettings:
    """loss, recorded: settings on which a row's loss depends, of the config and of the run of `trainer`. learning_rate: where
    no checkpoint logged one. max_grad_norm: of gradient clipping, 0: none. max_steps: of the run. max_prompt: rows whose prompt
    has this many tokens or more are left out; None: no limit.
    """

    loss: Mapping[str, Any] = field(default_factory=dict)
    recorded: Mapping[str, Any] = field(default_factory=dict)
    trainer: str = ""
    learning_rate: float | None = None
    max_grad_norm: float = 1.0
    max_steps: int | None = None
    max_prompt: int | None = None

    def loss_of(self, kind: str) -> dict[str, Any]:
        """Settings for SFTConfig (`kind` sft) or DPOConfig (preference). A run of another kind has none for these rows."""
        of_kind = ("SFT" if kind == "sft" else "DPO") in self.trainer
        return {**(self.recorded if of_kind else {}), **self.loss}

    def rate(self, kind: str) -> float:
        """learning_rate, or TRL's default for `kind`."""
        from trl import DPOConfig, SFTConfig

        return self.learning_rate or _default(SFTConfig if kind == "sft" else DPOConfig, "learning_rate")


def recorded_settings(arguments: Any) -> dict[str, Any]:
    """What run.json holds as `arguments`: those of a trainer's arguments that blame reads, as far as JSON can hold them."""
    values = {n: getattr(arguments, n) for n in (*LOSS, "learning_rate", "max_grad_norm") if hasattr(arguments, n)}
    return {name: value for name, value in values.items() if _plain(value)}


def read_settings(config: Mapping[str, Any], run: Mapping[str, Any]) -> RunSettings:
    """From a recipe's config, else from the run.json of a run, else TRL's defaults. Raises DivwatchError for a wrong number."""
    from trl import SFTConfig

    theirs = run["arguments"] if isinstance(run.get("arguments"), dict) else {}
    values = {**theirs, **config}
    steps = next((n for n in (values.get("max_steps"), run.get("max_steps")) if isinstance(n, int) and n > 0), None)
    values = {"max_length": _default(SFTConfig, "max_length"), "max_grad_norm": 1.0} | values
    rate, norm = (
        number_of(values, n) if values.get(n) is not None else None for n in ("learning_rate", "max_grad_norm")
    )
    return RunSettings(
        {name: config[name] for name in LOSS if name in config},
        {name: theirs[name] for name in LOSS if name in theirs},
        str(run.get("trainer")),
        rate,
        norm or 0.0,
        steps,
        _length(values, "mix_max_prompt") or _length(values, "max_length"),
    )


def _default(arguments: Any, name: str) -> Any:
    return next(f.default for f in fields(arguments) if f.name == name)


def _plain(value: Any) -> bool:
    return (
        value is None or isinstance(value, (str, int, float)) or (isinstance(value, list) and all(map(_plain, value)))
    )


def _length(values: Mapping[str, Any], name: str) -> int | None:
    length = whole_if_set(values, name)
    if length is not None and length < 1:
        raise DivwatchError(f"{name} is {length}: give a whole number of at least 1")
    return length
