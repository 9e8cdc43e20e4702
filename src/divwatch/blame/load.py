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
    path: str,
    tokenizer: Any,
    data: TrainingData,
    settings: Mapping[str, Any],
    reference: str | None,
    device: str,
    folder: str,
) -> Any:
    """TRL's own trainer over the rows: it tokenises and collates them, and is never asked to train.

    settings: of SFTConfig or DPOConfig. reference: the model or adapter that DPO compares with; None: the model without its
    adapter. folder: its output_dir.
    """
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    settings = {
        "output_dir": folder, "report_to": "none", "bf16": False, "fp16": False, "use_cpu": device == "cpu",
        "gradient_checkpointing": False, "disable_tqdm": True, "per_device_train_batch_size": 1, **settings,
    }  # fmt: skip
    model = load_model(path, device)
    compared: Any = load_model(reference, device) if data.kind == "preference" and reference is not None else None
    if hasattr(compared, "peft_config"):  # TRL's fused head finds no reference inside of an adapter
        compared = compared.merge_and_unload()
    try:
        if data.kind == "sft":
            arguments: Any = SFTConfig(**settings | {"packing": False})
            trainer: Any = SFTTrainer(model=model, args=arguments, train_dataset=data.rows, processing_class=tokenizer)
        else:
            trainer = DPOTrainer(
                model=model, ref_model=compared, args=DPOConfig(**settings), train_dataset=data.rows,
                processing_class=tokenizer,
            )  # fmt: skip
            # TRL's own is a copy of this checkpoint's adapter, not of the run's start.
            if "ref" in getattr(model, "peft_config", {}):
                model.delete_adapter("ref")
    except (TypeError, ValueError, KeyError) as error:
        raise DivwatchError(
            f"TRL cannot read these rows or settings ({one_line(error, kind=False)}): "
            "give rows in TRL's prompt-completion, messages or preference form, and settings of its trainer"
        ) from None
    if len(trainer.train_dataset) != len(data.labels):
        dropped = len(data.labels) - len(trainer.train_dataset)
        raise DivwatchError(
            f"TRL leaves out {dropped} of {len(data.labels)} rows, whose answer is empty or beyond max_length: remove them, or "
            "give the run's max_length in --config"
        )
    return trainer
