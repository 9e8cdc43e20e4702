"""The `vllm` backend: in GRPO and RLOO the trainer's own engine, elsewhere one of TRL's on the training GPUs.

TRL's engine takes the weights of the model in training, however they are sharded, and serves all ranks. For it every
call is a collective. What it was set to sample with is put back on every way out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.sampling.plan import Row
from divwatch.sampling.request import Request

# Of an engine of our own: room is left for the training that it shares the GPU with.
GPU_SHARE = 0.3


class Engine:
    """A TRL `VLLMGeneration` and the trainer whose weights it follows."""

    def __init__(self, trainer: Any, limit: int) -> None:
        self.trainer = trainer
        self.owned = getattr(trainer, "vllm_generation", None) is None
        self.generation = _new_engine(trainer, limit) if self.owned else trainer.vllm_generation

    def shares(self, shares: Sequence[Sequence[Row]]) -> list[list[Row]]:
        """The rows of each rank. A server answers rank 0; of its answers TRL gives all ranks slices of one length."""
        if getattr(self.generation, "mode", "colocate") == "server":
            return [[row for share in shares for row in share], *([] for _ in shares[1:])]
        return [list(share) for share in shares]

    def generate(self, request: Request, rows: Sequence[Row], samples: int) -> list[list[int]]:
        """New token ids of each row, in the order given; the rows of all ranks together hold `samples` of each prompt."""
        if request.how.close_at is not None:
            raise DivwatchError("watch_think_tokens needs watch_backend transformers: vLLM closes no thought")
        self._sync()
        settings = {
            "temperature": request.how.temperature,
            "top_p": request.how.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "max_completion_length": request.how.limit,
            "generation_kwargs": {},
            "structured_outputs_regex": None,
        }
        with _set(self.generation, settings):
            prompts = [request.encoded[row.prompt] for row in rows]
            if getattr(self.generation, "tensor_parallel_size", 1) > 1:  # the ranks of a group must have equally many
                most = -(-len(request.encoded) * samples // self.trainer.accelerator.num_processes)
                prompts += [request.encoded[0]] * (most - len(prompts))
            completions = self.generation.generate(prompts=prompts, images=None, num_generations=samples)[1]
        if len(completions) != len(prompts):
            raise RuntimeError(f"vLLM returned {len(completions)} of {len(prompts)} completions")
        return [list(ids) for ids in completions[: len(rows)]]

    def _sync(self) -> None:
        """Gives the engine this step's weights, once: a GRPO trainer keeps the step it last did so for."""
        step = self.trainer.state.global_step
        if not self.owned and self.trainer._last_loaded_step == step:
            return
        self.generation.sync_weights()
        if not self.owned:
            self.trainer._last_loaded_step = step


def _new_engine(trainer: Any, limit: int) -> Any:
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        raise DivwatchError(
            "watch_backend vllm needs vLLM: pip install 'divwatch[vllm]', or use watch_backend transformers"
        )
    from trl.generation.vllm_generation import VLLMGeneration

    return VLLMGeneration(
        model=trainer.model,
        accelerator=trainer.accelerator,
        processing_class=trainer.processing_class,
        mode="colocate",
        gpu_memory_utilization=GPU_SHARE,
        max_completion_length=limit,
    )


@contextmanager
def _set(target: Any, values: dict[str, Any]) -> Iterator[None]:
    before = {name: getattr(target, name) for name in values}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)
