"""linear_add_layer_norm in plain PyTorch: the definition the kernel is tested against.

The end of a layer's halves in BERT (Devlin et al. 2018): a linear layer, the residual, LayerNorm (Ba et al. 2016,
https://arxiv.org/abs/1607.06450).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

WIDTH = 384  # of H


def linear_add_layer_norm(
    x: torch.Tensor,  # [T, K]
    weight: torch.Tensor,  # [H, K]
    bias: torch.Tensor | None,  # [H]
    residual: torch.Tensor,  # [T, H]
    norm_weight: torch.Tensor,  # [H]
    norm_bias: torch.Tensor | None,  # [H]
    *,
    eps: float,
) -> torch.Tensor:
    """LayerNorm(residual + x @ weight.T + bias)."""
    total = residual + F.linear(x, weight, bias)
    return F.layer_norm(total, norm_weight.shape, norm_weight, norm_bias, eps)
