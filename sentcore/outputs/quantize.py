"""Sentence features in fewer bits, with sentence-transformers' semantics: over all rows of one call."""

from __future__ import annotations

import numpy as np
import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def check_precision(precision: str) -> str:
    """`precision` itself, or an ArgumentValueError."""
    if precision not in PRECISIONS:
        raise ArgumentValueError(f"precision is {precision!r}; accepted: {', '.join(PRECISIONS)}")
    return precision


def calibration_ranges(features: np.ndarray | torch.Tensor) -> np.ndarray:
    """[2, E] float32, the minimum and the maximum of each column, for `quantize` and `encode` of other rows.

    Args:
        features: [B, E] float features of texts like those to come; a hundred at least, better thousands.

    Raises:
        ArgumentTypeError, ArgumentValueError: no float rows, none at all, or NaN or infinity among them.
    """
    rows = _as_numpy(features)
    if rows.dtype.kind != "f":
        raise ArgumentTypeError(f"features are of {rows.dtype}; accepted: float features, not yet quantized")
    if rows.ndim != 2 or not len(rows):
        raise ArgumentValueError(f"features have shape {list(rows.shape)}; accepted: [B, E] with at least one row")
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ArgumentValueError(f"features[{row}] holds NaN or infinity; accepted: finite features. Leave it out")
    return np.stack((rows.min(axis=0), rows.max(axis=0))).astype(np.float32)


def check_ranges(ranges: np.ndarray | torch.Tensor | None, precision: str, width: int) -> np.ndarray | None:
    """ranges as [2, E] float32, or an error that names what is wrong with them; None for None."""
    if ranges is None:
        return None
    if precision not in ("int8", "uint8"):
        raise ArgumentValueError(f"ranges are given with precision {precision!r}; accepted: with 'int8' or 'uint8'")
    rows = _as_numpy(ranges)
    if rows.dtype.kind != "f":
        raise ArgumentTypeError(f"ranges are of {rows.dtype}; accepted: float32, as calibration_ranges gives them")
    if rows.shape != (2, width):
        raise ArgumentValueError(
            f"ranges have shape {list(rows.shape)}; accepted: [2, {width}], minimum and maximum of each column that is left "
            "after truncate_dim"
        )
    if not np.isfinite(rows).all() or (rows[0] > rows[1]).any():
        column = int(np.flatnonzero(~((rows[0] <= rows[1]) & np.isfinite(rows).all(axis=0)))[0])
        raise ArgumentValueError(
            f"ranges of column {column} are {rows[0, column]} to {rows[1, column]}; accepted: finite numbers, the minimum "
            "first"
        )
    return rows.astype(np.float32)


def _as_numpy(value: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy()
    return np.asarray(value)


def quantize(features: np.ndarray, precision: str, ranges: np.ndarray | None = None) -> np.ndarray:
    """Rows of float32 features in `precision`.

    Args:
        features: [B, E] float32.
        precision: "float32"; "int8" or "uint8": 255 even steps between each column's minimum and maximum; "binary" or
            "ubinary": one bit a column (feature > 0), eight to a byte, "binary" shifted by 128 into int8.
        ranges: [2, E] float32, minimum and maximum of each column for int8 and uint8; None takes those of `features`.

    Returns:
        [B, E] float32, int8 or uint8; [B, ceil(E / 8)] int8 or uint8 for the binary ones. NaN becomes 0, and no bit.
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
    if precision == "uint8":
        return np.nan_to_num(levels, nan=0.0).astype(np.uint8)
    return np.nan_to_num(levels - 128, nan=0.0).astype(np.int8)
