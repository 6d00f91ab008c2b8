"""A computation recorded once and run again on the same memory: by CUDA, or by plain calls where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

_WARM_UPS = 2  # libraries choose algorithms and tables are made in the first; neither may happen in a capture


class CudaCapture:
    """A CUDA graph of `run`. Not yet run on a GPU.

    Args:
        run: gives one tensor from tensors whose addresses never change; reads nothing on the host.
        device: a CUDA device.
        pool: of `new_pool`; memory that graphs share, as no two of them run at once.

    Attributes:
        output: what `replay` writes, good until any graph of the pool is replayed.
        bytes: by how much the pool grew.
    """

    def __init__(self, run: Callable[[], torch.Tensor], device: torch.device, pool: object) -> None:
        stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                run()
        current.wait_stream(stream)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(device)
        self._graph = torch.cuda.CUDAGraph()
        # Another thread may be making page-locked memory meanwhile; only this one's calls belong to the capture.
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self.output = run()
        self.bytes = max(0, torch.cuda.memory_reserved(device) - before)

    def replay(self) -> None:
        """Queues the graph on the current stream."""
        self._graph.replay()

    def drop(self) -> None:
        """Gives its memory back to the pool."""
        self.output = None
        self._graph.reset()

    @staticmethod
    def new_pool() -> object:
        """Where graphs keep what they compute."""
        return torch.cuda.graph_pool_handle()

    @staticmethod
    def takes(device: torch.device) -> bool:
        """Whether a batch there can be captured now: a capture inside another cannot."""
        return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()

    @staticmethod
    def in_turn(device: torch.device, previous: object | None) -> object:
        """The current stream, after what `previous`, the one before it, was given: they share memory."""
        current = torch.cuda.current_stream(device)
        if previous is not None and previous != current:
            current.wait_stream(previous)
        return current

    @staticmethod
    def finish(device: torch.device) -> None:
        """Waits for all that is queued."""
        torch.cuda.synchronize(device)


class EagerCapture:
    """The same in plain calls: `replay` runs the computation anew and writes where the first one did. For tests and CPUs."""

    def __init__(self, run: Callable[[], torch.Tensor], device: torch.device, pool: object) -> None:
        self._run = run
        self.output = run().clone()
        self.bytes = self.output.numel() * self.output.element_size()

    def replay(self) -> None:
        """Runs it."""
        self.output.copy_(self._run())

    def drop(self) -> None:
        """Lets go of it."""
        self.output = self._run = None

    @staticmethod
    def new_pool() -> object:
        """Nothing is shared here."""
        return object()

    @staticmethod
    def takes(device: torch.device) -> bool:
        """Any device."""
        return True

    @staticmethod
    def in_turn(device: torch.device, previous: object | None) -> object | None:
        """Everything is in turn."""
        return previous

    @staticmethod
    def finish(device: torch.device) -> None:
        """Nothing is ever left to wait for."""
