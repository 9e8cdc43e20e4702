"""The processes of a launch, and the few things a look makes them agree on. One process needs no group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class LookFailed(RuntimeError):
    """A look that some rank could not take. Raised on every rank; the message names rank and reason."""


class Ranks(NamedTuple):
    """This process among those of the launch. Every method but `main` is a collective: all ranks must call it."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, accelerator: Any) -> Ranks:
        return cls(accelerator.process_index, accelerator.num_processes)

    @property
    def main(self) -> bool:
        return self.rank == 0

    def share(self, value: Any) -> list[Any]:
        """Everybody's `value`, by rank, on every rank. Meant for small ones."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        answers: list[Any] = [None] * self.world
        dist.all_gather_object(answers, value)
        return answers

    def collect(self, value: Any) -> list[Any]:
        """Everybody's `value`, by rank, on rank 0; elsewhere an empty list."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        answers: list[Any] = [None] * self.world
        dist.gather_object(value, answers if self.main else None)
        return answers if self.main else []

    def from_main(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool, device: Any = "cpu") -> bool:
        """Whether `flag` holds on some rank: one reduced number, cheap enough for every token."""
        if self.world == 1:
            return flag
        import torch
        import torch.distributed as dist

        count = torch.tensor([int(flag)], device=device)
        dist.all_reduce(count, op=dist.ReduceOp.MAX)
        return bool(count.item())

    def agree(self, reason: str | None) -> None:
        """Raises LookFailed on every rank where any rank has a reason to stop."""
        raise_if_failed(self.share(reason))


def raise_if_failed(reasons: Sequence[str | None]) -> None:
    failed = [(rank, reason) for rank, reason in enumerate(reasons) if reason is not None]
    if failed:
        everywhere = len(failed) == len(reasons)
        raise LookFailed(failed[0][1] if everywhere else "; ".join(f"rank {rank}: {reason}" for rank, reason in failed))


ALONE = Ranks()
