"""Token features to sentence features over the segments of a packed batch."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.autocast import autocast_to
from sentcore.ops.checks import check_device, check_input, check_shape
from sentcore.ops.segment_pooling import register  # noqa: F401  declares sentcore::segment_pooling
from sentcore.ops.segment_pooling.reference import MODES


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
    return torch.ops.sentcore.segment_pooling.default(x, cu_seqlens, mode, skip, normalize)[0]
