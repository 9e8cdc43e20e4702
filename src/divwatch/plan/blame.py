"""What blame costs at one checkpoint: tokens that go through the model, and seconds (docs/blame.md derives the formula)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from divwatch.blame.look import ERROR_PROMPTS
from divwatch.blame.offline import BATCHES, ROW_BATCH
from divwatch.plan.cost import Cost, Look
from divwatch.plan.device import Device
from divwatch.plan.shape import Shape

ROWS = 128  # of `divwatch blame` by default


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


def with_blame(cost: Cost, shape: Shape, device: Device, devices: int, look: Look, tasks: int, rows: int) -> Cost:
    """The cost of a look that `watch_blame` follows. rows: `watch_blame_rows`."""
    blame = blame_cost(shape, device, devices, look, cost, tasks=tasks, rows=rows).seconds - cost.seconds
    return replace(cost, blame_seconds=blame, seconds=cost.seconds + blame)


def blame_cost(
    shape: Shape,
    device: Device,
    devices: int,
    look: Look,
    cost: Cost,
    sources: int = 10,
    tasks: int = 6,
    rows: int = ROWS,
) -> BlameCost:
    """The cost of blame for `rows` rows of each of `sources` sources and a panel of `tasks` tasks. cost: of the look that it
    samples.

    Completions are read along each source's direction and along the weights' path. A forward has 2 operations per parameter
    and token, a backward 4 more. The probes for the sizes of nudges (a few per cent) are left out.
    """
    of_row = look.prompt_tokens + (look.mean_tokens or look.new_tokens)
    completions = look.prompts * look.samples
    backward = of_row * (completions + sources * rows + BATCHES * ROW_BATCH)
    read = min(look.prompts, tasks * ERROR_PROMPTS) * look.samples
    forward = of_row * 2 * (tasks * sources * rows + (sources + 1) * read)
    operations = shape.multiplied * (2 * forward + 6 * backward)
    seconds = cost.seconds - cost.blame_seconds + operations / devices / device.flops
    return BlameCost(seconds, forward, backward, sources, tasks, rows, of_row)
