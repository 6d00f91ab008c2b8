"""encoder_layers in plain PyTorch: the definition."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F

# Of one layer in `weights`: four linear layers of (packed weight, scale [R] float32 or [0], bias [R]) and two LayerNorms
# of (weight [H], bias [H]), in the order in which they are used.
TENSORS_OF_LAYER = 16


def encoder_layers(
    x: torch.Tensor,  # [T, H] float32 | bfloat16
    cu_seqlens: torch.Tensor,  # [B + 1] int32
    max_seqlen: int,
    weights: list[torch.Tensor],  # TENSORS_OF_LAYER for each layer
    *,
    num_heads: int,
    intermediate_size: int,
    activation: str,
    eps: float,
) -> torch.Tensor:  # [T, H]
    """L times: x = LayerNorm(x + output(attention(qkv(x)))); x = LayerNorm(x + down(act(up(x))))."""
    hidden, inner = x.shape[1], intermediate_size
    for first in range(0, len(weights), TENSORS_OF_LAYER):
        layer = weights[first : first + TENSORS_OF_LAYER]
        qkv = _linear(x, layer[0:3], 3 * hidden)
        context = _attention(qkv.view(len(x), 3, num_heads, -1), cu_seqlens)
        x = F.layer_norm(x + _linear(context, layer[3:6], hidden), (hidden,), *layer[6:8], eps)
        between = _linear(x, layer[8:11], inner)
        between = F.relu(between) if activation == "relu" else F.gelu(between, approximate=_GELU[activation])
        x = F.layer_norm(x + _linear(between, layer[11:14], hidden), (hidden,), *layer[14:16], eps)
    return x


_GELU = {"gelu": "none", "gelu_tanh": "tanh"}


def _attention(qkv: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """[T, 3, N, D] -> [T, N·D], a sentence at a time."""
    out = qkv.new_empty((qkv.shape[0], qkv.shape[2], qkv.shape[3]))
    bounds = cu_seqlens.tolist()
    for begin, end in pairwise(bounds):
        q, k, v = qkv[begin:end].permute(1, 2, 0, 3)
        out[begin:end] = F.scaled_dot_product_attention(q, k, v).transpose(0, 1)
    return out.flatten(1)


def _linear(x: torch.Tensor, packed: list[torch.Tensor], columns: int) -> torch.Tensor:
    """[T, K] -> [T, R]; a weight in 8 bits is multiplied unrounded with x, which is what its kernel comes close to."""
    values, scale, bias = packed
    weight = values.transpose(1, 2).flatten(2).flatten(0, 1)[:columns, : x.shape[1]]
    if values.dtype == torch.uint8:
        weight = ((weight.float() - 128.0) * scale[:, None]).to(x.dtype)
    return F.linear(x, weight, bias.to(x.dtype))
