"""gated_activation in plain PyTorch: the definition. Gated units: Shazeer 2020, https://arxiv.org/abs/2002.05202."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def gated_activation(
    x: torch.Tensor,  # [T, 2F]
    *,
    activation: str,
) -> torch.Tensor:  # [T, F]
    """gelu (erf) or silu of the first half, times the second half."""
    first, second = x.chunk(2, dim=1)
    return (F.gelu(first) if activation == "geglu" else F.silu(first)) * second
