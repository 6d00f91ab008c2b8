"""The progress bar of long work, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

SHORT = 1000  # texts below which a bar that nobody asked for would only flicker


class Progress:
    """Counts sentences, and tells of tokens per second beside them."""

    def __init__(self, bar: tqdm | None) -> None:
        self._bar = bar
        self._tokens = 0

    def advance(self, sentences: int, tokens: int) -> None:
        """So many more are done."""
        if self._bar is None:
            return
        self._tokens += tokens
        elapsed = self._bar.format_dict["elapsed"]
        if elapsed > 0:
            self._bar.set_postfix_str(f"{self._tokens / elapsed:,.0f} tokens/s", refresh=False)
        self._bar.update(sentences)


@contextmanager
def progress_bar(total: int | None, show: bool | None) -> Iterator[Progress]:
    """Of `total` sentences; show=None shows it for long work on a terminal."""
    if show is None:
        show = sys.stderr.isatty() and (total is None or total >= SHORT)
    if not show:
        yield Progress(None)
        return
    with tqdm(total=total, unit=" sentences", unit_scale=False, file=sys.stderr) as bar:
        yield Progress(bar)
