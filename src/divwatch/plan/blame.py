"""What blame costs at one checkpoint: tokens that go through the model, and seconds (docs/blame.md derives the formula)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from divwatch.blame.look import ERROR_PROMPTS
from divwatch.blame.offline import BATCHES, ROW_BATCH
from divwatch.blame.run_settings import ROWS
from divwatch.plan.cost import Cost, Look
from divwatch.plan.device import Device
from divwatch.plan.shape import Shape

SOURCES = 10  # where the mix is not known


@dataclass(frozen=True)
class BlameCost:
    """seconds: sampling the look, then backward and forward passes. forward, backward: tokens that go through the model once
    or once each way. sources, tasks, rows: assumed, rows of each source. row_tokens: of a row, as long as the look's.
    """

    seconds: float
    forward: float
    backward: float
    sources: int
    tasks: int
    rows: int
    row_tokens: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def with_blame(
    cost: Cost, shape: Shape, device: Device, devices: int, look: Look, tasks: int, rows: int, sources: int = SOURCES
) -> Cost:
    """The cost of a look that `watch_blame` follows, which reads v from the optimizer and knows no weights' path.

    rows: `watch_blame_rows`. sources: of the training data.
    """
    blame = blame_cost(shape, device, devices, look, cost, sources, tasks, rows, 0, sources).seconds - cost.seconds
    return replace(cost, blame_seconds=blame, seconds=cost.seconds + blame)


def blame_cost(
    shape: Shape,
    device: Device,
    devices: int,
    look: Look,
    cost: Cost,
    sources: int = SOURCES,
    tasks: int = 6,
    rows: int = ROWS,
    estimated: int = BATCHES * ROW_BATCH,
    directions: int | None = None,
) -> BlameCost:
    """The cost of blame for `rows` rows of each of `sources` sources and a panel of `tasks` tasks. cost: of the look that it
    samples.

    estimated: rows that v is estimated from, as where no optimizer's state was saved; 0 where v is read. directions: along
    which completions are read; None: each source's and the weights' path, as between checkpoints.
    A forward has 2 operations per parameter and token, a backward 4 more. The probes for the sizes of nudges (a few per cent)
    are left out.
    """
    of_row = look.prompt_tokens + (look.mean_tokens or look.new_tokens)
    completions = look.prompts * look.samples
    backward = of_row * (completions + sources * rows + estimated)
    read = min(look.prompts, tasks * ERROR_PROMPTS) * look.samples
    along = sources + 1 if directions is None else directions
    forward = of_row * 2 * (tasks * sources * rows + along * read)
    operations = shape.multiplied * (2 * forward + 6 * backward)
    seconds = cost.seconds - cost.blame_seconds + operations / devices / device.flops
    return BlameCost(seconds, forward, backward, sources, tasks, rows, of_row)
