"""A computation recorded once and run again on the same memory: by CUDA, or by plain calls where there is no GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import torch

_WARM_UPS = 2  # libraries choose algorithms and tables are made in the first; neither may happen in a capture

# Threads take turns. While one captures, no other may begin a capture, which waits for the device first (CUDA refuses that
# then), nor replay a graph, which moves the random numbers on (torch's generator refuses that then).
_one_at_a_time = threading.Lock()
_streams: dict[torch.device, torch.cuda.Stream] = {}


def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """The one stream of all captures there: a pool's memory is used again by captures on the same stream alone."""
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    return _streams[device]


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
        current = torch.cuda.current_stream(device)
        with _one_at_a_time:
            stream = _stream_of(device)
            stream.wait_stream(current)
            try:
                # All of it in here: where a capture cannot be ended, torch.cuda.graph leaves its stream the current one.
                with torch.cuda.stream(stream):
                    for _ in range(_WARM_UPS):
                        run()
                    torch.cuda.empty_cache()
                    before = torch.cuda.memory_reserved(device)
                    self._graph = torch.cuda.CUDAGraph()
                    self.output = self._captured(run, device, pool)
                    self.bytes = max(0, torch.cuda.memory_reserved(device) - before)
            finally:
                current.wait_stream(stream)  # what was warmed up reads inputs that are let go with an error

    def _captured(self, run: Callable[[], torch.Tensor], device: torch.device, pool: object) -> torch.Tensor:
        # Another thread may be making page-locked memory meanwhile; only this one's calls belong to the capture.
        options = {"stream": _stream_of(device), "capture_error_mode": "thread_local"}
        try:
            # torch makes tensors for its generator as a capture begins. All captures of the process share them, and those
            # outside inference mode could not write to them if they were made in it.
            with (
                torch.inference_mode(False),
                torch.cuda.graph(self._graph, pool=pool, **options),
                torch.inference_mode(),
            ):
                return run()
        except BaseException:
            self._end_for_torch(device, pool, options)
            raise

    @staticmethod
    def _end_for_torch(device: torch.device, pool: object, options: dict) -> None:
        """Where CUDA refused to end a capture, torch's allocator and generator still believe in it: random numbers would be
        an error from then on, and the pool stay for ever. Nothing happens where the capture was ended."""
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(device.index, pool)  # an error where it was ended
            torch._C._cuda_releasePool(device.index, pool)
            with torch.inference_mode(False), torch.cuda.graph(torch.cuda.CUDAGraph(), **options):
                torch.zeros(1, device=device)  # the end of this capture is the generator's

    def replay(self) -> None:
        """Queues the graph on the current stream."""
        with _one_at_a_time:
            self._graph.replay()

    def drop(self) -> None:
        """Gives its memory back to the pool."""
        self.output = None
        with _one_at_a_time:
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
        with _one_at_a_time:
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
