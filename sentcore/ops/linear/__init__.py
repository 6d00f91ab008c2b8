"""A linear layer with its activation in one pass."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentValueError
from sentcore.ops.autocast import autocast_to
from sentcore.ops.checks import check_input, check_parameter, needs_grad
from sentcore.ops.linear import register  # noqa: F401  declares sentcore::linear

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "geglu", "swiglu")
GATED = ("geglu", "swiglu")


@autocast_to("lower")
def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, activation: str | None = None
) -> torch.Tensor:
    """act(x @ weight.T + bias).

    Args:
        x: [T, K] float32, bfloat16, float16 or float64.
        weight: [F, K]; [2F, K] for a gated activation. x's dtype.
        bias: [F] ([2F]), x's dtype, or None.
        activation: None, "relu", "gelu" (erf), "gelu_tanh"; gated: "geglu" for gelu(a) · b and "swiglu" for silu(a) · b,
            where a is the product's first F columns and b its last F.

    Returns:
        [T, F] in x's dtype.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: GELU: Hendrycks & Gimpel 2016 (https://arxiv.org/abs/1606.08415); gated units: Shazeer 2020
    (https://arxiv.org/abs/2002.05202). The definition is reference.py.
    """
    check_input("x", x, ("T", "K"))
    check_parameter("weight", weight, ("R", x.shape[1]), x)
    check_parameter("bias", bias, (weight.shape[0],), x, optional=True)
    if activation not in ACTIVATIONS:
        accepted = ", ".join(repr(name) for name in ACTIVATIONS)
        raise ArgumentValueError(f"activation is {activation!r}; accepted: {accepted}. Apply another one outside")
    if activation in GATED and weight.shape[0] % 2:
        raise ArgumentValueError(
            f"weight has {weight.shape[0]} rows; accepted with activation={activation!r}: an even number, the rows that are "
            "activated and then those they are multiplied by"
        )
    save = activation is not None and needs_grad(x, weight, bias)
    return torch.ops.sentcore.linear.default(x, weight, bias, activation or "none", save)[0]
