"""Token features to sentence features over the segments of a packed batch."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.autocast import autocast_to
from sentcore.ops.checks import check_device, check_input, check_shape, needs_grad
from sentcore.ops.segment_pooling import register  # noqa: F401  declares sentcore::segment_pooling
from sentcore.ops.segment_pooling.reference import MODES, PRECISIONS


@autocast_to("given")
def segment_pooling(
    x: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *,
    mode: str = "mean",
    skip: int = 0,
    normalize: bool = False,
) -> torch.Tensor:
    """One row for each sentence, from the rows of its tokens, in float32 whatever x is.

    Args:
        x: [T, H] float32, bfloat16, float16 or float64.
        cu_seqlens: [B+1] int32, cumulative sentence lengths from 0 to T.
        mode: "mean", "cls" (first token), "max", "lasttoken", "mean_sqrt_len_tokens" (sum / sqrt(length)) or "weightedmean"
            (weights 1, 2, ... by position).
        skip: tokens at the start of every sentence that are left out (a prompt's); positions count them.
        normalize: scale every row to length 1.

    Returns:
        [B, H] float32 (float64 for float64); a sentence without tokens gets zeros.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: Reimers & Gurevych 2019 (https://arxiv.org/abs/1908.10084) and sentence-transformers' Pooling. The definition is
    reference.py; of equal maxima the first one gets the gradient.
    """
    _check_given(x, cu_seqlens, mode, skip)
    return torch.ops.sentcore.segment_pooling.default(x, cu_seqlens, mode, skip, normalize)[0]


@autocast_to("given")
def segment_pooling_quantized(
    x: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *,
    mode: str = "mean",
    skip: int = 0,
    normalize_before: bool = False,
    width: int | None = None,
    normalize: bool = False,
    precision: str = "float32",
    ranges: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentence features as they leave the device: pooled, scaled, cut to their first columns, scaled, quantized; no gradient.

    Args:
        x, cu_seqlens, mode, skip: as `segment_pooling` takes them.
        normalize_before: scale every row [H] to length 1.
        width: W, the columns kept of it, the first ones; None for all.
        normalize: scale what is kept to length 1.
        precision: "float32"; "int8" or "uint8", 255 even steps between `ranges`; "binary" or "ubinary", one bit a column
            (value > 0), eight to a byte with the first column the highest, "binary" shifted by 128 into int8.
        ranges: [2, W] float32 on x's device for "int8" and "uint8", least and largest value of each column; None for others.

    Returns:
        rows: [B, W] float32, int8 or uint8; [B, ceil(W / 8)] int8 or uint8 for "binary" and "ubinary". Values outside the
            ranges get the nearest level, NaN 0 and no bit.
        finite: [B] bool, False for a row that held NaN or infinity before it was quantized, whose bytes say nothing.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: sentence-transformers' quantize_embeddings, numpy.packbits. The definition is reference.py.
    """
    _check_given(x, cu_seqlens, mode, skip)
    if needs_grad(x):
        raise ArgumentValueError(
            "x requires a gradient; accepted: inference. Call it under torch.no_grad(), or use segment_pooling"
        )
    width = x.shape[1] if width is None else width
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= x.shape[1]:
        raise ArgumentValueError(
            f"width is {width!r}; accepted: 1 to {x.shape[1]}, the columns of x that are kept, or None for all"
        )
    if precision not in PRECISIONS:
        raise ArgumentValueError(f"precision is {precision!r}; accepted: {', '.join(PRECISIONS)}")
    if (ranges is None) == (precision in ("int8", "uint8")):
        found = "None" if ranges is None else "given"
        raise ArgumentValueError(
            f"ranges are {found} with precision {precision!r}; accepted: [2, W] with int8 and uint8, None with others. "
            "sentcore.outputs.calibration_ranges gives them"
        )
    if ranges is not None:
        if not isinstance(ranges, torch.Tensor) or ranges.dtype != torch.float32:
            found = getattr(ranges, "dtype", type(ranges).__name__)
            raise ArgumentTypeError(f"ranges are of {found}; accepted: a float32 tensor. Convert them with .float()")
        check_shape("ranges", ranges, (2, width))
        check_device("ranges", ranges, x)
    arguments = (mode, skip, normalize_before, width, normalize, precision, ranges)
    return torch.ops.sentcore.segment_pooling_quantized.default(x, cu_seqlens, *arguments)


def _check_given(x: torch.Tensor, cu_seqlens: torch.Tensor, mode: str, skip: int) -> None:
    check_input("x", x, ("T", "H"))
    if not isinstance(cu_seqlens, torch.Tensor) or cu_seqlens.dtype != torch.int32:
        found = getattr(cu_seqlens, "dtype", type(cu_seqlens).__name__)
        raise ArgumentTypeError(
            f"cu_seqlens is of {found}; accepted: an int32 tensor of cumulative lengths. Convert it, e.g. cu_seqlens.int()"
        )
    check_shape("cu_seqlens", cu_seqlens, ("B+1",))
    check_device("cu_seqlens", cu_seqlens, x)
    if cu_seqlens.shape[0] < 1:
        raise ArgumentValueError("cu_seqlens is empty; accepted: [B+1] lengths that begin with 0")
    if mode not in MODES:
        raise ArgumentValueError(f"mode is {mode!r}; accepted: {', '.join(MODES)}")
    if skip < 0:
        raise ArgumentValueError(f"skip is {skip}; accepted: at least 0, the tokens of a prompt")
