"""encoder_layers for torch: schema, shapes, plain kernel. It has no gradient: the layers one by one have."""

from __future__ import annotations

from sentcore.ops.encoder_layers import reference
from sentcore.ops.register import define


def _forward(x, cu_seqlens, max_seqlen, num_heads, intermediate_size, weights, activation, eps):
    out = reference.encoder_layers(
        x,
        cu_seqlens,
        max_seqlen,
        weights,
        num_heads=num_heads,
        intermediate_size=intermediate_size,
        activation=activation,
        eps=eps,
    )
    return out.clone() if out is x else out


def _forward_fake(x, cu_seqlens, max_seqlen, num_heads, intermediate_size, weights, activation, eps):
    return x.new_empty(x.shape)


define(
    "encoder_layers(Tensor x, Tensor cu_seqlens, int max_seqlen, int num_heads, int intermediate_size, Tensor[] weights, "
    "str activation, float eps) -> Tensor",
    _forward,
    _forward_fake,
)
