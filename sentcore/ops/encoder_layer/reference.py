"""encoder_layer in plain PyTorch, differentiable by torch's own autograd: the definition, without dropout.

With dropout the masks are those that varlen_attention and add_layer_norm make of the same seeds.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F

WEIGHTS = (
    "output",  # [H, H]
    "output_bias",  # [H]
    "first_norm",  # [H]
    "first_norm_bias",  # [H]
    "up",  # [F, H]
    "up_bias",  # [F]
    "down",  # [H, F]
    "down_bias",  # [H]
    "second_norm",  # [H]
    "second_norm_bias",  # [H]
)


def encoder_layer(
    x: torch.Tensor,  # [T, H]
    cu_seqlens: torch.Tensor,  # [B + 1] int32
    max_seqlen: int,
    qkv: list[torch.Tensor],  # weight [3H, H] and bias [3H], or three weights [H, H] and three biases [H]
    weights: list[torch.Tensor],  # as WEIGHTS says
    *,
    num_heads: int,
    activation: str,
    eps: float,
) -> torch.Tensor:  # [T, H]
    """normed = LayerNorm(x + output(attention(qkv(x)))); out = LayerNorm(normed + down(act(up(normed))))."""
    hidden, half = x.shape[1:], len(qkv) // 2
    output, output_bias, norm, norm_bias, up, up_bias, down, down_bias, last, last_bias = weights
    projected = F.linear(x, torch.cat(qkv[:half]), torch.cat(qkv[half:])).view(len(x), 3, num_heads, -1)
    attended = []
    for begin, end in pairwise(cu_seqlens.tolist()):
        q, k, v = projected[begin:end].permute(1, 2, 0, 3)
        attended.append(F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
    normed = F.layer_norm(x + F.linear(torch.cat(attended), output, output_bias), hidden, norm, norm_bias, eps)
    inner = F.linear(normed, up, up_bias)
    inner = F.relu(inner) if activation == "relu" else F.gelu(inner, approximate=_GELU[activation])
    return F.layer_norm(normed + F.linear(inner, down, down_bias), hidden, last, last_bias, eps)


_GELU = {"gelu": "none", "gelu_tanh": "tanh"}
