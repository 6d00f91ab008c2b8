"""Query, key and value projections of every token in one product."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.autocast import autocast_to
from sentcore.ops.checks import check_input, check_parameter
from sentcore.ops.qkv_projection import register  # noqa: F401  declares sentcore::qkv_projection


@autocast_to("lower")
def qkv_projection(
    x: torch.Tensor,
    weight: torch.Tensor | Sequence[torch.Tensor],
    bias: torch.Tensor | Sequence[torch.Tensor] | None,
    *,
    num_heads: int,
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """x @ weight.T + bias, split into queries, keys and values by head; queries and keys then turned by `rotary`.

    Args:
        x: [T, H] float32, bfloat16, float16 or float64.
        weight: [3·N·D, H] (queries, keys, values), or three tensors of [N·D, H] that are read in place; x's dtype.
        bias: [3·N·D], three tensors of [N·D], or None; in the form of weight, x's dtype.
        num_heads: N.
        rotary: (cos, sin), each [T, D/2] float32 or x's dtype, the angles of each token's position; None for none.

    Returns:
        [T, 3, N, D] in x's dtype.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762); rotary: Su et al. 2021
    (https://arxiv.org/abs/2104.09864), half-split layout. The definition is reference.py.
    """
    check_input("x", x, ("T", "H"))
    weights = _three("weight", weight)
    rows = weights[0].shape[0]
    parts = 3 if weights[1] is None else 1
    if num_heads < 1 or rows % (parts * num_heads):
        raise ArgumentValueError(
            f"num_heads is {num_heads}; accepted: a positive number that divides the {rows} rows of weight"
            f"{' into three equal parts' if parts == 3 else ''} without remainder"
        )
    for tensor in weights:
        check_parameter("weight", tensor, (rows, x.shape[1]), x, optional=True)
    biases = (None, None, None) if bias is None else _three("bias", bias)
    if bias is not None and (biases[1] is None) != (weights[1] is None):
        raise ArgumentValueError(
            "weight and bias come in different forms; accepted: one tensor each, or three tensors each"
        )
    for tensor in biases:
        check_parameter("bias", tensor, (rows,), x, optional=True)
    cos, sin = (None, None) if rotary is None else rotary
    if rotary is not None:
        half = rows // (parts * num_heads * 2)
        for name, tensor in (("rotary cos", cos), ("rotary sin", sin)):
            check_parameter(name, tensor, (x.shape[0], half), x, float32_too=True)
    return torch.ops.sentcore.qkv_projection.default(x, *weights, *biases, num_heads, cos, sin)


def _three(name: str, value: object) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    if isinstance(value, torch.Tensor):
        return value, None, None
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(map(torch.is_tensor, value)):
        return tuple(value)
    raise ArgumentTypeError(
        f"{name} is of type {type(value).__name__}; accepted: one tensor for queries, keys and values together, or a "
        "sequence of three tensors"
    )
