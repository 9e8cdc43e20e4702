"""Every setting of the monitor: its meaning, unit and default. A wrong value is an error that names the fix."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, Optional, get_args, get_type_hints

from divwatch.errors import DivwatchError
from divwatch.schedule import AUTO
from divwatch.setting_types import as_type, panel_rows, shown

DEFAULT_METRICS = ("ead", "sbert", "vendi", "distinct_answers")
METRICS = (*DEFAULT_METRICS, "answer_entropy", "gini_simpson", "nli", "ast", "ast_distinct")

# Settings that must not differ between looks that are compared.
COMPARABLE = (
    "panel",
    "prompts",
    "samples",
    "temperature",
    "top_p",
    "max_new_tokens",
    "metrics",
    "encoder",
    "nli_model",
    "seed",
    "form",
    "thinking",
    "think_tokens",
)
_FLAGS = {True: ("true", "yes", "t", "y", "1"), False: ("false", "no", "f", "n", "0")}  # as HfArgumentParser reads them
# How the caller writes the settings: `every` in Python, `watch_every` in YAML and after `--`.
_PREFIX: ContextVar[str] = ContextVar("prefix of settings", default="")
# What a run was watched with whose record lacks a setting, because it is older, where that is not the default.
NOT_RECORDED = {"coupled": False}


def _setting(default: Any, help: str) -> Any:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


# Optional[str], not `str | None`: HfArgumentParser reads these annotations.
@dataclass
class WatchConfig:
    """Settings of a monitor. In YAML and on the command line each name starts with `watch_`.

    `panel` may also be a list of prompts (texts, conversations or rows) or a Dataset: it becomes `rows`, and `panel` is None.
    """

    panel: Optional[str] = _setting(
        None,
        "Held-out prompts: a panel or task by name (see `divwatch panel list`), several with commas, or a JSONL file. "
        "Default: the prompts of the run that this one continues; else those of the trainer's eval_dataset (by name: "
        "eval_dataset); else the panel quick.",
    )
    form: str = _setting(
        "auto", "Form of the prompts: chat (the tokenizer's template), plain, or auto (chat if there is a template)."
    )
    held_out: str = _setting(
        "drop", "Prompts that share 13 consecutive words with the training data: drop them, report them only, or off."
    )
    every: float | str = _setting(
        AUTO,
        "Optimizer steps between looks: auto (as many looks as max_overhead allows, dense at the start), a whole number, "
        "or a fraction of the run, below 1.",
    )
    looks: Optional[int] = _setting(
        None,
        "Most looks of the run under every=auto, first and last included. Default: as many as max_overhead allows.",
    )
    prompts: int = _setting(
        64, "Number of prompts of the panel to sample at each look, the same number from each task."
    )
    samples: int = _setting(16, "Number of completions to sample for each prompt (K).")
    temperature: float = _setting(0.6, "Sampling temperature.")
    top_p: float = _setting(0.95, "Nucleus sampling: probability mass of the tokens to choose from, in (0, 1].")
    max_new_tokens: Optional[int] = _setting(
        None,
        "Most tokens of a completion; longer ones are cut. Default: what each task needs: 384, which is what the encoder "
        "reads, without a verifier; else the task's own limit, or 256.",
    )
    metrics: list[str] = _setting(list(DEFAULT_METRICS), f"Diversity metrics to measure, of: {', '.join(METRICS)}.")
    encoder: str = _setting(
        "sentence-transformers/all-mpnet-base-v2",
        "Sentence encoder of sbert and vendi: a hub name, a directory, or 'minilm' (extra offline-encoder, no network).",
    )
    nli_model: Optional[str] = _setting(None, "NLI classifier of the metric nli: a hub name or a directory.")
    backend: str = _setting(
        "transformers",
        "Sampling engine: transformers (in process), continuous (transformers' continuous batching), or vllm "
        "(in GRPO the trainer's own engine).",
    )
    gather: Optional[bool] = _setting(
        None,
        "Under ZeRO-3 and FSDP2: gather the whole model on every rank for a look, which is faster. Default: if it fits.",
    )
    thinking: str = _setting(
        "as-trained",
        "Thinking of the model: as-trained, off (the thought is prefilled empty), or both (each prompt in both forms; "
        "the thinking ones form a task with the suffix -thinking).",
    )
    think_tokens: Optional[int] = _setting(
        None, "Most tokens of a thought; longer ones are closed by force, and max_new_tokens applies to what follows."
    )
    full_tokens: Optional[int] = _setting(
        None,
        "Also take a look at full length before the first step and after the last: as trained, with at most this number "
        "of tokens. It is recorded in divwatch/full.",
    )
    background: bool = _setting(
        True, "Score in a separate process while training continues; false: in the training process, which waits."
    )
    max_overhead: float = _setting(
        0.03,
        "Most time that looks block training, as a share of the run's time. Under every=auto the share is that of the whole "
        "run, all looks counted. Otherwise a look that is due and would exceed it is skipped, except the first and the "
        "last. 0: no limit (under auto 22 looks, or as many as looks says).",
    )
    blame: bool = _setting(
        False,
        "At every look after the first, also say which sources of the training data (their column source) narrow the model "
        "(SFT and DPO). Its time counts in max_overhead.",
    )
    blame_rows: int = _setting(64, "Rows of each source to read for blame.")
    alpha: float = _setting(0.05, "Probability of any false alarm over the whole run, if diversity does not change.")
    min_drop: float = _setting(0.05, "Smallest relative loss of diversity that counts as a collapse.")
    on_collapse: str = _setting(
        "alert",
        "What an alarm does: log, alert (W&B), save (a checkpoint as well, and checkpoints from before the fall are kept), or "
        "stop (training as well).",
    )
    on_error: str = _setting("record", "When a look fails: record it and continue training, or raise (for tests).")
    lineage: Optional[str] = _setting(
        None, "Name of the chain of stages. Default: that of the parent run, else of the output directory."
    )
    stage: Optional[str] = _setting(
        None, "Name of this stage. Default: sft, dpo, rl, kto, ..., from the trainer's class."
    )
    baseline: Optional[str] = _setting(
        None, "Output directory of the parent run. Default: the run that saved the model which is loaded."
    )
    unsafe_code: bool = _setting(
        False,
        "Run the model's code unsandboxed if no sandbox is available (verifiers humaneval and mbpp).",
    )
    min_usable: float = _setting(0.5, "Smallest share of finished, readable outputs for a look to be comparable.")
    seed: int = _setting(0, "Seed for choosing prompts and for sampling.")
    coupled: bool = _setting(
        True,
        "Sample every look with the same random numbers, so that checkpoints that are close answer alike and a change "
        "shows with less noise. Only with the backend transformers. A resumed run continues as it began.",
    )

    def __post_init__(self) -> None:
        self._prefix = _PREFIX.get()
        self.rows: Any = None
        with self.errors_as_written():
            self._check()

    def _check(self) -> None:
        if (rows := panel_rows(self.panel)) is not None:
            self.rows, self.panel = rows, None
        elif isinstance(self.panel, list | tuple):  # names
            self.panel = ",".join(map(str, self.panel))
        for name in ("thinking", "held_out"):
            if getattr(self, name) is False:  # YAML reads a bare off as false
                setattr(self, name, "off")
        kinds = get_type_hints(WatchConfig)
        for f in fields(self):
            setattr(self, f.name, as_type(f"watch_{f.name}", getattr(self, f.name), kinds[f.name], f.default))
        for name in ("panel", "nli_model", "lineage", "stage", "baseline"):
            if getattr(self, name) == "":
                setattr(self, name, None)
        self._check_every()
        if self.looks is not None:
            _whole("looks", self.looks, 2)
        for name, low in (("prompts", 1), ("samples", 2), ("seed", 0), ("blame_rows", 2)):
            _whole(name, getattr(self, name), low)
        for name in ("max_new_tokens", "think_tokens", "full_tokens"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1)
        for name in ("top_p", "alpha", "min_drop"):
            _within(name, getattr(self, name), 0, 1)
        if not self.temperature > 0:
            raise DivwatchError(f"watch_temperature is {self.temperature}: give a number above 0 (0.6 is the default)")
        if not 0 <= self.min_usable <= 1:
            raise DivwatchError(f"watch_min_usable is {self.min_usable}: give a share from 0 to 1")
        if not 0 <= self.max_overhead < 1:
            raise DivwatchError(f"watch_max_overhead is {self.max_overhead}: give a share from 0 (no limit) to below 1")
        _one_of("backend", self.backend, ("transformers", "continuous", "vllm"))
        if self.backend != "transformers":  # the others have random numbers of their own
            self.coupled = False
        _one_of("thinking", self.thinking, ("as-trained", "off", "both"))
        _one_of("on_collapse", self.on_collapse, ("log", "alert", "save", "stop"))
        _one_of("on_error", self.on_error, ("record", "raise"))
        _one_of("form", self.form, ("auto", "chat", "plain"))
        _one_of("held_out", self.held_out, ("drop", "report", "off"))
        unknown = [m for m in self.metrics if m not in METRICS]
        if unknown or not self.metrics:
            names = ", ".join(map(shown, unknown)) or "nothing"
            raise DivwatchError(f"watch_metrics has {names}: choose from {', '.join(METRICS)}")
        if "nli" in self.metrics and self.nli_model is None:
            raise DivwatchError("watch_metrics has nli but watch_nli_model is not set: give a hub name or a directory")

    def _check_every(self) -> None:
        if isinstance(self.every, str):  # auto
            return
        if not self.every > 0 or (self.every >= 1 and self.every % 1):
            raise DivwatchError(
                f"watch_every is {self.every:g}: give auto, a whole number of optimizer steps (100) or a fraction of the run "
                "(0.05)"
            )

    def at_full_length(self) -> WatchConfig:
        """The settings of the looks at full length."""
        assert self.full_tokens is not None
        return self.changed(full_tokens=None, thinking="as-trained", think_tokens=None, max_new_tokens=self.full_tokens)

    def changed(self, **changes: Any) -> WatchConfig:
        """The same settings with some changed."""
        with settings_written_as(self._prefix):
            config = dataclasses.replace(self, **changes)
        config.rows = self.rows
        return config

    def as_written(self, text: str) -> str:
        """The text, which calls the settings `watch_...`, with their names as the caller writes them.

        >>> WatchConfig().as_written("set watch_every to 5")
        'set every to 5'
        """
        return _SETTING.sub(lambda match: _written(match[1], self._prefix), text)

    @contextmanager
    def errors_as_written(self) -> Iterator[None]:
        """A DivwatchError inside names settings as the caller writes them."""
        try:
            yield
        except DivwatchError as error:
            error.args = tuple(self.as_written(str(part)) for part in error.args)
            raise

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_settings(cls, **settings: Any) -> WatchConfig:
        """Like the constructor, but an unknown name is a DivwatchError that lists the known ones."""
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            close = difflib.get_close_matches(unknown[0].removeprefix("watch_"), known, 1, 0.75)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise DivwatchError(f"unknown setting {', '.join(unknown)}{hint}: the settings are {', '.join(known)}")
        return cls(**settings)

    @classmethod
    def of_record(cls, settings: Mapping[str, Any]) -> WatchConfig:
        """The settings that a run.json holds, of an older divwatch too. Raises DivwatchError for unknown names."""
        return cls.from_settings(**(NOT_RECORDED | dict(settings)))

    @classmethod
    def from_arguments(cls, arguments: Any) -> WatchConfig:
        """From the `WatchArguments` of a parser, whose names start with `watch_`."""
        settings = {f.name: getattr(arguments, f"watch_{f.name}") for f in fields(cls)}
        with settings_written_as("watch_"):
            return cls(**settings | {"every": number_in(settings["every"])})

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> WatchConfig:
        """From the `watch_...` settings of a recipe's config, with texts read as the recipe's parser reads them.

        >>> WatchConfig.from_recipe({"mix": "think_sft", "watch_alpha": "1e-3", "watch_coupled": "no"}).alpha
        0.001
        """
        kinds = get_type_hints(cls)
        written = {name.removeprefix("watch_"): v for name, v in recipe.items() if str(name).startswith("watch_")}
        with settings_written_as("watch_"):
            return cls.from_settings(**{name: _from_text(v, kinds.get(name, str)) for name, v in written.items()})


@contextmanager
def settings_written_as(prefix: str) -> Iterator[None]:
    """Settings that are made inside are named with this prefix in messages: "", "watch_", or "--" for options."""
    token = _PREFIX.set(prefix)
    try:
        yield
    finally:
        _PREFIX.reset(token)


def _written(name: str, prefix: str) -> str:
    return prefix + (name.replace("_", "-") if prefix == "--" else name)


def number_in(every: Any) -> Any:
    """The setting `every` of a command line, where it comes as a word: a number, if it is one.

    >>> number_in("25"), number_in("0.05"), number_in("auto"), number_in(25)
    (25.0, 0.05, 'auto', 25)
    """
    if isinstance(every, str):
        with suppress(ValueError):
            return float(every)
    return every


def _from_text(value: Any, kind: Any) -> Any:
    """A text as the flag or number that a setting of this type is, if it is one: YAML leaves 1e-3 a text."""
    kinds = get_args(kind) or (kind,)
    if isinstance(value, str):
        with suppress(ValueError):
            if bool in kinds:
                return next((flag for flag, words in _FLAGS.items() if value.lower() in words), value)
            return int(value) if int in kinds else number_in(value) if float in kinds else value
    return value


def _whole(name: str, value: int, low: int) -> None:
    if value < low:
        raise DivwatchError(f"watch_{name} is {value}: give a whole number of at least {low}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low < value <= high:
        raise DivwatchError(f"watch_{name} is {value}: give a number above {low} and up to {high}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise DivwatchError(f"watch_{name} is {value!r}: choose from {', '.join(allowed)}")


def _argument_fields() -> list[tuple[str, Any, Any]]:
    types = get_type_hints(WatchConfig)
    arguments = []
    for f in fields(WatchConfig):
        default = (
            field(default_factory=f.default_factory, metadata=f.metadata)
            if f.default_factory is not dataclasses.MISSING
            else field(default=f.default, metadata=f.metadata)
        )
        # HfArgumentParser reads float | str as float, and would refuse "auto".
        kind = str if types[f.name] == float | str else types[f.name]
        arguments.append((f"watch_{f.name}", kind, default))
    return arguments


# The same settings for TrlParser and HfArgumentParser.
WatchArguments = dataclasses.make_dataclass("WatchArguments", _argument_fields())
_SETTING = re.compile(rf"\bwatch_({'|'.join(f.name for f in fields(WatchConfig))})\b")
