"""Queues of device work beside each other, and what one has to wait for in another: CUDA's, and a CPU's in their place.

Three queues: "in" copies batches to the device, "compute" is the caller's current stream, "out" copies rows back.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import torch


class CudaStreams:
    """Streams and events of one CUDA device. Not yet run on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # torch hands out 32 streams of each priority in turn. Of the usual one, these could be the caller's own stream, or
        # one that another thread captures on: a copy would become a part of its graph.
        self._streams = {name: torch.cuda.Stream(device, priority=-1) for name in ("in", "out")}

    def on_host(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """[count] of page-locked memory, from and to which copies run beside the host."""
        return torch.empty(count, dtype=dtype, pin_memory=True)

    def on_device(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """[count] on the device, good for the "in" queue after what "compute" holds by now."""
        made = torch.empty(count, dtype=dtype, device=self.device)
        self._stream("in").wait_stream(self._stream("compute"))
        return made

    def copy(self, name: str, target: torch.Tensor, source: torch.Tensor) -> None:
        """Queues a copy; both tensors stay as they are until it is done."""
        with torch.cuda.stream(self._stream(name)):
            target.copy_(source, non_blocking=True)

    def mark(self, name: str) -> torch.cuda.Event:
        """What is done once all that the queue holds by now is done."""
        event = torch.cuda.Event(blocking=True)  # a waiting host sleeps, as tokenizers want its cores
        event.record(self._stream(name))
        return event

    def after(self, name: str, mark: torch.cuda.Event) -> None:
        """Lets the queue's next work wait for a mark; the host goes on."""
        self._stream(name).wait_event(mark)

    def wait(self, mark: torch.cuda.Event) -> None:
        """Lets the host wait for a mark."""
        mark.synchronize()

    def close(self) -> None:
        """Streams end by themselves."""

    def _stream(self, name: str) -> torch.cuda.Stream:
        return torch.cuda.current_stream(self.device) if name == "compute" else self._streams[name]


class ThreadStreams:
    """The same on a CPU, for tests: a thread for each queue.

    A copy that finds its source changed since it was asked for, which on a GPU is a silent race, is an error of `close`.

    Args:
        pause: called with the queue's name before everything a queue does; one that sleeps makes the host run ahead.
        computes: "compute" is a thread too, for work that comes by `submit`; else the caller computes, and waits where it must.
    """

    def __init__(self, pause: Callable[[str], None] = lambda name: None, computes: bool = False) -> None:
        self.device = torch.device("cpu")
        self._pause = pause
        self._work = {name: queue.SimpleQueue() for name in ("in", "out", *(("compute",) if computes else ()))}
        self._threads = [threading.Thread(target=self._serve, args=(q,), daemon=True) for q in self._work.values()]
        self.races = 0
        for thread in self._threads:
            thread.start()

    def on_host(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """[count]."""
        return torch.empty(count, dtype=dtype)

    def on_device(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """[count]."""
        self.after("in", self.mark("compute"))
        return torch.empty(count, dtype=dtype)

    def submit(self, name: str, run: Callable[[], object]) -> None:
        """Queues any work."""

        def paused() -> None:
            self._pause(name)
            with torch.inference_mode():
                run()

        self._work[name].put(paused)

    def copy(self, name: str, target: torch.Tensor, source: torch.Tensor) -> None:
        """Queues a copy."""
        expected = source.clone() if name == "in" else None  # what goes out is still to be computed

        def run() -> None:
            target.copy_(source)
            self.races += expected is not None and not torch.equal(target, expected)

        self.submit(name, run)

    def mark(self, name: str) -> threading.Event:
        """What is set once all that the queue holds by now is done."""
        event = threading.Event()
        if name in self._work:
            self._work[name].put(event.set)
        else:
            event.set()
        return event

    def after(self, name: str, mark: threading.Event) -> None:
        """Lets the queue wait, or the caller for one that it is itself."""
        if name in self._work:
            self._work[name].put(mark.wait)
        else:
            mark.wait()

    def wait(self, mark: threading.Event) -> None:
        """Waits."""
        mark.wait()

    def close(self) -> None:
        """Ends the threads, and tells of races."""
        for work in self._work.values():
            work.put(None)
        for thread in self._threads:
            thread.join()
        if self.races:
            raise RuntimeError(f"{self.races} copies found their source changed since they were queued")

    @staticmethod
    def _serve(work: queue.SimpleQueue) -> None:
        while (run := work.get()) is not None:
            run()
