"""Features of length 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Normalize(nn.Module):
    """x / max(||x||, 1e-12) for every row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, E] -> [B, E]."""
        return F.normalize(x, p=2.0, dim=1)
