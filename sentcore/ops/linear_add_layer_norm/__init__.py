"""A linear layer of 384 outputs with residual and LayerNorm behind it, for inference on GPUs of compute capability 9.0."""

from __future__ import annotations

import torch

from sentcore._kernels import takes
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.checks import check_input, check_parameter, check_shape, needs_grad
from sentcore.ops.linear_add_layer_norm import register  # noqa: F401  declares sentcore::linear_add_layer_norm
from sentcore.ops.linear_add_layer_norm.reference import WIDTH

HALVES = (torch.bfloat16, torch.float16)


def linear_add_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None,
    *,
    eps: float,
) -> torch.Tensor:
    """LayerNorm(residual + x @ weight.T + bias) * norm_weight + norm_bias, row by row; no gradient.

    What the product gives is not rounded before it is added. `is_taken` says where it is the faster way; everywhere else
    `linear` and `add_layer_norm` do the same.

    Args:
        x: [T, K] bfloat16 or float16, K a multiple of 8; any dtype on a CPU, in plain PyTorch.
        weight: [384, K], x's dtype.
        bias: [384], x's dtype, or None.
        residual: [T, 384], x's dtype.
        norm_weight, norm_bias: [384], x's dtype; norm_bias or None.
        eps: added to the variance.

    Returns:
        [T, 384] in x's dtype.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: Devlin et al. 2018 (https://arxiv.org/abs/1810.04805). The definition is reference.py.
    """
    check_input("x", x, ("T", "K"))
    check_shape("weight", weight, (WIDTH, x.shape[1]))
    check_parameter("weight", weight, (WIDTH, x.shape[1]), x)
    check_parameter("bias", bias, (WIDTH,), x, optional=True)
    check_parameter("residual", residual, (x.shape[0], WIDTH), x)
    check_parameter("norm_weight", norm_weight, (WIDTH,), x)
    check_parameter("norm_bias", norm_bias, (WIDTH,), x, optional=True)
    if needs_grad(x, weight, bias, residual, norm_weight, norm_bias):
        raise ArgumentValueError(
            "an argument requires a gradient, which linear_add_layer_norm has not; accepted: calls under torch.no_grad(). "
            "Use linear and add_layer_norm for training"
        )
    if x.device.type == "cuda" and x.dtype not in HALVES:
        raise ArgumentTypeError(f"x has dtype {x.dtype}; accepted: bfloat16 or float16. Use linear and add_layer_norm")
    return torch.ops.sentcore.linear_add_layer_norm.default(x, weight, bias, residual, norm_weight, norm_bias, eps)


def is_taken(x: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether this op is to be called for x [T, K] and a weight [H, K], with bias and LayerNorm's parameters as `others`: the
    kernel is there, fits, and is chosen on x's GPU."""
    return (
        x.device.type == "cuda"
        and x.dtype in HALVES
        and weight.shape[0] == WIDTH
        and weight.shape[1] % 8 == 0
        and all(other is None or other.dtype == x.dtype for other in (weight, *others))
        and takes("linear_add_layer_norm", x, WIDTH, weight.shape[1])
    )
