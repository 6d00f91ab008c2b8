"""The progress bar of long work, on standard error."""

from __future__ import annotations

import sys

from tqdm import tqdm

SHORT = 1000  # texts below which a bar that nobody asked for would only flicker


def progress_bar(total: int | None, show: bool | None) -> tqdm:
    """Counts sentences. show=None shows it for long work on a terminal."""
    if show is None:
        show = sys.stderr.isatty() and (total is None or total >= SHORT)
    return tqdm(total=total, disable=not show, unit=" sentences", unit_scale=False, file=sys.stderr)
