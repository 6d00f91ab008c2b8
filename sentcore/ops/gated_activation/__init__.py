"""The gate of a feed-forward network, behind a product that is made already; for inference."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentValueError
from sentcore.ops.checks import check_input, needs_grad
from sentcore.ops.gated_activation import register  # noqa: F401  declares sentcore::gated_activation

__all__ = ["ACTIVATIONS", "gated_activation"]

ACTIVATIONS = ("geglu", "swiglu")


def gated_activation(x: torch.Tensor, *, activation: str) -> torch.Tensor:
    """gelu(a) * b or silu(a) * b with [a, b] = x; no gradient.

    On a CPU the compiled kernel computes in float32 (float64 for float64) and rounds once; a row has the same bits in any
    batch and on any number of threads. Elsewhere it is plain PyTorch: on a GPU the gate rides on the product before it, in
    `linear`.

    Args:
        x: [T, 2F] float32, bfloat16, float16 or float64.
        activation: "geglu" for gelu(a) * b, GELU by erf, or "swiglu" for silu(a) * b.

    Returns:
        [T, F] in x's dtype.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: Shazeer 2020 (https://arxiv.org/abs/2002.05202). The definition is reference.py.
    """
    check_input("x", x, ("T", "2F"))
    if x.shape[1] % 2:
        raise ArgumentValueError(
            f"x has shape {list(x.shape)}; accepted: [T, 2F], an even number of columns. Pass both halves side by side"
        )
    if needs_grad(x):
        raise ArgumentValueError(
            "x requires a gradient; accepted: inference. Call it under torch.no_grad(), or use linear(activation=...)"
        )
    if activation not in ACTIVATIONS:
        raise ArgumentValueError(f"activation is {activation!r}; accepted: 'geglu' (erf) or 'swiglu'. Choose one")
    return torch.ops.sentcore.gated_activation.default(x, activation)
