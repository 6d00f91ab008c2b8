"""Features in fewer bits, over a whole file in bounded memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sentcore.outputs import quantize

Blocks = Iterable[tuple[list[str], np.ndarray]]


def in_precision(blocks: Blocks, precision: str, folder: Path | None) -> Iterator[tuple[list[str], np.ndarray]]:
    """The blocks (texts, rows [b, E] float32) with their rows in `precision`.

    int8 and uint8 scale every column by its range over all rows, so those are kept in temporary files in `folder`
    (None: the system's) until the last one is known.
    """
    if precision in ("int8", "uint8"):
        yield from _scaled(blocks, precision, folder)
        return
    for texts, rows in blocks:
        yield texts, quantize(rows, precision)


def _scaled(blocks: Blocks, precision: str, folder: Path | None) -> Iterator[tuple[list[str], np.ndarray]]:
    ranges: np.ndarray | None = None  # [2, E]: the smallest and the largest of every column
    sizes: list[int] = []
    with (
        tempfile.TemporaryFile(dir=folder) as kept_rows,
        tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) as kept_texts,
    ):
        for texts, rows in blocks:
            found = np.stack((rows.min(axis=0), rows.max(axis=0)))
            if ranges is None:
                ranges = found
            else:
                ranges[0] = np.minimum(ranges[0], found[0])
                ranges[1] = np.maximum(ranges[1], found[1])
            sizes.append(len(rows))
            kept_rows.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
            kept_texts.write(json.dumps(texts) + "\n")
        kept_rows.seek(0)
        kept_texts.seek(0)
        for size, line in zip(sizes, kept_texts, strict=True):
            columns = ranges.shape[1]
            raw = kept_rows.read(size * columns * 4)
            rows = np.frombuffer(raw, dtype=np.float32).reshape(size, columns)
            yield json.loads(line), quantize(rows, precision, ranges)
