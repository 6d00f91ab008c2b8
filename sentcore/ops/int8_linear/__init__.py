"""A linear layer in 8 bits, for inference on a CPU."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.checks import check_input, check_shape, needs_grad
from sentcore.ops.int8_linear import register  # noqa: F401  declares sentcore::int8_linear
from sentcore.ops.int8_linear.reference import COLUMNS, DEPTH, Int8Weight, quantize_weight

__all__ = ["ACTIVATIONS", "Int8Weight", "int8_linear", "quantize_weight"]

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh")


def int8_linear(
    x: torch.Tensor, weight: Int8Weight, bias: torch.Tensor | None = None, *, activation: str | None = None
) -> torch.Tensor:
    """act(x @ W.T + bias) with x rounded to 8 bits per token and W per output, both symmetric; CPU, no gradient.

    An element of x more than 3 times as large as all others of its token is kept as it is: rounding by it would leave the
    others no steps (a few percent of tokens have one). The products are summed exactly, in integers, so that a token's result has the same bits in any batch. The compiled
    kernel's GELU is within 1.7e-4 of the exact one for bfloat16, less than a rounding step of what follows it.

    Args:
        x: [T, K] float32 or bfloat16, on a CPU.
        weight: of [R, K], from `quantize_weight`.
        bias: [R] float32, or None.
        activation: None, "relu", "gelu" (erf) or "gelu_tanh".

    Returns:
        [T, R] in x's dtype. A token that holds NaN or infinity gives NaN.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: symmetric rounding per row and per channel as in LLM.int8() (Dettmers et al. 2022,
    https://arxiv.org/abs/2208.07339), with one outlier apart. The definition is reference.py.
    """
    check_input("x", x, ("T", "K"))
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise ArgumentTypeError(f"x has dtype {x.dtype}; accepted: float32, bfloat16. Convert it, e.g. x.bfloat16()")
    if x.device.type != "cpu":
        raise ArgumentValueError(f"x is on {x.device}; accepted: the CPU. Use linear with bfloat16 weights there")
    if needs_grad(x):
        raise ArgumentValueError("x requires a gradient; accepted: inference. Call it under torch.no_grad()")
    if not isinstance(weight, Int8Weight):
        raise ArgumentTypeError(f"weight is of type {type(weight).__name__}; accepted: what quantize_weight gives")
    check_shape("weight.values", weight.values, ("R/32", -(-x.shape[1] // DEPTH), COLUMNS, DEPTH))
    if bias is not None:
        check_shape("bias", bias, (weight.scale.shape[0],))
        if bias.dtype != torch.float32:
            raise ArgumentTypeError(f"bias has dtype {bias.dtype}; accepted: float32. Convert it with .float()")
    if activation not in ACTIVATIONS:
        accepted = ", ".join(repr(name) for name in ACTIVATIONS)
        raise ArgumentValueError(f"activation is {activation!r}; accepted: {accepted}. Apply another one outside")
    return torch.ops.sentcore.int8_linear.default(x, *weight, bias, activation or "none")
