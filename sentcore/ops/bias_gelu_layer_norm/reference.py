"""bias_gelu_layer_norm in plain PyTorch: the definition. It is the masked-LM head of BERT (Devlin et al. 2018)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def bias_gelu_layer_norm(
    x: torch.Tensor,  # [T, H]
    bias: torch.Tensor | None,  # [H]
    weight: torch.Tensor,  # [H]
    norm_bias: torch.Tensor | None,  # [H]
    eps: float,
) -> torch.Tensor:
    """LayerNorm(gelu(x + bias)), differentiable by torch's own autograd."""
    activated = F.gelu(x if bias is None else (x + bias).to(x.dtype))
    if weight.dtype == x.dtype:
        return F.layer_norm(activated, weight.shape, weight, norm_bias, eps)
    wide_bias = None if norm_bias is None else norm_bias.float()
    return F.layer_norm(activated.float(), weight.shape, weight, wide_bias, eps).to(x.dtype)


def bias_gelu_layer_norm_backward(
    grad_out: torch.Tensor,  # [T, H]
    x: torch.Tensor,  # [T, H]
    bias: torch.Tensor | None,  # [H]
    weight: torch.Tensor,  # [H]
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The explicit backward, from the op's inputs alone.

    Returns:
        grad_x [T,H], grad_bias [H], grad_weight [H], grad_norm_bias [H].
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    total = x.to(wide) if bias is None else x.to(wide) + bias.to(wide)
    cumulative = 0.5 * (1.0 + torch.erf(total / math.sqrt(2.0)))
    density = torch.exp(-0.5 * total**2) / math.sqrt(2.0 * math.pi)
    activated = total * cumulative
    centered = activated - activated.mean(dim=1, keepdim=True)
    rstd = torch.rsqrt(centered.square().mean(dim=1, keepdim=True) + eps)
    normalized = centered * rstd
    grad = grad_out.to(wide)
    scaled = grad * weight.to(wide)
    grad_activated = rstd * (
        scaled - scaled.mean(dim=1, keepdim=True) - normalized * (scaled * normalized).mean(dim=1, keepdim=True)
    )
    grad_x = grad_activated * (cumulative + total * density)
    return (
        grad_x.to(x.dtype),
        grad_x.sum(dim=0).to(weight.dtype),
        (grad * normalized).sum(dim=0).to(weight.dtype),
        grad.sum(dim=0).to(weight.dtype),
    )
