"""A linear layer for inference on a CPU, with its weight in the order in which the kernel reads it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.checks import check_input, check_parameter, check_shape, needs_grad
from sentcore.ops.packed_linear import register  # noqa: F401  declares sentcore::packed_linear
from sentcore.ops.packed_linear.reference import COLUMNS, PackedWeight, pack_weight

__all__ = ["ACTIVATIONS", "COLUMNS", "PackedWeight", "pack_weight", "packed_linear"]

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh")


def packed_linear(
    x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None = None, *, activation: str | None = None
) -> torch.Tensor:
    """act(x @ W.T + bias); CPU, no gradient. `linear` is the layer that can be trained.

    A token's sums run over K in order, in float32, so that its result has the same bits in any batch and on any number of
    threads.

    Args:
        x: [T, K] float32 or bfloat16, on a CPU.
        weight: of [R, K], x's dtype, from `pack_weight`.
        bias: [R], x's dtype, or None.
        activation: None, "relu", "gelu" (erf) or "gelu_tanh".

    Returns:
        [T, R] in x's dtype.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: panels that a block of rows is multiplied with, as in Goto & van de Geijn 2008, "Anatomy of high-performance
    matrix multiplication". The definition is reference.py.
    """
    check_input("x", x, ("T", "K"))
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise ArgumentTypeError(f"x has dtype {x.dtype}; accepted: float32, bfloat16. Convert it, e.g. x.float()")
    if x.device.type != "cpu":
        raise ArgumentValueError(f"x is on {x.device}; accepted: the CPU. Use linear there")
    if needs_grad(x):
        raise ArgumentValueError("x requires a gradient; accepted: inference. Use linear, or torch.no_grad()")
    if not isinstance(weight, PackedWeight):
        raise ArgumentTypeError(f"weight is of type {type(weight).__name__}; accepted: what pack_weight gives")
    if weight.values.dtype != x.dtype:
        raise ArgumentTypeError(
            f"weight has dtype {weight.values.dtype}; accepted: {x.dtype}, x's. Convert one of the two"
        )
    if x.dtype == torch.bfloat16:
        check_shape("weight.values", weight.values, ("R/32", -(-x.shape[1] // 2), COLUMNS, 2))
        if x.shape[1] % 2:
            x = F.pad(x, (0, 1))
    else:
        check_shape("weight.values", weight.values, ("R/32", x.shape[1], COLUMNS))
    check_parameter("bias", bias, (weight.out_features,), x, optional=True)
    if activation not in ACTIVATIONS:
        accepted = ", ".join(repr(name) for name in ACTIVATIONS)
        raise ArgumentValueError(f"activation is {activation!r}; accepted: {accepted}. Apply another one outside")
    return torch.ops.sentcore.packed_linear.default(x, *weight, bias, activation or "none")
