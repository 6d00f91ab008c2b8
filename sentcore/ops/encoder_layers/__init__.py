"""All layers of an encoder in one call, for inference on a CPU."""

from __future__ import annotations

import torch

from sentcore.ops.encoder_layers import register  # noqa: F401  declares sentcore::encoder_layers
from sentcore.ops.encoder_layers.reference import TENSORS_OF_LAYER

__all__ = ["TENSORS_OF_LAYER", "encoder_layers"]


def encoder_layers(
    x: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    weights: list[torch.Tensor],
    *,
    num_heads: int,
    intermediate_size: int,
    activation: str,
    eps: float,
) -> torch.Tensor:
    """The layers of a BERT-architecture encoder, without Python between them; CPU, no gradient.

    Args:
        x: [T, H] float32 or bfloat16, on a CPU.
        cu_seqlens: [B + 1] int32, where each sentence begins.
        max_seqlen: S, no sentence is longer.
        weights: 16 tensors for each layer: of the linear layers for queries, keys and values as one, behind the attention,
            up and down, the `values` of `pack_weight` (or `quantize_weight`, for all or none), the scale ([0] without) and the
            bias; behind the second and the fourth also a LayerNorm's weight and bias, [H].
        num_heads: N.
        intermediate_size: F.
        activation: "gelu", "gelu_tanh" or "relu".
        eps: of the LayerNorms.

    Returns:
        [T, H] in x's dtype.

    Raises:
        RuntimeError: from the kernel, by argument, value found, what is accepted, remedy.

    Source: Devlin et al. 2018 (https://arxiv.org/abs/1810.04805). The definition is reference.py.
    """
    return torch.ops.sentcore.encoder_layers.default(
        x, cu_seqlens, max_seqlen, num_heads, intermediate_size, weights, activation, eps
    )
