"""bias_gelu in plain PyTorch: the definition. GELU: Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def bias_gelu(
    x: torch.Tensor,  # [T, F]
    bias: torch.Tensor | None,  # [F]
    *,
    approximate: str = "none",
) -> torch.Tensor:
    """gelu(x + bias), differentiable by torch's own autograd."""
    total = x if bias is None else (x + bias).to(x.dtype)
    return F.gelu(total, approximate=approximate)


def bias_gelu_backward(
    grad_out: torch.Tensor,  # [T, F]
    x: torch.Tensor,  # [T, F]
    bias: torch.Tensor | None,  # [F]
    approximate: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The explicit backward: grad_x [T,F] and its sum over T, grad_bias [F]."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    total = x.to(wide) if bias is None else x.to(wide) + bias.to(wide)
    if approximate == "tanh":
        slope = math.sqrt(2.0 / math.pi)
        inner = torch.tanh(slope * (total + 0.044715 * total**3))
        inner_slope = slope * (1.0 + 3.0 * 0.044715 * total**2)
        derivative = 0.5 * (1.0 + inner) + 0.5 * total * (1.0 - inner**2) * inner_slope
    else:
        density = torch.exp(-0.5 * total**2) / math.sqrt(2.0 * math.pi)
        derivative = 0.5 * (1.0 + torch.erf(total / math.sqrt(2.0))) + total * density
    grad_x = grad_out.to(wide) * derivative
    bias_dtype = x.dtype if bias is None else bias.dtype
    return grad_x.to(x.dtype), grad_x.sum(dim=0).to(bias_dtype)
