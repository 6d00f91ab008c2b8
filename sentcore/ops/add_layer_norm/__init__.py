"""Residual addition and LayerNorm in one pass."""

from __future__ import annotations

import torch

from sentcore.ops.add_layer_norm import register  # noqa: F401  declares sentcore::add_layer_norm
from sentcore.ops.autocast import autocast_to
from sentcore.ops.checks import check_dropout, check_input, check_parameter, draw_seed, needs_grad


@autocast_to("float32")
def add_layer_norm(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    norm_bias: torch.Tensor | None,
    *,
    x_bias: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    seed: torch.Tensor | None = None,
    eps: float,
    return_total: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """LayerNorm(residual + dropout(x + x_bias)) * weight + norm_bias, row by row.

    Args:
        x: [T, H] float32, bfloat16, float16 or float64 (the last not on CUDA kernels).
        residual: [T, H], x's dtype, or None.
        weight: [H], x's dtype, or float32 beside a half-precision x.
        norm_bias: [H], weight's dtype, or None.
        x_bias: [H], weight's dtype, or None; the bias of the linear layer that made x.
        dropout_p: probability of zeroing an element of x + x_bias; the rest are scaled by 1 / (1 - dropout_p).
        seed: [2] int64 (seed, offset) on x's device; None draws it from the device's default generator.
        eps: added to the variance.
        return_total: also return residual + dropout(x + x_bias), for pre-norm layers.

    Returns:
        out [T, H] in x's dtype; with return_total, (out, total [T, H]).

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: Ba et al. 2016 (https://arxiv.org/abs/1607.06450), in BERT's residual form. The definition is reference.py.
    """
    check_input("x", x, ("T", "H"))
    hidden = x.shape[1]
    check_parameter("residual", residual, (x.shape[0], hidden), x, optional=True)
    check_parameter("weight", weight, (hidden,), x, float32_too=True)
    check_parameter("norm_bias", norm_bias, (hidden,), weight, optional=True)
    check_parameter("x_bias", x_bias, (hidden,), weight, optional=True)
    check_dropout(dropout_p, seed, x)
    seed = draw_seed(dropout_p, seed, x)
    save = return_total or needs_grad(x, residual, weight, norm_bias, x_bias)
    out, total, _, _ = torch.ops.sentcore.add_layer_norm.default(
        x, residual, weight, norm_bias, x_bias, dropout_p, seed, eps, save
    )
    return (out, total) if return_total else out
