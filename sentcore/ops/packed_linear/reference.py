"""packed_linear in plain PyTorch: the definition."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

COLUMNS = 32  # of a packed panel, as the kernel reads it


class PackedWeight(NamedTuple):
    """A linear layer's weight [R, K] in the order in which the kernel reads it.

    values: float32 [R/32 rounded up, K, 32], or bfloat16 [R/32 rounded up, K/2 rounded up, 32, 2]; 0 beyond R and K.
    out_features: R.
    """

    values: torch.Tensor
    out_features: int


def pack_weight(
    weight: torch.Tensor,  # [R, K] float32 | bfloat16
) -> PackedWeight:
    """Panels of 32 outputs; of bfloat16, two inputs side by side."""
    rows, depth = weight.shape
    pairs = weight.dtype == torch.bfloat16
    panels = F.pad(weight, (0, depth % 2 if pairs else 0, 0, -rows % COLUMNS)).unflatten(0, (-1, COLUMNS))
    if pairs:
        panels = panels.unflatten(2, (-1, 2))
    return PackedWeight(panels.transpose(1, 2).contiguous(), rows)


def unpack_weight(weight: PackedWeight, depth: int) -> torch.Tensor:
    """[R, K], what `pack_weight` was given."""
    return weight.values.transpose(1, 2).flatten(2).flatten(0, 1)[: weight.out_features, :depth]


def packed_linear(
    x: torch.Tensor,  # [T, K] float32 | bfloat16
    weight: PackedWeight,  # of [R, K], x's dtype
    bias: torch.Tensor | None = None,  # [R], x's dtype
    *,
    activation: str | None = None,
) -> torch.Tensor:  # [T, R]
    """act(x @ W.T + bias)."""
    out = F.linear(x, unpack_weight(weight, x.shape[1]), bias)
    if activation in (None, "none"):
        return out
    if activation == "relu":
        return F.relu(out)
    return F.gelu(out, approximate="tanh" if activation == "gelu_tanh" else "none")
