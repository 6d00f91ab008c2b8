"""linear in plain PyTorch: the definition.

GELU: Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415. Gated units: Shazeer 2020, https://arxiv.org/abs/2002.05202.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def linear(
    x: torch.Tensor,  # [T, K]
    weight: torch.Tensor,  # [F, K], gated [2F, K]
    bias: torch.Tensor | None = None,  # [F], gated [2F]
    *,
    activation: str | None = None,
) -> torch.Tensor:  # [T, F]
    """act(x @ weight.T + bias), differentiable by torch's own autograd."""
    return activate(F.linear(x, weight, bias), activation)


def activation_linear(
    pre: torch.Tensor,  # [T, K], gated [T, 2K]
    weight: torch.Tensor,  # [R, K]
    bias: torch.Tensor | None = None,  # [R]
    *,
    activation: str,
) -> torch.Tensor:  # [T, R]
    """act(pre) @ weight.T + bias, differentiable by torch's own autograd."""
    return F.linear(activate(pre, activation), weight, bias)


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


def linear_backward(
    grad_out: torch.Tensor,  # [T, F]
    x: torch.Tensor,  # [T, K]
    weight: torch.Tensor,  # [R, K]
    pre: torch.Tensor,  # [T, R], the product with its bias; unused without an activation
    activation: str | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The explicit backward: grad_x [T,K], grad_weight [R,K], grad_bias [R]."""
    grad_pre = grad_out if activation in (None, "none") else activate_backward(grad_out, pre, activation)
    return grad_pre @ weight, grad_pre.t() @ x, grad_pre.sum(dim=0)


def activation_linear_backward(
    grad_out: torch.Tensor,  # [T, R]
    pre: torch.Tensor,  # [T, K], gated [T, 2K]
    weight: torch.Tensor,  # [R, K]
    activation: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The explicit backward: grad_pre as pre, grad_weight [R,K], grad_bias [R]."""
    grad_weight = grad_out.t() @ activate(pre, activation)
    return activate_backward(grad_out @ weight, pre, activation), grad_weight, grad_out.sum(dim=0)


def activate_backward(
    grad_out: torch.Tensor,  # [T, F]
    pre: torch.Tensor,  # [T, R]
    activation: str,
) -> torch.Tensor:  # [T, R]
    """grad_out times the activation's derivative at pre, in pre's dtype."""
    wide = torch.float64 if pre.dtype == torch.float64 else torch.float32
    grad, total = grad_out.to(wide), pre.to(wide)
    if activation in ("geglu", "swiglu"):
        gate, value = total.chunk(2, dim=-1)
        function, slope = (
            (F.gelu(gate), _gelu_slope(gate)) if activation == "geglu" else (F.silu(gate), _silu_slope(gate))
        )
        return torch.cat((grad * value * slope, grad * function), dim=-1).to(pre.dtype)
    slope = {"relu": lambda t: (t > 0).to(wide), "gelu": _gelu_slope, "gelu_tanh": _gelu_tanh_slope}[activation](total)
    return (grad * slope).to(pre.dtype)


def _gelu_slope(x: torch.Tensor) -> torch.Tensor:
    density = torch.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)
    return 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))) + x * density


def _gelu_tanh_slope(x: torch.Tensor) -> torch.Tensor:
    slope = math.sqrt(2.0 / math.pi)
    inner = torch.tanh(slope * (x + 0.044715 * x**3))
    return 0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner**2) * slope * (1.0 + 3.0 * 0.044715 * x**2)


def _silu_slope(x: torch.Tensor) -> torch.Tensor:
    sigmoid = torch.sigmoid(x)
    return sigmoid * (1.0 + x * (1.0 - sigmoid))
