"""Blame at saved checkpoints of a run: loads each of them, looks, and asks every row of the data how it moves diversity.

At each checkpoint, with u_t = P grad D_t for each task t (`log_probs`, `precondition`):

    row x, task t:    -<u_t, grad l(x)>, by two nudges along u_t and forwards over the rows;
    source s, sample: -<P grad L_s, grad log p(y)>, by two nudges along P grad L_s and forwards over the look's completions;
    task t:           <grad D_t, the way of the weights>, from a second checkpoint on (`path`).

The first gives what sources do differently and its error over rows; the second is the same number seen from the completions,
and gives the error over them; the third gives the change that the whole mix makes.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divwatch.blame.data import TrainingData
from divwatch.blame.derivative import central_difference, norm, nudge_size
from divwatch.blame.load import load_trainer
from divwatch.blame.log_probs import Sampled, all_log_probs, weighted_gradient
from divwatch.blame.look import BlameLook, error_scale, look_at, look_influence
from divwatch.blame.losses import RowLosses
from divwatch.blame.path import displacement, inner_product
from divwatch.blame.precondition import of_batches, of_optimizer, preconditioned
from divwatch.blame.trace import Checkpoint
from divwatch.blame.weights import prompt_shares
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.metrics.scoring import TextEncoder
from divwatch.pretrained import load_tokenizer
from divwatch.records import Prompt
from divwatch.sampling.memory import release

Floats = NDArray[np.float64]
PROBES = 32  # rows, or completions, with which the size of a nudge is chosen
BATCHES = 12  # of the mix, for the preconditioner where no optimizer's state is at hand
ROW_BATCH = 32


@dataclass(frozen=True)
class BlameConfig:
    """How blame is computed.

    trainer:   settings of SFTConfig or DPOConfig on which a row's loss depends: max_length, loss_type, beta, ...
    reference: the model that DPO compares with; None: without the adapter. correct: diversity of correct outputs instead
    of all. max_grad_norm: of gradient clipping, 0: none.
    by_task:   effects on each task too: forwards over the rows for each of them.
    """

    watch: WatchConfig
    seed: int = 0
    correct: bool = False
    device: str = "cpu"
    reference: str | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    by_task: bool = True
    max_grad_norm: float = 1.0


class Measured(NamedTuple):
    """What one checkpoint says.

    look: its completions. rows: task (`all` alone without `by_task`) -> [rows]; the change of the task's diversity for a step
    on that row, per unit of learning rate. path: task -> change of its diversity along the way that the checkpoint stands
    for; None where the run has no other checkpoint. influence: [prompts, K, sources], of each completion on the change of its
    prompt's diversity for a step on a source (`sample_influence`); with `path` one column more, for the way.
    """

    look: BlameLook
    rows: dict[str, Floats]
    influence: Floats
    path: dict[str, float] | None = None


def measure_run(
    checkpoints: Sequence[Checkpoint],
    data: TrainingData,
    prompts: Sequence[Prompt],
    config: BlameConfig,
    encoder: TextEncoder,
    note: Callable[[str], None] = lambda line: None,
) -> list[Measured]:
    """Blame at each checkpoint of a run, in order. Raises DivwatchError if one cannot be loaded or has no diversity to measure.

    All are asked with the tokenizer of the last one, whose chat template training used.
    The looks at both ends draw the same random numbers, for a paired change; those between draw their own, so that their
    errors average out.
    """
    measured = []
    paths = [c.path for c in checkpoints]
    tokenizer = load_tokenizer(paths[-1])
    for place, checkpoint in enumerate(checkpoints):
        note(f"blame at {checkpoint.path} (step {checkpoint.step})")
        before, after = [None, *paths][place], [*paths, None][place + 1]
        at_end = before is None or after is None
        with tempfile.TemporaryDirectory() as folder:
            trainer = load_trainer(
                checkpoint.path, tokenizer, data, config.trainer, config.reference, config.device, folder
            )
            way = displacement(trainer.model, before, after) if len(paths) > 1 else None
            seed = config.seed + (0 if at_end else place)
            measured.append(_measure(trainer, checkpoint, data, prompts, config, encoder, note, seed, way))
            device = trainer.args.device
            del trainer, way  # before the next model is loaded
            release(device)
    return measured


def _measure(
    trainer: Any,
    checkpoint: Checkpoint,
    data: TrainingData,
    prompts: Sequence[Prompt],
    config: BlameConfig,
    encoder: TextEncoder,
    note: Callable[[str], None],
    seed: int,
    way: Sequence[Any] | None,
) -> Measured:
    model, tokenizer, watch = trainer.model.eval(), trainer.processing_class, config.watch
    parameters = [p for p in model.parameters() if p.requires_grad]
    look = look_at(model, tokenizer, prompts, watch, encoder, seed, config.correct)
    shares = dict(prompt_shares(look.tasks, look.values))
    if not shares:
        raise DivwatchError(
            f"{checkpoint.path}: no prompt has three {'correct' if config.correct else 'usable'} outputs; "
            "raise --samples, or choose another panel"
        )
    losses = RowLosses(trainer)
    set_mean_tokens(losses, data)
    how = (watch.temperature, watch.top_p, pad_token(tokenizer), model.device)
    # The run's own optimizer: the model that it started from may have been saved with another's.
    moments = of_optimizer(trainer, Path(checkpoint.path), parameters) if checkpoint.step else None
    scale = 1.0 if moments is None else checkpoint.clipping(config.max_grad_norm)
    if moments is None:
        note(f"{checkpoint.path}: no optimizer state, the preconditioner is estimated from the mix")
        batches = _batches_of_mix(data, checkpoint.batch or ROW_BATCH, config.seed)
        moments = of_batches(losses, batches, parameters)
    everything = list(range(len(data.labels)))
    probes = everything[:: max(1, len(everything) // PROBES)]
    rows: dict[str, Floats] = {}
    path: dict[str, float] = {}
    for task in (t for t in shares if (t != "all") == config.by_task):
        weights = (shares[task][:, None] * look.weights).ravel().tolist()
        gradient = weighted_gradient(model, parameters, look.sampled, weights, *how)
        if way is not None:
            path[task] = inner_product(gradient, way)
        direction = preconditioned(gradient, moments, scale)
        size = nudge_size(lambda: losses.values(probes), parameters, direction)
        rows[task] = (
            -central_difference(lambda: losses.values(everything), parameters, direction, size)
            if size
            else np.zeros(len(everything))
        )
    of_sources = ([i for i, label in enumerate(data.labels) if label == s] for s in data.sources)
    steps = (preconditioned(losses.gradient(mine, parameters), moments, scale) for mine in of_sources)
    directions = chain(steps, () if way is None else [[-t for t in way]])
    return Measured(look, rows, _influence(look, directions, model, parameters, how), None if way is None else path)


def _influence(look: BlameLook, directions: Iterable[Any], model: Any, parameters: Sequence[Any], how: Any) -> Floats:
    """`look_influence` of a step against each direction. Without the nucleus, and with nudges as long as the first
    direction's: enough for an error.
    """
    temperature, _, pad, device = how
    scale = error_scale(look)
    sampled = [s for s, used in zip(look.sampled, np.repeat(scale > 0, look.weights.shape[1]), strict=True) if used]

    def values(some: Sequence[Sampled]) -> Floats:
        return all_log_probs(model, some, temperature, 1.0, pad, device)

    length, columns = 0.0, []
    for direction in directions:
        long = norm(direction)
        if long and not length:
            length = long * nudge_size(
                lambda: values(sampled[:: max(1, len(sampled) // PROBES)]), parameters, direction
            )
        columns.append(
            central_difference(lambda: values(sampled), parameters, direction, length / long)
            if long
            else np.zeros(len(sampled))
        )
    return look_influence(look, scale, np.stack(columns, axis=-1))


def set_mean_tokens(losses: RowLosses, data: TrainingData) -> None:
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


def pad_token(tokenizer: Any) -> int:
    return next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
