"""Blame at saved checkpoints of a run: loads each of them, looks, and asks every row of the data how it moves diversity.

At each checkpoint, with u_t = P grad D_t for each task t (`log_probs`, `precondition`):

    row x, task t:    -<u_t, grad l(x)>, by two nudges along u_t and forwards over the rows;
    source s, sample: -<P grad L_s, grad log p(y)>, by two nudges along P grad L_s and forwards over the look's completions.

The first gives the effects and their error over rows; the second is the same number seen from the completions, and gives
the error over them. Summed over checkpoints, each times the learning rates that it stands for.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divwatch import pretrained
from divwatch.blame.data import TrainingData
from divwatch.blame.derivative import central_difference, nudge_size
from divwatch.blame.log_probs import Sampled, all_log_probs, weighted_gradient
from divwatch.blame.look import BlameLook, error_scale, look_at, look_influence
from divwatch.blame.losses import RowLosses
from divwatch.blame.precondition import of_batches, of_optimizer, preconditioned
from divwatch.blame.trace import Checkpoint
from divwatch.blame.weights import prompt_shares
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError, one_line
from divwatch.metrics.scoring import TextEncoder
from divwatch.records import Prompt

Floats = NDArray[np.float64]
PROBES = 32  # rows, or completions, with which the size of a nudge is chosen
BATCHES = 12  # of the mix, for the preconditioner where no optimizer's state is at hand
ROW_BATCH = 32


@dataclass(frozen=True)
class BlameConfig:
    """How blame is computed.

    trainer:   settings of SFTConfig or DPOConfig on which a row's loss depends: max_length, loss_type, beta, ...
    reference: the model that DPO compares with. correct: diversity of correct outputs instead of all.
    """

    watch: WatchConfig
    seed: int = 0
    correct: bool = False
    device: str = "cpu"
    reference: str | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)


class Measured(NamedTuple):
    """What one checkpoint says, per unit of learning rate.

    look:    its completions. rows: task -> [rows]; the change of the task's diversity for a step on that row.
    influence: [prompts, K, sources], of each completion on the change of its prompt's diversity for a step on a source
    (`sample_influence`).
    """

    look: BlameLook
    rows: dict[str, Floats]
    influence: Floats


def measure(
    checkpoint: Checkpoint,
    data: TrainingData,
    prompts: Sequence[Prompt],
    config: BlameConfig,
    encoder: TextEncoder,
    note: Callable[[str], None] = lambda line: None,
) -> Measured:
    """Blame at one checkpoint. Raises DivwatchError if it cannot be loaded or its outputs have no diversity to measure."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(checkpoint, data, config, folder)
        return _measure(trainer, checkpoint, data, prompts, config, encoder, note)


def _measure(
    trainer: Any,
    checkpoint: Checkpoint,
    data: TrainingData,
    prompts: Sequence[Prompt],
    config: BlameConfig,
    encoder: TextEncoder,
    note: Callable[[str], None],
) -> Measured:
    model, tokenizer, watch = trainer.model.eval(), trainer.processing_class, config.watch
    parameters = [p for p in model.parameters() if p.requires_grad]
    look = look_at(model, tokenizer, prompts, watch, encoder, config.seed, config.correct)
    shares = prompt_shares(look.tasks, look.values)
    if not shares:
        raise DivwatchError(
            f"{checkpoint.path}: no prompt has three {'correct' if config.correct else 'usable'} outputs; "
            "raise --samples, or choose another panel"
        )
    losses = RowLosses(trainer)
    _set_mean_tokens(losses, data)
    how = (watch.temperature, watch.top_p, _pad(tokenizer), model.device)
    moments = of_optimizer(trainer, Path(checkpoint.path), parameters)
    scale = 1.0 if moments is None else checkpoint.clipping()
    if moments is None:
        note(f"{checkpoint.path}: no optimizer state, the preconditioner is estimated from the mix")
        batches = _batches_of_mix(data, checkpoint.batch or ROW_BATCH, config.seed)
        moments = of_batches(losses, batches, parameters)
    everything = list(range(len(data.labels)))
    probes = everything[:: max(1, len(everything) // PROBES)]
    by_task: dict[str, Floats] = {}
    for task, share in shares.items():
        if task == "all":
            continue
        gradient = weighted_gradient(
            model, parameters, look.sampled, (share[:, None] * look.weights).ravel().tolist(), *how
        )
        direction = preconditioned(gradient, moments, scale)
        size = nudge_size(lambda: losses.values(probes), parameters, direction)
        by_task[task] = (
            -central_difference(lambda: losses.values(everything), parameters, direction, size)
            if size
            else np.zeros(len(everything))
        )
    mine = ([i for i, label in enumerate(data.labels) if label == source] for source in data.sources)
    directions = (preconditioned(losses.gradient(rows, parameters), moments, scale) for rows in mine)
    return Measured(look, by_task, _influence(look, directions, model, parameters, how))


def _influence(look: BlameLook, directions: Iterable[Any], model: Any, parameters: Sequence[Any], how: Any) -> Floats:
    """`look_influence` of a step against each direction. Without the nucleus: enough for an error."""
    scale = error_scale(look)
    sampled = [s for s, used in zip(look.sampled, np.repeat(scale > 0, look.weights.shape[1]), strict=True) if used]
    slopes = np.stack([_slopes(direction, model, parameters, sampled, how) for direction in directions], axis=-1)
    return look_influence(look, scale, slopes)


def _slopes(
    direction: Sequence[Any], model: Any, parameters: Sequence[Any], sampled: Sequence[Sampled], how: Any
) -> Floats:
    """[completions], derivative of log p of each completion along `direction`."""
    temperature, _, pad, device = how

    def values(some: Sequence[Sampled]) -> Floats:
        return all_log_probs(model, some, temperature, 1.0, pad, device)

    size = nudge_size(lambda: values(sampled[:: max(1, len(sampled) // PROBES)]), parameters, direction)
    if not size:
        return np.zeros(len(sampled))
    return central_difference(lambda: values(sampled), parameters, direction, size)


def _set_mean_tokens(losses: RowLosses, data: TrainingData) -> None:
    """Mean over the mix of a row's trained tokens: what SFTTrainer divides the loss of a batch by, per row."""
    if data.kind != "sft":
        return
    tokens = np.array([losses.trained_tokens(i) for i in range(len(data.labels))])
    labels = np.array(data.labels)
    losses.mean_tokens = max(1.0, sum(share * tokens[labels == s].mean() for s, share in data.shares.items()))


def _batches_of_mix(data: TrainingData, size: int, seed: int) -> list[list[int]]:
    """Batches as training draws them: sources by their shares."""
    rng = random.Random(seed)
    places = {s: [i for i, label in enumerate(data.labels) if label == s] for s in data.sources}
    weights = list(data.shares.values())
    return [
        [rng.choice(places[s]) for s in rng.choices(data.sources, weights, k=min(size, ROW_BATCH))]
        for _ in range(BATCHES)
    ]


def _pad(tokenizer: Any) -> int:
    return next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)


def load_model(path: str, device: str) -> Any:
    """A causal LM in float32, in which a nudge is not lost to rounding; an adapter with its own weights alone trainable."""
    import torch

    if pretrained.is_adapter(path):
        return pretrained.load_adapter(path, is_trainable=True, dtype=torch.float32).to(device)
    return pretrained.load_model(path, dtype=torch.float32).to(device)


def _trainer(checkpoint: Checkpoint, data: TrainingData, config: BlameConfig, folder: str) -> Any:
    """TRL's own trainer over the rows: it tokenises and collates them, and is never asked to train."""
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    settings: dict[str, Any] = {
        "output_dir": folder, "report_to": "none", "bf16": False, "fp16": False, "use_cpu": config.device == "cpu",
        "gradient_checkpointing": False, "disable_tqdm": True, "per_device_train_batch_size": 1,
    } | dict(config.trainer)  # fmt: skip
    model, tokenizer = load_model(checkpoint.path, config.device), pretrained.load_tokenizer(checkpoint.path)
    try:
        if data.kind == "sft":
            arguments: Any = SFTConfig(**settings | {"packing": False})
            trainer: Any = SFTTrainer(model=model, args=arguments, train_dataset=data.rows, processing_class=tokenizer)
        else:
            adapter = hasattr(model, "peft_config")
            reference = None if adapter else load_model(config.reference or checkpoint.path, config.device)
            trainer = DPOTrainer(
                model=model, ref_model=reference, args=DPOConfig(**settings), train_dataset=data.rows,
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
