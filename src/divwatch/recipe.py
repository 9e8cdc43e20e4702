"""What the recipes share: arguments, data, checks before training, one-line errors."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Optional

from divwatch import pretrained
from divwatch.errors import DivwatchError, one_line
from divwatch.smollm2 import resolve_model


@dataclass
class MixArguments:
    """Which data a recipe trains on."""

    mix: Optional[str] = field(
        default=None,
        metadata={
            "help": "Training data: a mix by name (see divwatch mix list), a YAML file, or TRL rows in a JSONL file."
        },
    )
    local_data: Optional[str] = field(
        default=None,
        metadata={"help": "Folder with instruct_sft.jsonl, think_dpo.jsonl, ..., read in place of the hub sets."},
    )
    mix_rows: Optional[int] = field(
        default=None, metadata={"help": "Number of rows to draw in all; the sources keep their shares."}
    )
    mix_drop: Optional[list[str]] = field(default=None, metadata={"help": "Sources to leave out."})
    mix_only: Optional[list[str]] = field(default=None, metadata={"help": "The only sources to keep."})
    mix_weight: Optional[list[str]] = field(
        default=None, metadata={"help": "SOURCE=FACTOR: that source with FACTOR times its rows ('FLAN=0.5')."}
    )
    mix_repeat: bool = field(
        default=False, metadata={"help": "Let rows occur more than once if a source has too few of them."}
    )
    mix_max_prompt: Optional[int] = field(
        default=None, metadata={"help": "Drop rows whose prompt has more tokens. Default: those that fill max_length."}
    )
    chat_template: Optional[str] = field(
        default=None,
        metadata={
            "help": "Chat template to train with: olmo3_think_sft, ... or a .jinja file. Default: the checkpoint's."
        },
    )


def load_tokenizer(mixing: MixArguments, training: Any, model: Any) -> Any:
    """The checkpoint's tokenizer, with the chat template of `--chat_template`."""
    from divwatch.mixes.templates import chat_template

    template = chat_template(mixing.chat_template) if mixing.chat_template else None
    tokenizer = pretrained.load_tokenizer(
        model.model_name_or_path, revision=model.model_revision, trust_remote_code=training.trust_remote_code
    )
    tokenizer.chat_template = template or tokenizer.chat_template
    return tokenizer


def load_data(mixing: MixArguments, training: Any, kind: str, tokenizer: Any) -> tuple[Any, Any]:
    """(dataset, MixReport) of the mix; the main process prints what was dropped or repaired."""
    from accelerate import PartialState

    from divwatch.mixes import load_mix
    from divwatch.mixes.limit import Limit

    if not mixing.mix:
        raise DivwatchError("no training data: give --mix a name (divwatch mix list) or a file")
    limit = Limit(tokenizer, mixing.mix_max_prompt or getattr(training, "max_length", None))
    dataset, report = load_mix(
        mixing.mix,
        training.seed if training.data_seed is None else training.data_seed,
        selection=selection(mixing),
        local_data=mixing.local_data,
        kind=kind,
        limit=limit,
    )
    if PartialState().is_main_process:
        print("\n".join(report.lines()), flush=True)
    return dataset, report


def selection(mixing: MixArguments) -> Any:
    """The mix settings of the command line as a `Selection`."""
    from divwatch.mixes import Selection

    weight = {}
    for text in mixing.mix_weight or []:
        source, _, factor = text.rpartition("=")
        try:
            weight[source.strip()] = float(factor)
        except ValueError:
            source = ""
        if not source or not 0 <= weight[source.strip()] < float("inf"):
            raise DivwatchError(
                f"mix_weight {text!r} is not a weight: write SOURCE=FACTOR with a factor from 0, as 'FLAN=0.5'"
            )
    if mixing.mix_rows is not None and mixing.mix_rows < 1:
        raise DivwatchError(f"mix_rows is {mixing.mix_rows}: give a whole number of at least 1")
    return Selection(
        weight=weight,
        only=tuple(mixing.mix_only or ()),
        drop=tuple(mixing.mix_drop or ()),
        rows=mixing.mix_rows,
        repeat=mixing.mix_repeat,
    )


def selection_in(config: Mapping[str, Any]) -> Any:
    """The mix settings of a config's YAML as a `Selection`, without its number of rows."""
    drop, only, weight = (_listed(config.get(f"mix_{name}")) for name in ("drop", "only", "weight"))
    return selection(MixArguments(mix_drop=drop, mix_only=only, mix_weight=weight))


def _listed(value: Any) -> list[str] | None:
    return None if value is None else [str(v) for v in (value if isinstance(value, list) else [value])]


def parse(kinds: Sequence[Any], default_config: str) -> tuple[Any, ...]:
    """Fills the dataclasses from `--config` and the command line, which takes precedence.

    Without `--config` the embedded stage of `default_config` runs, and a line says so.
    """
    from trl import TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> NoReturn:
            raise DivwatchError(message + ": see --help")

    arguments = sys.argv[1:]
    if "--config" not in arguments and not {"-h", "--help"} & set(arguments):
        arguments = ["--config", default_config, *arguments]
        print(f"No --config given: running the embedded stage of {default_config}.", flush=True)
    config = arguments[arguments.index("--config") + 1] if "--config" in arguments[:-1] else None
    if config is not None and not Path(config).is_file():
        raise DivwatchError(f"config {config!r} is not there: give a YAML file, such as {default_config}")
    try:
        return Parser(list(kinds)).parse_args_and_config(arguments)
    except ValueError as error:
        if isinstance(error, DivwatchError):
            raise
        raise DivwatchError(one_line(error, kind=False) + _suggestion(str(error), kinds)) from None


def _suggestion(message: str, kinds: Sequence[type]) -> str:
    import dataclasses
    import difflib
    import re

    known = [f.name for kind in kinds for f in dataclasses.fields(kind)]
    for word in re.findall(r"--([a-z_]+)", message):
        close = difflib.get_close_matches(word, known, 1, 0.75)
        if close and close[0] != word:
            return f" (did you mean {close[0]}?)"
    return " (see --help for the settings)"


def prepare(training: Any, model: Any) -> dict[str, Any]:
    """Checks what would fail late, sets W&B up, and returns the arguments with which the trainer loads the model."""
    model.model_name_or_path = resolve_model(check_model(model.model_name_or_path))
    check_output(training.output_dir)
    set_up_wandb(training)
    return {
        "revision": model.model_revision,
        "trust_remote_code": training.trust_remote_code,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(training.model_init_kwargs or {}),
    }


def peft_config(model: Any) -> Any:
    """A LoRA config if `--use_peft` asks for one."""
    from trl import get_peft_config

    return get_peft_config(model)


def train(trainer: Any) -> None:
    """Trains, saves model and tokenizer to output_dir, where the next stage finds them, and closes the trackers."""
    trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    trainer.save_model(trainer.args.output_dir)
    trainer.end()


def check_model(name: str | None) -> str:
    """Returns `name` if it is a hub id or a directory with a model. A missing local path is not looked up on the hub."""
    if not name:
        raise DivwatchError("no model: give --model_name_or_path a directory or a hub name")
    path = Path(name)
    local = path.is_absolute() or name.startswith(".") or len(path.parts) > 2 or Path(path.parts[0]).is_dir()
    if path.is_dir() and not (path / "config.json").is_file():
        raise DivwatchError(f"model directory {name!r} holds no config.json: did that stage finish?")
    if local and not path.is_dir():
        raise DivwatchError(
            f"model directory {name!r} is not there: train that stage first, or give another --model_name_or_path"
        )
    return name


def check_output(directory: str) -> None:
    """Raises DivwatchError before training, not after it."""
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        probe = Path(directory) / f".divwatch-write-test-{socket.gethostname()}-{os.getpid()}"  # every rank its own
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DivwatchError(
            f"output_dir {directory!r} cannot be written ({error.strerror}): choose another with --output_dir"
        ) from None


def set_up_wandb(training: Any) -> None:
    """Project `divwatch`, and offline if nobody is logged in, unless the environment says otherwise."""
    if "wandb" not in (training.report_to or []):
        return
    os.environ.setdefault("WANDB_PROJECT", "divwatch")
    os.environ.setdefault("WANDB_SILENT", "true")
    logged_in = "WANDB_API_KEY" in os.environ or _in_netrc()
    if "WANDB_MODE" not in os.environ and not logged_in:
        os.environ["WANDB_MODE"] = "offline"  # before wandb is imported: it reads the environment once


def _in_netrc() -> bool:
    import netrc

    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)


def run(main: Callable[[], None]) -> None:
    """Runs a recipe; wrong input is printed as one line, with exit status 2."""
    try:
        main()
    except DivwatchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
