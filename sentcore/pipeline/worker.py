"""A worker process: an encoder of its own, texts in by a pipe, rows out through a file of shared memory."""

from __future__ import annotations

import mmap
import pickle
import signal
import traceback
import warnings
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
import torch

from sentcore.pipeline.call import Call


def main(pipe: int, model: int, slot: int) -> None:
    """Serves until the other end of the pipe is closed.

    Args:
        pipe, model, slot: file descriptors: of the pipe, of the encoder as torch.save wrote it, of the shared memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the first one ends the others
    warnings.simplefilter("ignore")  # what there is to say is handed over in Notes
    connection = Connection(pipe)
    try:
        device, threads = connection.recv()
        if threads:
            torch.set_num_threads(threads)
        # The file's pages are shared by all workers.
        encoder = torch.load(f"/dev/fd/{model}", map_location="cpu", weights_only=False, mmap=True)
        encoder.to(device)
        connection.send(("ready", None, None, None))
        while True:
            number, texts, options, batch_tokens = connection.recv()
            connection.send(_answer(encoder, slot, number, texts, options, batch_tokens))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody is waiting any more


def _answer(encoder, slot: int, number: int, texts: list[str], options, batch_tokens: int) -> tuple:
    try:
        options = replace(options, precision="float32", ranges=None)  # what the shared memory holds
        call = Call(encoder, options, batch_tokens, lambda *_: None)
        outputs = next(call.run([texts]))
        rows = outputs["sentence_embedding"].numpy()
        with mmap.mmap(slot, rows.nbytes) as shared:
            shared[:] = np.ascontiguousarray(rows).tobytes()
        return "rows", number, rows.shape, call.notes
    except Exception as error:
        try:
            pickle.dumps(error)
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return "error", number, error, traceback.format_exc()
