"""A linear layer in 8-bit floating point, for inference on GPUs that multiply it."""

from __future__ import annotations

import torch

from sentcore._extension import why_no_fp8
from sentcore.errors import ArgumentTypeError, ArgumentValueError, BackendError
from sentcore.ops.checks import check_device, check_input, check_shape, needs_grad
from sentcore.ops.fp8_linear import register  # noqa: F401  declares sentcore::fp8_linear
from sentcore.ops.fp8_linear.reference import DEPTH, Fp8Weight, quantize_weight_fp8

__all__ = ["ACTIVATIONS", "Fp8Weight", "fp8_linear", "fp8_rows", "quantize_weight_fp8"]

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "geglu", "swiglu")
GATED = ("geglu", "swiglu")


def fp8_linear(
    x: torch.Tensor, weight: Fp8Weight, bias: torch.Tensor | None = None, *, activation: str | None = None
) -> torch.Tensor:
    """act(x @ W.T + bias) with x rounded to e4m3 per token and W per output, both scaled by their largest; no gradient.

    A token's maximum and rounding are its own and its products are added in an order that the width alone decides, so its
    result has the same bits in any batch.

    Args:
        x: [T, K] float32, bfloat16 or float16: on a GPU of compute capability 8.9 or later, or on a CPU, in plain PyTorch.
        weight: of [R, K], from `quantize_weight_fp8`, on x's device; of [2F, K] for a gated activation.
        bias: [R] float32, or None.
        activation: None, "relu", "gelu" (erf), "gelu_tanh"; gated: "geglu" for gelu(a) · b and "swiglu" for silu(a) · b,
            where a is the product's first F columns and b its last F.

    Returns:
        [T, R], gated [T, F], in x's dtype. A token that holds NaN or infinity gives NaN.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.
        BackendError: a GPU that has no such products, or no kernels for it.

    Source: e4m3 and scaling by the maximum: Micikevicius et al. 2022 (https://arxiv.org/abs/2209.05433). The definition is
    reference.py.
    """
    _check_rows(x)
    if not isinstance(weight, Fp8Weight):
        raise ArgumentTypeError(
            f"weight is of type {type(weight).__name__}; accepted: what quantize_weight_fp8 gives for a [R, K] weight"
        )
    check_shape("weight.values", weight.values, (weight.scale.shape[0], -(-x.shape[1] // DEPTH) * DEPTH))
    check_device("weight.values", weight.values, x)
    check_device("weight.scale", weight.scale, x)
    for name, value, dtype in (
        ("weight.values", weight.values, torch.float8_e4m3fn),
        ("weight.scale", weight.scale, torch.float32),
    ):
        if value.dtype != dtype:
            raise ArgumentTypeError(
                f"{name} has dtype {value.dtype}; accepted: {dtype}. Pass what quantize_weight_fp8 gave, unconverted"
            )
    if bias is not None:
        check_shape("bias", bias, (weight.scale.shape[0],))
        check_device("bias", bias, x)
        if bias.dtype != torch.float32:
            raise ArgumentTypeError(f"bias has dtype {bias.dtype}; accepted: float32. Convert it with .float()")
    if activation not in ACTIVATIONS:
        accepted = ", ".join(repr(name) for name in ACTIVATIONS)
        raise ArgumentValueError(f"activation is {activation!r}; accepted: {accepted}. Apply another one outside")
    if activation in GATED and weight.scale.shape[0] % 2:
        raise ArgumentValueError(
            f"weight has {weight.scale.shape[0]} rows; accepted with activation={activation!r}: an even number, the rows that "
            "are activated and then those they are multiplied by"
        )
    return torch.ops.sentcore.fp8_linear.default(x, *weight, bias, activation or "none")


def fp8_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in e4m3 with a scale each, as `fp8_linear` rounds its input.

    Args:
        x: [T, K], as there.

    Returns:
        values [T, K rounded up to 16] float8_e4m3fn, zero beyond K, and scale [T] float32: x is about values * scale.

    Raises:
        ArgumentTypeError, ArgumentValueError, BackendError: as there.
    """
    _check_rows(x)
    return torch.ops.sentcore.fp8_rows.default(x)


def _check_rows(x: torch.Tensor) -> None:
    check_input("x", x, ("T", "K"))
    if x.dtype == torch.float64:
        raise ArgumentTypeError(
            f"x has dtype {x.dtype}; accepted: float32, bfloat16, float16. Convert it, e.g. x.float()"
        )
    if x.shape[1] < 1:
        raise ArgumentValueError(f"x has shape {list(x.shape)}; accepted: [T, K] with K of at least 1")
    if needs_grad(x):
        raise ArgumentValueError("x requires a gradient; accepted: inference. Call it under torch.no_grad()")
    if x.device.type == "cuda" and (why := why_no_fp8(x.device)) is not None:
        raise BackendError(f"x is on {x.device}, but {why}; use linear with bfloat16 weights there (dtype='bfloat16')")
