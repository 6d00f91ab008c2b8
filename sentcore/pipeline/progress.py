"""The progress bar of long work, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

SHORT = 1000  # texts below which a bar that nobody asked for would only flicker


class Progress:
    """Counts sentences, and tells of tokens per second beside them.

    Args:
        bar: what is shown; None for nothing.
        total: sentences there will be, as far as is known by now; asked anew at every step.
    """

    def __init__(self, bar: tqdm | None, total: Callable[[], int | None] | None = None) -> None:
        self._bar = bar
        self._total = total
        self._tokens = 0
        self._began = time.monotonic()

    def advance(self, sentences: int, tokens: int) -> None:
        """So many more are done."""
        if self._bar is None:
            return
        self._tokens += tokens
        elapsed = time.monotonic() - self._began
        if elapsed > 0:
            self._bar.set_postfix_str(f"{self._tokens / elapsed:,.0f} tokens/s", refresh=False)
        if self._total is not None:
            self._bar.total = self._total()
        self._bar.update(sentences)


@contextmanager
def progress_bar(
    total: int | Callable[[], int | None] | None, show: bool | Progress | None, done: int = 0
) -> Iterator[Progress]:
    """Of `total` sentences, of which `done` are; show=None shows it for long work on a terminal. A Progress is used as it is."""
    if isinstance(show, Progress):
        yield show
        return
    if show is None:
        show = sys.stderr.isatty() and (not isinstance(total, int) or total >= SHORT)
    if not show:
        yield Progress(None)
        return
    growing = total if callable(total) else None
    first = growing() if growing is not None else total
    with tqdm(total=first, initial=done, unit=" sentences", unit_scale=False, file=sys.stderr) as bar:
        yield Progress(bar, growing)
