"""Several processes on one machine, each with the encoder: windows handed out, rows back in order, a dead worker replaced."""

from __future__ import annotations

import pickle
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import wait
from typing import IO

import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError, WorkerError
from sentcore.pipeline.batches import WINDOW, first_window
from sentcore.pipeline.notes import Notes
from sentcore.pipeline.worker_process import WorkerProcess

_ATTEMPTS = 3  # workers that one window may take along


def check_devices(devices: Sequence[str]) -> Sequence[str]:
    """`devices` itself when it is a list of at least one name."""
    if isinstance(devices, (str, bytes)) or not isinstance(devices, Sequence):
        raise ArgumentTypeError(
            f"devices is {devices!r} of type {type(devices).__name__}; accepted: a list, one device for each process, as "
            "['cuda:0', 'cuda:1'] or ['cpu'] * 4"
        )
    if not devices:
        raise ArgumentValueError("devices is empty; accepted: at least one device, or None for this process alone")
    return devices


def as_workers(
    devices: Sequence[str] | WorkerPool | None,
    wanted: tuple[str | None, ...],
    start: Callable[[Sequence[str]], WorkerPool],
) -> AbstractContextManager[WorkerPool | None]:
    """A pool to use in a `with` block: the one given, which stays open, or one that `start` makes for that block."""
    if devices is None:
        return nullcontext()
    if wanted != ("sentence_embedding",):
        raise ArgumentValueError(
            f"devices is given and output_value {wanted}; accepted with devices: 'sentence_embedding' alone"
        )
    return nullcontext(devices) if isinstance(devices, WorkerPool) else start(devices)


def window_sizes(texts: int, workers: WorkerPool | None, device: torch.device) -> tuple[int, int | None]:
    """Texts in a window of `encode` and in the first one: smaller ones for several workers, so that all have work to the end."""
    if workers is None:
        return WINDOW, first_window(device)
    return min(WINDOW, max(1, -(-texts // (4 * len(workers))))), None


class WorkerPool:
    """Worker processes, used as ``encoder.encode(..., devices=pool)``; SentenceEncoder.start_workers makes one.

    Args:
        encoder: what each of them gets a copy of; changes made to it later do not reach them.
        devices: one for each process. Those on the CPU share this process's threads among them.
    """

    def __init__(self, encoder: torch.nn.Module, devices: Sequence[torch.device]) -> None:
        self._model = tempfile.TemporaryFile()  # noqa: SIM115  # gone with the last process that holds it
        _save(encoder, self._model)
        self._width = encoder.checkpoint.sentence_embedding_dimension
        on_cpu = sum(device.type == "cpu" for device in devices)
        self._threads = max(1, torch.get_num_threads() // max(1, on_cpu))
        self._using = threading.Lock()
        self._workers: list[WorkerProcess] = []
        self._next = 0  # number of the next window; no two have the same, so that no answer is taken for another's
        self._end = weakref.finalize(self, _end_all, self._workers, self._model)
        for device in devices:
            self._workers.append(self._start(device))

    def __len__(self) -> int:
        return len(self._workers)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes."""
        self._end()

    def run(
        self,
        windows: Iterable[list[str]],
        options: object,
        batch_tokens: int,
        notes: Notes,
        advance: Callable[[int, int], None],
    ) -> Iterator[dict[str, torch.Tensor]]:
        """The sentence embeddings of every window, in order; two windows a worker are held at most.

        What reading a window or computing it raises is raised in its turn, after all that came before has been given.
        """
        if not self._workers or not self._end.alive:
            raise ArgumentValueError("devices is a WorkerPool that was closed; start one with start_workers")
        if not self._using.acquire(blocking=False):
            raise ArgumentValueError("devices is a WorkerPool that another call is using; start one for each")
        try:
            yield from _Run(self, iter(windows), options, batch_tokens, notes, advance).rows()
        except WorkerError:
            self.close()
            raise
        finally:
            self._using.release()

    def _start(self, device: torch.device) -> WorkerProcess:
        return WorkerProcess(device, self._model, self._threads if device.type == "cpu" else 0)


class _Run:
    """One call's way through a pool."""

    def __init__(self, pool: WorkerPool, windows: Iterator, options, batch_tokens: int, notes: Notes, advance) -> None:
        self._pool, self._workers = pool, pool._workers
        self._windows, self._options, self._batch_tokens = windows, options, batch_tokens
        self._notes, self._advance = notes, advance
        self._texts: dict[int, list[str]] = {}  # windows that are not done yet
        self._waiting: list[int] = []  # of these, the ones that no worker has
        self._done: dict[int, tuple] = {}
        self._deaths: dict[int, int] = {}
        self._read = self._given = pool._next

    def rows(self) -> Iterator[dict[str, torch.Tensor]]:
        reading, failure = True, None
        while True:
            while reading and self._read - self._given < 2 * len(self._workers):
                try:
                    texts = next(self._windows)
                except StopIteration:
                    reading = False
                except Exception as error:
                    reading, failure = False, error
                else:
                    self._take(texts)
            self._hand_out()
            if self._given in self._done:
                yield self._give()
            elif self._given < self._read:
                self._listen()
            elif failure is not None:
                raise failure
            elif not reading:
                return

    def _take(self, texts: list[str]) -> None:
        number = self._read
        self._read = self._pool._next = number + 1
        if texts:
            self._texts[number] = texts
            self._waiting.append(number)
        else:
            self._done[number] = ("rows", None, Notes())

    def _give(self) -> dict[str, torch.Tensor]:
        kind, found, notes = self._done.pop(self._given)
        self._given += 1
        if kind == "error":
            raise found
        self._notes.add(notes.shifted(self._notes.texts))
        return {} if found is None else {"sentence_embedding": found}

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.task is None and self._waiting:
                number = self._waiting.pop(0)
                try:
                    worker.give(number, self._texts[number], self._pool._width, self._options, self._batch_tokens)
                except (BrokenPipeError, ConnectionResetError):
                    self._replace(worker)

    def _listen(self) -> None:
        connections = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(connections)):
            worker = connections[connection]
            try:
                kind, number, found, notes = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            if kind == "ready":
                worker.ready = True
                continue
            worker.task = None
            if number not in self._texts:  # of a call that was given up
                continue
            if kind == "rows":
                self._advance(notes.texts, notes.tokens)
                found = worker.rows(found)
            elif notes and not isinstance(found, MemoryError):
                found.__cause__ = WorkerError(f"in a worker process on {worker.device}:\n{notes}")
            del self._texts[number]
            self._done[number] = (kind, found, notes)

    def _replace(self, worker: WorkerProcess) -> None:
        worker.connection.close()
        status = worker.process.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
        what = f"the worker process {worker.process.pid} on {worker.device} {how}"
        if not worker.ready:
            raise WorkerError(f"{what} before it was ready; what it printed says why, or memory ran out: use fewer")
        number = worker.task if worker.task in self._texts else None
        if number is not None:
            self._deaths[number] = self._deaths.get(number, 0) + 1
            texts = len(self._texts[number])
            if self._deaths[number] == _ATTEMPTS:
                raise WorkerError(
                    f"{what}, the {_ATTEMPTS}. in a row on the same {texts} texts; is memory short? Lower batch_tokens, or use "
                    "fewer workers"
                )
            self._waiting.insert(0, number)
        again = f"; its {texts} texts are computed again" if number is not None else ""
        warnings.warn(f"{what}{again} by a new one", RuntimeWarning, stacklevel=2)
        worker.slot.close()
        self._workers[self._workers.index(worker)] = self._pool._start(worker.device)


def _end_all(workers: list[WorkerProcess], model: IO[bytes]) -> None:
    for worker in workers:
        worker.end()
    model.close()


def _save(encoder: torch.nn.Module, file: IO[bytes]) -> None:
    try:
        torch.save(encoder, file)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ArgumentValueError(
            f"devices is given, and the encoder cannot be copied to other processes ({error}); accepted: hooks and words= that "
            "pickle can name, as functions of a module"
        ) from error
    file.flush()
