"""What blame costs at one checkpoint: tokens that go through the model, and seconds (docs/blame.md derives the formula)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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


def blame_cost(
    shape: Shape, device: Device, devices: int, look: Look, cost: Cost, sources: int = 10, tasks: int = 6
) -> BlameCost:
    """The cost of blame for `sources` sources and a panel of `tasks` tasks. cost: of the look that it samples.

    Completions are read along each source's direction and along the weights' path. A forward has 2 operations per parameter
    and token, a backward 4 more. The probes for the sizes of nudges (a few per cent) are left out.
    """
    of_row = look.prompt_tokens + (look.mean_tokens or look.new_tokens)
    completions = look.prompts * look.samples
    backward = of_row * (completions + sources * ROWS + BATCHES * ROW_BATCH)
    read = min(look.prompts, tasks * ERROR_PROMPTS) * look.samples
    forward = of_row * 2 * (tasks * sources * ROWS + (sources + 1) * read)
    operations = shape.multiplied * (2 * forward + 6 * backward)
    seconds = cost.seconds + operations / devices / device.flops
    return BlameCost(seconds, forward, backward, sources, tasks, ROWS, of_row)
