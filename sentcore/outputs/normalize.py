"""Features of length 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.ops import segment_pooling_quantized
from sentcore.ops.checks import needs_grad


class Normalize(nn.Module):
    """x / max(||x||, 1e-12) for every row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, E] -> [B, E]."""
        return unit_rows(x)


def unit_rows(x: torch.Tensor) -> torch.Tensor:
    """[B, E] -> [B, E], every row scaled to length 1.

    On a GPU, where no gradient is wanted, by the kernel that pools and quantizes, so that a row has the same bits by either way
    and in any batch: torch's order of addition for a row's length may change with the number of rows.
    """
    if x.device.type != "cuda" or x.dtype != torch.float32 or needs_grad(x) or 0 in x.shape:
        return F.normalize(x, p=2.0, dim=1)
    each = torch.arange(len(x) + 1, dtype=torch.int32, device=x.device)
    return segment_pooling_quantized(x, each, mode="cls", normalize=True)[0]
