"""A worker process as the process that started it sees it; `worker.py` is what runs in there."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import numpy as np
import torch

_BYTES_A_VALUE = 4
# The worker's sentcore is this one, whatever sys.path would find first: with other kernels rows would have other bits.
_PACKAGE = str(Path(__file__).resolve().parents[1])
_SERVE = """
import sys, importlib.util as util
sys.path[:] = filter(None, sys.path)
spec = util.spec_from_file_location("sentcore", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
sys.modules["sentcore"] = package = util.module_from_spec(spec)
spec.loader.exec_module(package)
from sentcore.pipeline.worker import main
main(*map(int, sys.argv[2:]))
"""


class WorkerProcess:
    """One process and our end of what it is spoken to through."""

    def __init__(self, device: torch.device, model: IO[bytes], threads: int) -> None:
        self.device = device
        self.ready = False
        self.task: int | None = None
        self.slot = _shared_memory()
        ours, theirs = socket.socketpair()
        inherited = (theirs.fileno(), model.fileno(), self.slot.fileno())
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, _PACKAGE, *map(str, inherited)],
            stdin=subprocess.DEVNULL,
            pass_fds=inherited,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        self.connection = Connection(ours.detach())
        with suppress(BrokenPipeError, ConnectionResetError):  # dead already: noticed when it is listened to
            self.connection.send((str(device), threads))

    def give(self, number: int, texts: list[str], width: int, options: object, batch_tokens: int) -> None:
        """Hands a window over; its rows have at most `width` columns."""
        self.task = number
        _make_room(self.slot, len(texts) * width * _BYTES_A_VALUE)
        self.connection.send((number, texts, options, batch_tokens))

    def rows(self, shape: tuple[int, int]) -> torch.Tensor:
        """[b, E] float32, copied out of the shared memory."""
        with mmap.mmap(self.slot.fileno(), shape[0] * shape[1] * _BYTES_A_VALUE, prot=mmap.PROT_READ) as shared:
            return torch.from_numpy(np.frombuffer(shared[:], dtype=np.float32).reshape(shape).copy())

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        self.connection.close()
        self.process.kill()
        self.process.wait()
        self.slot.close()


def _shared_memory() -> IO[bytes]:
    """An empty file that lies in memory where the system has such, and that nobody but its holders sees."""
    if hasattr(os, "memfd_create"):  # not bounded by /dev/shm, which is small in containers
        return os.fdopen(os.memfd_create("sentcore-rows"), "w+b")
    return tempfile.TemporaryFile()


def _make_room(file: IO[bytes], size: int) -> None:
    """Grows a file; an OSError here, and not a bus error later, where there is no room."""
    if os.fstat(file.fileno()).st_size >= size:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        os.ftruncate(file.fileno(), size)
