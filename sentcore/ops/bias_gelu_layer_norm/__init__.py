"""Bias, GELU and LayerNorm in one pass: the masked-LM head after its dense layer."""

from __future__ import annotations

import torch

from sentcore.ops.autocast import autocast_to
from sentcore.ops.bias_gelu_layer_norm import register  # noqa: F401  declares the op
from sentcore.ops.checks import check_input, check_parameter


@autocast_to("float32")
def bias_gelu_layer_norm(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    weight: torch.Tensor,
    norm_bias: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    """LayerNorm(gelu(x + bias)) * weight + norm_bias, with the exact (erf) GELU.

    Args:
        x: [T, H] float32, bfloat16, float16 or float64.
        bias: [H], weight's dtype, or None.
        weight: [H], x's dtype, or float32 beside a half-precision x.
        norm_bias: [H], weight's dtype, or None.
        eps: added to the variance.

    Returns:
        [T, H] in x's dtype.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: the masked-LM head of BERT (Devlin et al. 2018). The definition is reference.py.
    """
    check_input("x", x, ("T", "H"))
    hidden = x.shape[1]
    check_parameter("weight", weight, (hidden,), x, float32_too=True)
    check_parameter("bias", bias, (hidden,), weight, optional=True)
    check_parameter("norm_bias", norm_bias, (hidden,), weight, optional=True)
    return torch.ops.sentcore.bias_gelu_layer_norm.default(x, bias, weight, norm_bias, eps)
