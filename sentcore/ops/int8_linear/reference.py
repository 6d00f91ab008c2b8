"""int8_linear in plain PyTorch: the definition."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

LEVELS = 127  # -127..127: symmetric, so that zero is zero
COLUMNS, DEPTH = 32, 4  # of a packed panel, as the kernels read it


class Int8Weight(NamedTuple):
    """A linear layer's weight [R, K] in 8 bits.

    values: [R/32 rounded up, K/4 rounded up, 32, 4] uint8: the rounded weight plus 128, in the order the kernels read it;
        128, which is zero, beyond R and K.
    scale: [R] float32, what a step of each output's weights is worth.
    """

    values: torch.Tensor
    scale: torch.Tensor


def quantize_weight(
    weight: torch.Tensor,  # [R, K]
) -> Int8Weight:
    """Each output's weights rounded to -127..127 times the largest of them / 127."""
    rows, depth = weight.shape
    rounded, scale = quantize_rows(weight.float())
    padded = F.pad(rounded, (0, -depth % DEPTH, 0, -rows % COLUMNS))
    panels = padded.view(-1, COLUMNS, padded.shape[1] // DEPTH, DEPTH).transpose(1, 2)
    return Int8Weight((panels.to(torch.int16) + 128).to(torch.uint8).contiguous(), scale)


def quantize_rows(
    x: torch.Tensor,  # [T, K] float32
) -> tuple[torch.Tensor, torch.Tensor]:  # [T, K] int8, [T] float32
    """Rows rounded to 8 bits, ties to even, and their scales; a row that holds NaN or infinity gets NaN as its scale."""
    largest = x.abs().amax(dim=1)
    finite = largest < torch.inf
    levels = torch.full_like(largest, LEVELS)  # a tensor: a number would be multiplied by the reciprocal, other bits
    inverse = torch.where(finite & (largest > 0), levels / largest, 0.0)
    rounded = torch.where(finite[:, None], (x * inverse[:, None]).round(), 0.0).to(torch.int8)
    return rounded, torch.where(finite, largest / levels, torch.nan)


def int8_linear(
    x: torch.Tensor,  # [T, K] float32 | bfloat16
    weight: Int8Weight,  # of [R, K]
    bias: torch.Tensor | None = None,  # [R] float32
    *,
    activation: str | None = None,
) -> torch.Tensor:  # [T, R]
    """act(round(x) @ round(W).T * scales + bias): the sums are exact integers, all after them is float32."""
    rounded, scale = quantize_rows(x.float())
    product = torch._int_mm(rounded, rounded_weight(weight, x.shape[1]).t())
    out = product.float() * (scale[:, None] * weight.scale)
    if bias is not None:
        out = out + bias
    return activate(out, activation).to(x.dtype)


def rounded_weight(weight: Int8Weight, depth: int) -> torch.Tensor:
    """[R, K] int8, what `quantize_weight` rounded."""
    panels = weight.values.transpose(1, 2)
    flat = panels.reshape(panels.shape[0] * COLUMNS, -1)[: weight.scale.shape[0], :depth]
    return (flat.to(torch.int16) - 128).to(torch.int8)


def activate(x: torch.Tensor, activation: str | None) -> torch.Tensor:
    """None, relu, gelu (erf) or gelu_tanh of x."""
    if activation in (None, "none"):
        return x
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
