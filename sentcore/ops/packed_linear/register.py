"""packed_linear for torch: schema, shapes, plain kernel. It has no gradient: weights are packed for inference."""

from __future__ import annotations

from sentcore.ops.packed_linear import reference
from sentcore.ops.register import define


def _forward(x, weight, out_features, bias, activation):
    return reference.packed_linear(x, reference.PackedWeight(weight, out_features), bias, activation=activation)


def _forward_fake(x, weight, out_features, bias, activation):
    return x.new_empty((x.shape[0], out_features))


define(
    "packed_linear(Tensor x, Tensor weight, int out_features, Tensor? bias, str activation) -> Tensor",
    _forward,
    _forward_fake,
)
