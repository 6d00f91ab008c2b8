"""qkv_projection in plain PyTorch: the definition.

Attention's input projections: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762. Rotary embedding: Su et al. 2021,
https://arxiv.org/abs/2104.09864, in the half-split (GPT-NeoX) layout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def qkv_projection(
    x: torch.Tensor,  # [T, H]
    weight: torch.Tensor | Sequence[torch.Tensor],  # [3·N·D, H], or three [N·D, H]
    bias: torch.Tensor | Sequence[torch.Tensor] | None,  # [3·N·D], or three [N·D]
    *,
    num_heads: int,
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None,  # cos, sin: [T, D/2]
) -> torch.Tensor:  # [T, 3, N, D]
    """Queries, keys and values of every token, differentiable by torch's own autograd."""
    if not isinstance(weight, torch.Tensor):
        weight = torch.cat(list(weight))
    if bias is not None and not isinstance(bias, torch.Tensor):
        bias = torch.cat(list(bias))
    qkv = F.linear(x, weight, bias)
    qkv = qkv.view(x.shape[0], 3, num_heads, weight.shape[0] // (3 * num_heads))
    return qkv if rotary is None else _rotate(qkv, *rotary)


def qkv_projection_backward(
    grad_qkv: torch.Tensor,  # [T, 3, N, D]
    x: torch.Tensor,  # [T, H]
    weight: torch.Tensor,  # [3·N·D, H]
    cos: torch.Tensor | None,  # [T, D/2]
    sin: torch.Tensor | None,  # [T, D/2]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The explicit backward: grad_x [T,H], grad_weight [3·N·D,H], grad_bias [3·N·D]."""
    grad = grad_of_product(grad_qkv, cos, sin)
    return grad @ weight, grad.t() @ x, grad.sum(dim=0)


def grad_of_product(
    grad_qkv: torch.Tensor,  # [T, 3, N, D]
    cos: torch.Tensor | None,  # [T, D/2]
    sin: torch.Tensor | None,  # [T, D/2]
) -> torch.Tensor:  # [T, 3·N·D]
    """The gradient before the rotation, whose transpose turns the other way."""
    if cos is not None:
        grad_qkv = _rotate(grad_qkv, cos, -sin)
    return grad_qkv.flatten(1)


def _rotate(qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns queries and keys by each token's angles; values stay."""
    turned, values = qkv[:, :2], qkv[:, 2:]
    first, second = turned.chunk(2, dim=-1)
    cos, sin = cos[:, None, None, :].to(qkv.dtype), sin[:, None, None, :].to(qkv.dtype)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return torch.cat((turned, values), dim=1)
