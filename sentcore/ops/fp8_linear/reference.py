"""fp8_linear in plain PyTorch: the definition.

e4m3: 8-bit floating-point numbers of Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433, torch.float8_e4m3fn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

LARGEST = 448.0  # of e4m3
LEAST_MAXIMUM = 2.0**-60  # of a row; a smaller one, and zero, is scaled as if this were its own
DEPTH = 16  # rows are padded with zeros to whole 16 bytes, as the kernels copy them


class Fp8Weight(NamedTuple):
    """A linear layer's weight [R, K] in 8 bits. P is K rounded up to a multiple of 16.

    values: [R, P] float8_e4m3fn, zero beyond K.
    scale: [R] float32: output r's weights are about values[r] * scale[r].
    """

    values: torch.Tensor
    scale: torch.Tensor


def quantize_weight_fp8(
    weight: torch.Tensor,  # [R, K]
) -> Fp8Weight:
    """Each output's weights rounded to e4m3 times the largest of them / 448."""
    return Fp8Weight(*fp8_rows(weight.float()))


def fp8_rows(
    x: torch.Tensor,  # [T, K] float32 | bfloat16 | float16
) -> tuple[torch.Tensor, torch.Tensor]:  # [T, P] float8_e4m3fn, [T] float32
    """Rows in 8 bits: x is about values * scale. To nearest, ties to even. A row with NaN or infinity: zeros, scale NaN."""
    wide = x.float()
    largest = wide.abs().amax(dim=1)
    finite = largest < torch.inf
    maximum = torch.where(finite, largest, 1.0).clamp(min=LEAST_MAXIMUM)
    levels = torch.full_like(maximum, LARGEST)  # a tensor: a number would be multiplied by its reciprocal, other bits
    # The cast gives NaN for what is too large; the product may exceed 448 by a rounding, no more.
    scaled = (wide * (levels / maximum)[:, None]).clamp(-LARGEST, LARGEST)
    padded = F.pad(torch.where(finite[:, None], scaled, 0.0), (0, -x.shape[1] % DEPTH))
    return padded.to(torch.float8_e4m3fn), torch.where(finite, maximum / levels, torch.nan)


def fp8_linear(
    x: torch.Tensor,  # [T, K] float32 | bfloat16 | float16
    weight: Fp8Weight,  # of [R, K]; [2F, K] for a gated activation
    bias: torch.Tensor | None = None,  # [R] float32
    *,
    activation: str | None = None,
) -> torch.Tensor:  # [T, F]
    """act(e4m3(x) @ e4m3(W).T * scales + bias): products of e4m3 are exact in float32, which they are added in."""
    values, scale = fp8_rows(x)
    out = values.float() @ weight.values.float().t() * scale[:, None] * weight.scale
    if bias is not None:
        out = out + bias
    return activate(out, activation).to(x.dtype)


def activate(
    pre: torch.Tensor,  # [T, F], gated [T, 2F]
    activation: str | None,
) -> torch.Tensor:  # [T, F]
    """The activation alone."""
    if activation in (None, "none"):
        return pre
    if activation == "relu":
        return F.relu(pre)
    if activation == "gelu":
        return F.gelu(pre)
    if activation == "gelu_tanh":
        return F.gelu(pre, approximate="tanh")
    gate, value = pre.chunk(2, dim=-1)
    return (F.gelu(gate) if activation == "geglu" else F.silu(gate)) * value
