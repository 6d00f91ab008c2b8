"""A linear layer with the activation behind it, or before it, in one op."""

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
    _check_activation(activation, ACTIVATIONS)
    if activation in GATED and weight.shape[0] % 2:
        raise ArgumentValueError(
            f"weight has {weight.shape[0]} rows; accepted with activation={activation!r}: an even number, the rows that are "
            "activated and then those they are multiplied by"
        )
    save = activation is not None and needs_grad(x, weight, bias)
    return torch.ops.sentcore.linear.default(x, weight, bias, activation or "none", save)[0]


@autocast_to("lower")
def activation_linear(
    pre: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, activation: str
) -> torch.Tensor:
    """act(pre) @ weight.T + bias, with act(pre) computed again in the backward instead of kept.

    With `linear` before it, less memory than linear(x, ..., activation=...) and another linear: that keeps both pre and act(pre).

    Args:
        pre: [T, K] float32, bfloat16, float16 or float64; [T, 2K] for a gated activation.
        weight: [R, K], pre's dtype.
        bias: [R], pre's dtype, or None.
        activation: as linear's, but not None.

    Returns:
        [T, R] in pre's dtype.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: that cheap results are computed again is from Chen et al. 2016 (https://arxiv.org/abs/1604.06174). The definition is
    reference.py.
    """
    check_input("pre", pre, ("T", "K"))
    check_parameter("weight", weight, ("R", "K"), pre)
    _check_activation(activation, ACTIVATIONS[1:])
    wanted = weight.shape[1] * (2 if activation in GATED else 1)
    if pre.shape[1] != wanted:
        raise ArgumentValueError(
            f"pre has {pre.shape[1]} columns; accepted with activation={activation!r} and a weight of shape "
            f"{list(weight.shape)}: {wanted}"
        )
    check_parameter("bias", bias, (weight.shape[0],), pre, optional=True)
    return torch.ops.sentcore.activation_linear.default(pre, weight, bias, activation)


def _check_activation(activation: str | None, names: tuple[str | None, ...]) -> None:
    if activation not in names:
        accepted = ", ".join(repr(name) for name in names)
        raise ArgumentValueError(f"activation is {activation!r}; accepted: {accepted}. Apply another one outside")
