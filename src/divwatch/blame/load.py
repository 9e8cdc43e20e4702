"""Loads a checkpoint for blame: the model in float32, its tokenizer, and TRL's trainer over the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from divwatch import pretrained
from divwatch.blame.data import TrainingData
from divwatch.errors import DivwatchError, one_line


def load_model(path: str, device: str) -> Any:
    """A causal LM in float32, in which a nudge is not lost to rounding; an adapter with its own weights alone trainable."""
    import torch

    if pretrained.is_adapter(path):
        return pretrained.load_adapter(path, is_trainable=True, dtype=torch.float32).to(device)
    return pretrained.load_model(path, dtype=torch.float32).to(device)


def load_trainer(
    path: str, data: TrainingData, settings: Mapping[str, Any], reference: str | None, device: str, folder: str
) -> Any:
    """TRL's own trainer over the rows: it tokenises and collates them, and is never asked to train.

    settings: of SFTConfig or DPOConfig. reference: the model that DPO compares with. folder: its output_dir.
    """
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    settings = {
        "output_dir": folder, "report_to": "none", "bf16": False, "fp16": False, "use_cpu": device == "cpu",
        "gradient_checkpointing": False, "disable_tqdm": True, "per_device_train_batch_size": 1, **settings,
    }  # fmt: skip
    model, tokenizer = load_model(path, device), pretrained.load_tokenizer(path)
    try:
        if data.kind == "sft":
            arguments: Any = SFTConfig(**settings | {"packing": False})
            trainer: Any = SFTTrainer(model=model, args=arguments, train_dataset=data.rows, processing_class=tokenizer)
        else:
            adapter = hasattr(model, "peft_config")
            trainer = DPOTrainer(
                model=model, ref_model=None if adapter else load_model(reference or path, device),
                args=DPOConfig(**settings), train_dataset=data.rows,
                processing_class=tokenizer,
            )  # fmt: skip
    except (TypeError, ValueError, KeyError) as error:
        raise DivwatchError(
            f"TRL cannot read these rows or settings ({one_line(error, kind=False)}): "
            "give rows in TRL's prompt-completion, messages or preference form, and settings of its trainer"
        ) from None
    if len(trainer.train_dataset) != len(data.labels):
        raise DivwatchError("TRL dropped rows of the data: remove rows without an answer")
    return trainer
