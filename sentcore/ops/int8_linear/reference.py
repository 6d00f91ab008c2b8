"""int8_linear in plain PyTorch: the definition."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

LEVELS = 127  # -127..127: symmetric, so that zero is zero
APART = 3.0  # an element this many times as large as all others of its row is kept apart
COLUMNS, DEPTH = 32, 4  # of a packed panel, as the kernels read it


class Int8Weight(NamedTuple):
    """A linear layer's weight [R, K] in 8 bits.

    values: [R/32 rounded up, K/4 rounded up, 32, 4] uint8: the rounded weight plus 128, in the order the kernels read it;
        128, which is zero, beyond R and K.
    scale: [R] float32, what a step of each output's weights is worth.
    """

    values: torch.Tensor
    scale: torch.Tensor


class Int8Rows(NamedTuple):
    """Rows x [T, K] in 8 bits: x is about rounded * scale[:, None], plus `apart` in column `place` of each row.

    rounded: [T, K] int8.
    scale: [T] float32; NaN where a row holds NaN or infinity.
    apart: [T] float32, the element of a row that is kept as it is; 0 in most rows.
    place: [T] int64, its column; `rounded` is 0 there.
    """

    rounded: torch.Tensor
    scale: torch.Tensor
    apart: torch.Tensor
    place: torch.Tensor


def quantize_weight(
    weight: torch.Tensor,  # [R, K]
) -> Int8Weight:
    """Each output's weights rounded to -127..127 times the largest of them / 127."""
    weight = weight.float()
    rows, depth = weight.shape
    largest = weight.abs().amax(dim=1)
    rounded, scale = _round(weight, largest)
    padded = F.pad(rounded, (0, -depth % DEPTH, 0, -rows % COLUMNS))
    panels = padded.view(-1, COLUMNS, padded.shape[1] // DEPTH, DEPTH).transpose(1, 2)
    return Int8Weight((panels.to(torch.int16) + 128).to(torch.uint8).contiguous(), scale)


def quantize_rows(
    x: torch.Tensor,  # [T, K] float32
) -> Int8Rows:
    """Rows in 8 bits. One element that outgrows all others would leave them no steps, so it is kept apart."""
    sizes = x.abs()
    largest, place = sizes.max(dim=1)
    second = sizes.scatter(1, place[:, None], 0.0).amax(dim=1)
    alone = (largest > APART * second) & (largest < torch.inf)
    rest = torch.where(alone, second, largest)
    chosen = x.gather(1, place[:, None])
    rounded, scale = _round(x.scatter(1, place[:, None], torch.where(alone[:, None], 0.0, chosen)), rest)
    return Int8Rows(rounded, scale, torch.where(alone, chosen[:, 0], 0.0), place)


def _round(x: torch.Tensor, largest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[T, K] to int8, ties to even, with its largest elements [T] becoming 127, and the scale [T]."""
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
    rows = quantize_rows(x.float())
    integers = rounded_weight(weight, x.shape[1])
    product = torch._int_mm(rows.rounded, integers.t()).float() * rows.scale[:, None]
    if rows.apart.any():
        product = product + rows.apart[:, None] * integers.t()[rows.place].float()
    out = product * weight.scale
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
