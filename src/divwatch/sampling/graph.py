"""A step recorded in a CUDA graph and replayed, so that the host launches one thing instead of a thousand.

Whether a step can be recorded shows when it runs for the first time: it must not wait for the device. A recording that
fails all the same leaves nothing behind: the random state that a graph would register with is a copy.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

from divwatch.errors import one_line
from divwatch.sampling.log import warn_once
from divwatch.sampling.memory import is_out_of_memory


class Recorder:
    """Runs a step again and again; on a CUDA device, where `capture` asks for it, from a graph.

    A context manager: on every way out graphs are freed and the device's random state is the one it was.
    """

    def __init__(self, device: Any, capture: bool) -> None:
        self.device = device
        self.capture = capture and device.type == "cuda"
        self.verified = False  # whether a replay has given what the step itself gives
        self._graph: Any = None
        self._warm = False
        self._random: Any = None

    def __enter__(self) -> Recorder:
        if self.capture:
            generator = self._generator()
            self._random = generator.graphsafe_get_state()
            generator.graphsafe_set_state(generator.clone_state())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget()
        if self._random is not None:
            self._generator().graphsafe_set_state(self._random)
            self._random = None

    def forget(self) -> None:
        """Frees the graph. Call it when the step's shapes change; the step is then rehearsed and recorded anew."""
        self._warm = False
        if self._graph is not None:
            torch.cuda.synchronize(self.device)
            self._graph.reset()
            self._graph = None

    @property
    def recorded(self) -> bool:
        """Whether `run` replays a graph."""
        return self._graph is not None

    def run(self, step: Callable[[], None]) -> None:
        """Runs the step once. It must use the same tensors until `forget`; a step that fails half-way is run again."""
        if not self.capture:
            step()
        elif self._graph is not None:
            self._graph.replay()
        elif not self._warm:
            self._rehearse(step)
        else:
            self._record(step)

    def _rehearse(self, step: Callable[[], None]) -> None:
        """The first run: as it is, but a wait for the device is an error and means that there will be no graph.

        It also loads what kernels need, which cannot be done while a step is recorded.
        """
        before = torch.cuda.get_sync_debug_mode()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the mode is a prototype
                torch.cuda.set_sync_debug_mode("error")
            step()
            self._warm = True
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            self._give_up(error)
        finally:
            torch.cuda.set_sync_debug_mode(before)
        if not self.capture:
            step()

    def _record(self, step: Callable[[], None]) -> None:
        """Records the step, which runs nothing, and replays it."""
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        stream = torch.cuda.current_stream(self.device)
        try:
            # Other threads may allocate meanwhile, as those that load data do.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                step()
        except Exception as error:
            # What `torch.cuda.graph` leaves undone where the recording itself cannot be ended.
            torch.cuda.set_stream(stream)
            _end_allocation(self.device, pool)
            if is_out_of_memory(error):
                raise
            self._give_up(error)
            step()
            return
        self._graph = graph
        graph.replay()

    def _give_up(self, error: Exception) -> None:
        """From now on the step runs without a graph."""
        self.capture = False
        warn_once(f"decoding runs without a CUDA graph: {one_line(error)}")

    def _generator(self) -> Any:
        index = self.device.index
        return torch.cuda.default_generators[torch.cuda.current_device() if index is None else index]


def is_recordable(model: Any) -> bool:
    """Whether nothing known speaks against a graph of the model's forward: a hook may do something else at each call."""
    for module in model.modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if hasattr(module, "_hf_hook") or not all(map(_is_harmless, hooks)):
            return False
    return True


def _is_harmless(hook: Any) -> bool:
    """The hook that gradient checkpointing puts on the embeddings does nothing without gradients."""
    return getattr(hook, "__name__", "").startswith("make_inputs_require_grad")


def _end_allocation(device: Any, pool: Any) -> None:
    """A recording that ends with an error can leave the allocator in the state of recording."""
    with contextlib.suppress(Exception):
        index = torch.cuda.current_device() if device.index is None else device.index
        torch._C._cuda_endAllocateToPool(index, pool)
        torch._C._cuda_releasePool(index, pool)
