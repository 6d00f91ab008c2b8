"""Daemon threads that compute while the interpreter ends: they stop between two batches.

Python ends such a thread where it next wants the interpreter's lock. Behind a torch op or the tokenizer that is inside C++ or
Rust, which take it for an error and abort the process.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 10.0  # seconds that the interpreter's end waits for a batch

_ending = False
_changed = threading.Condition()
_at_work: Counter[int] = Counter()  # thread -> how often it is inside at_work


@contextmanager
def at_work() -> Iterator[None]:
    """What is within ends, or comes to `pause`, before the interpreter does. Also a decorator: `@at_work()`."""
    thread = threading.get_ident()
    pause()
    with _changed:
        _at_work[thread] += 1
    try:
        yield
    finally:
        with _changed:
            _at_work[thread] -= 1
            _changed.notify_all()


def pause() -> None:
    """Never returns once the interpreter is ending."""
    if _ending:
        with _changed:
            _at_work.pop(threading.get_ident(), None)
            _changed.notify_all()
        threading.Event().wait()


def _end() -> None:
    global _ending
    own = threading.get_ident()
    with _changed:
        _ending = True
        _changed.wait_for(lambda: not any(n for thread, n in _at_work.items() if thread != own), PATIENCE)


def _forked() -> None:
    global _changed
    _changed = threading.Condition()  # another thread may have held it
    _at_work.clear()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
