"""The rows that a running training is blamed on: some of each source of the trainer's own data. And who cannot be blamed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from divwatch.blame.data import TrainingData, draw_rows, shares_of
from divwatch.blame.losses import in_batches, learns_pairs
from divwatch.errors import DivwatchError
from divwatch.mixes import source_labels
from divwatch.sampling.known import uses_prompt_learning

LATER = "run divwatch blame on its checkpoints"


def rows_of_training(trainer: Any, per_source: int, seed: int, unpacked: Any = None) -> TrainingData:
    """Up to `per_source` rows of each source of the trainer's data, tokenised, the same on all ranks.

    unpacked: the data before the trainer packed them. Raises DivwatchError, one line with the fix, if this training cannot
    be blamed while it runs.
    """
    packed = bool(getattr(trainer.args, "packing", False))
    data = unpacked if packed else trainer.train_dataset
    reason = _why_not(trainer) or _why_not_data(data) or _why_offloaded(trainer)
    if reason is not None:
        raise DivwatchError(reason)
    labels = source_labels(data, "training data")
    shares = shares_of(labels)
    chosen = draw_rows(labels, per_source, seed)
    kind = "preference" if learns_pairs(trainer) else "sft"
    rows = data.select(chosen)
    if packed:  # as the trainer does it without packing; it may leave out rows that are cut before their answer
        rows = trainer._prepare_dataset(rows, trainer.processing_class, trainer.args, False, None, "blame")
        labels = source_labels(rows, "training data")
        left = Counter(labels)
        shares = {s: share for s, share in shares.items() if left[s] > 1}
        rows = rows.select([i for i, label in enumerate(labels) if label in shares])
        if not shares:
            raise DivwatchError("the trainer cuts all rows before their answer: raise max_length")
        shares = {s: share / sum(shares.values()) for s, share in shares.items()}
    return TrainingData(rows, source_labels(rows, "training data"), shares, kind)


def _why_not(trainer: Any) -> str | None:
    """What of the trainer and its model rules blame out."""
    if not {kind.__name__ for kind in type(trainer).__mro__} & {"SFTTrainer", "DPOTrainer"}:
        return f"it knows the losses of SFTTrainer and DPOTrainer, and not that of {type(trainer).__name__}"
    if getattr(trainer, "compute_loss_func", None) is not None or getattr(trainer, "label_smoother", None) is not None:
        return f"the trainer has a loss of its own (compute_loss_func or label_smoothing_factor): {LATER}"
    if learns_pairs(trainer):
        adapters = getattr(trainer.model, "peft_config", {})
        if not in_batches(trainer) or "ref" in adapters:
            return f"the loss of these pairs cannot be computed outside of the trainer (loss_type, reference): {LATER}"
    base = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    if getattr(base, "is_quantized", False) or getattr(base, "hf_quantizer", None) is not None:
        return f"quantised weights cannot be nudged: {LATER}"
    if getattr(trainer, "_is_vision_dataset", False):
        return f"it reads no images: {LATER}"
    if uses_prompt_learning(trainer.model):
        return "it knows no virtual tokens (prompt learning): train LoRA or the whole model"
    return None


def _why_not_data(data: Any) -> str | None:
    if data is None:
        return (
            "packing joins rows of several sources: pass the data from before packing as rows= to DiversityCallback "
            "or divwatch.watch, or set packing: false"
        )
    if not hasattr(data, "select") or not hasattr(data, "column_names"):
        return "it draws rows of the training data by number: give the trainer a Dataset, no IterableDataset"
    if "source" not in data.column_names:
        return "the training data have no column source, which names where a row comes from: add one"
    return None


def _why_offloaded(trainer: Any) -> str | None:
    """Weights or optimizer states outside of the device's memory."""
    state = trainer.accelerator.state
    plugin = getattr(state, "deepspeed_plugin", None)
    zero = (plugin.deepspeed_config.get("zero_optimization") or {}) if plugin is not None else {}
    places = {(zero.get(name) or {}).get("device") or "none" for name in ("offload_param", "offload_optimizer")}
    policy = getattr(getattr(state, "fsdp_plugin", None), "cpu_offload", None)
    if places != {"none"} or type(policy).__name__ == "CPUOffloadPolicy":
        return f"weights or the optimizer are offloaded: {LATER}"
    return None
