"""Sentence features in fewer bits, with sentence-transformers' semantics: over all rows of one call."""

from __future__ import annotations

import numpy as np

from sentcore.errors import ArgumentValueError

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def check_precision(precision: str) -> str:
    """`precision` itself, or an ArgumentValueError."""
    if precision not in PRECISIONS:
        raise ArgumentValueError(f"precision is {precision!r}; accepted: {', '.join(PRECISIONS)}")
    return precision


def quantize(features: np.ndarray, precision: str, ranges: np.ndarray | None = None) -> np.ndarray:
    """Rows of float32 features in `precision`.

    Args:
        features: [B, E] float32.
        precision: "float32"; "int8" or "uint8": 255 even steps between each column's minimum and maximum; "binary" or
            "ubinary": one bit a column (feature > 0), eight to a byte, "binary" shifted by 128 into int8.
        ranges: [2, E] float32, minimum and maximum of each column for int8 and uint8; None takes those of `features`.

    Returns:
        [B, E] float32, int8 or uint8; [B, ceil(E / 8)] int8 or uint8 for the binary ones.
    """
    check_precision(precision)
    if precision == "float32":
        return features
    if precision in ("binary", "ubinary"):
        bits = np.packbits(features > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if ranges is None:
        if not len(features):
            return features.astype(precision)
        ranges = np.stack((features.min(axis=0), features.max(axis=0)))
    ranges = ranges.astype(np.float32, copy=False)
    steps = (ranges[1] - ranges[0]) / 255
    steps = np.where(steps == 0, 1, steps)  # a constant column has one level
    levels = np.clip(np.floor((features - ranges[0]) / steps), 0, 255)
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)
