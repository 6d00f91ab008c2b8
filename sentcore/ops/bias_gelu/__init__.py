"""Bias and GELU in one pass."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentValueError
from sentcore.ops.autocast import autocast_to
from sentcore.ops.bias_gelu import register  # noqa: F401  declares sentcore::bias_gelu
from sentcore.ops.checks import check_input, check_parameter


@autocast_to("given")
def bias_gelu(x: torch.Tensor, bias: torch.Tensor | None, *, approximate: str = "none") -> torch.Tensor:
    """gelu(x + bias).

    Args:
        x: [T, F] float32, bfloat16, float16 or float64.
        bias: [F], x's dtype, or float32 beside a half-precision x, or None when x already holds it.
        approximate: "none" for the exact erf form, "tanh" for its approximation.

    Returns:
        [T, F] in x's dtype.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: Hendrycks & Gimpel 2016 (https://arxiv.org/abs/1606.08415). The definition is reference.py.
    """
    check_input("x", x, ("T", "F"))
    check_parameter("bias", bias, (x.shape[1],), x, optional=True, float32_too=True)
    if approximate not in ("none", "tanh"):
        raise ArgumentValueError(f"approximate is {approximate!r}; accepted: 'none' (erf) or 'tanh'")
    return torch.ops.sentcore.bias_gelu.default(x, bias, approximate)
